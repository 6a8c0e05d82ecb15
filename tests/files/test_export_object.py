"""Objects for this machine and for others: their bits are those of the native backend."""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.elf import undefined
from graphc.backends.native import export
from graphc.backends.native.cross import compiled, lacking, machine_of, target_of
from graphc.backends.native.objects import parsed
from graphc.backends.native.program import program_ir
from graphc.backends.native.target import TILES, Target, host
from tests.extras import needs, program
from tests.files.object_model import ObjectModel, narrow, plain
from tests.onnx.zoo import NAMES, batch, declared_net

needs("native")

TARGETS = {"with the least": plain, "without vectors": narrow, "as the native backend's": host}
ROWS = 8


def digits() -> gc.Net:
    """Dropout, sums over rows and over columns, exponentials and products."""
    net = gc.Net("digits")
    h = net.input("x", (gc.N, 12))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, 20))), keep_prob=0.8)
    scores = net.output("scores", gc.affine(h, 4))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def images() -> gc.Net:
    """Windows, a transpose, erf, roots, and sums over long rows."""
    net = gc.Net("images")
    h = net.input("x", (gc.N, 3, 6, 5))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.max_pool(gc.gelu(gc.conv2d(h, 5, 3, padding=1)), 2)
    h = gc.transpose(h, (0, 2, 3, 1))
    h = gc.softmax(gc.layernorm(gc.affine(gc.sqrt(1 + h * h), 70)))
    scores = net.output("scores", gc.affine(h, 4))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def feeds(net: gc.Net, rows: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shape = (12,) if net.graph().name == "digits" else (3, 6, 5)
    x = rng.normal(size=(rows, *shape)).astype(np.float32)
    return {"x": x, "y": rng.integers(0, 4, rows)}


def executor(net: gc.Net, **options: Any) -> gc.Executor:
    plan = gc.compile(net, batch=ROWS, optimizer=gc.AdamW(lr=0.01), backend="native", **options)
    return gc.Executor(plan, seed=3)


def check_steps(ex: gc.Executor, model: ObjectModel, feeds: list[dict[str, Any]]) -> None:
    """Compare the bits of inference, and of training steps and the state after each."""
    for each in feeds:
        if any(entry.name == "model_infer" for entry in model.interface.entries):
            wanted = ex.forward(each)
            for name, found in model.call("infer", each).items():
                assert found.tobytes() == wanted[name].tobytes(), name
        assert model.call("train_step", each)["loss"] == ex.step(each)
        for name in model.interface.state:
            assert model.read(name).tobytes() == np.asarray(ex.state[name]).tobytes(), name


@pytest.mark.parametrize(
    ("make", "target"),
    [
        pytest.param(
            make, target, id=f"{make.__name__}, {name}", marks=[pytest.mark.slow] * (i > 0)
        )
        for i, (make, (name, target)) in enumerate(product((digits, images), TARGETS.items()))
    ],
)
def test_an_object_has_the_bits_of_the_native_backend(make: Any, target: Any) -> None:
    net = make()
    ex = executor(net)
    check_steps(ex, ObjectModel(ex, target()), [feeds(net, n, n) for n in (ROWS, 1, 5)])


def test_an_object_has_no_instructions_of_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may not have asked the system for them."""
    listings: list[str] = []

    def listed(ir: str, target: Target) -> bytes:
        machine = machine_of(target)
        listings.append(machine.emit_assembly(parsed(ir, target, machine)))
        return compiled(ir, target)

    monkeypatch.setattr(export, "compiled", listed)
    ex = executor(digits(), precision={"*": "bf16_blocks"})
    gc.export_object(ex, tmp_path / "model.o")
    assert "fma" in listings[0]
    assert "tdpbf16ps" not in listings[0]
    assert "tilecfg" not in listings[0]
    own = "".join(program_ir(ex.plan.programs["step"], host()))
    assert ("tdpbf16ps" in own) == (host().words["blocks"] == TILES)


@pytest.mark.slow
def test_gradients_and_multiply_adds_that_are_not_fused() -> None:
    ex = executor(digits(), contract="unfused")
    model = ObjectModel(ex, narrow(), backward=True)
    given = feeds(digits(), 5, 0)
    found = model.call("backward", given)
    ex.forward(given, train=True)
    for name, gradient in ex.backward().items():
        assert found[f"d_{name}"].tobytes() == gradient.tobytes()
    check_steps(ex, ObjectModel(ex, plain()), [feeds(digits(), ROWS, 1)])


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("make", [digits, images])
def test_inference_in_int8_has_the_same_bits(make: Any, target: Any) -> None:
    net = make()
    given = {n: {"x": feeds(net, n, n)["x"]} for n in (ROWS, 1, 3)}
    ex = gc.quantize(executor(net), given[ROWS])
    model = ObjectModel(ex, target(), infer_only=True)
    for each in given.values():
        found = model.call("infer", each)["scores"]
        assert found.tobytes() == ex.forward(each)["scores"].tobytes()


@pytest.mark.one_in(4)
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_nets_of_the_zoo_have_the_same_bits(name: str, target: Any) -> None:
    plan = gc.compile(declared_net(name), batch=ROWS, optimizer=gc.Adam(lr=0.01), backend="native")
    ex = gc.Executor(plan, seed=0)
    model = ObjectModel(ex, target())
    given = [batch(name, ROWS - step, step) for step in range(2)]
    check_steps(
        ex, model, [dict(zip("xy", x, strict=True)) if isinstance(x, tuple) else x for x in given]
    )


@pytest.mark.parametrize(
    ("triple", "cpu", "missing", "there"),
    [
        ("x86_64-linux", "x86-64", {"fma.float32", "floor.float32"}, {"sqrt.float32"}),
        ("x86_64-linux", None, set(), {"fma.float32", "fma.float64", "roundeven.float32"}),
        ("thumbv7em-none-eabihf", None, {"fma.float64", "sqrt.float64"}, {"fma.float32"}),
        ("thumbv7em-none-eabihf", "cortex-m7", set(), {"fma.float64", "sqrt.float64"}),
        ("riscv32", None, {"fma.float32", "sqrt.float32"}, set()),
        ("riscv64-linux", None, set(), {"fma.float32", "fma.float64", "sqrt.float64"}),
        ("wasm32", None, {"fma.float32", "fma.float64"}, {"sqrt.float64", "floor.float32"}),
    ],
)
def test_what_a_processor_lacks_is_known(
    triple: str, cpu: str | None, missing: set[str], there: set[str]
) -> None:
    found = lacking(target_of(triple, cpu))
    assert missing <= found
    assert not there & found


def test_the_header_lists_what_the_object_leaves_undefined(tmp_path: Path) -> None:
    net = gc.Net("line")
    net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    path, header, *_ = gc.export_object(ex, tmp_path / "model.o", target="riscv32")
    listed = "".join(line for line in header.read_text().splitlines() if "libgcc" in line)
    assert "__addsf3" in listed
    assert "fmaf" not in listed
    nm = program("nm")
    if nm is not None:
        said = subprocess.run([nm, "-u", path], check=True, capture_output=True, text=True).stdout
        assert set(said.split()[1::2]) == set(
            listed.partition(" for ")[2].rstrip(". */").split(", ")
        )
    _, header, *_ = gc.export_object(ex, tmp_path / "model.o", target="riscv64-linux")
    assert "libgcc" not in header.read_text()


def test_a_wrong_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gc.GraphError, match="no objects for the target 'sparc-sun'"):
        gc.export_object(executor(digits()), tmp_path / "model.o", target="sparc-sun")
    with pytest.raises(gc.GraphError, match="no processor 'cortex-z9' of thumbv7em"):
        gc.export_object(
            executor(digits()), tmp_path / "model.o", target="thumbv7em-none-eabi", cpu="cortex-z9"
        )
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("triple", ["x86_64-linux", "aarch64-linux", "armv7a-linux-gnueabihf"])
@pytest.mark.slow
def test_nothing_but_the_library_of_compilers_is_undefined(triple: str, tmp_path: Path) -> None:
    path, *_ = gc.export_object(executor(images()), tmp_path / "model.o", target=triple)
    assert all(name.startswith("__") for name in undefined(path.read_bytes()))
