"""Models from strangers: what does not fit is refused in words, and no other file is opened."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import graphc as gc
from graphc.onnx import load, prepare
from graphc.onnx.load import LOSSES
from tests.onnx.models import model, node
from tests.onnx.test_load import numbers, perceptron


def with_external(location: str, **more: str) -> ModelProto:
    made = model([node("Mul", "x w", "y")], {"x": (4,)}, ["y"], {"w": numbers(4)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return made


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder for the model, beside a file that it must not read."""
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(numbers(4).tobytes())
    (folder / "data").write_bytes(b"head" + numbers(4).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", folder / "hard")
    (folder / "sub").mkdir()
    (folder / "to_outside").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return folder


def test_external_data_are_off_unless_asked_for(inside: Path) -> None:
    onnx.save(with_external("data", offset="4"), inside / "model.onnx")
    with pytest.raises(gc.ModelFileError, match="is in another file"):
        load(inside / "model.onnx")
    net = load(inside / "model.onnx", external_data=True)
    x = numbers(4, seed=1)
    found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward(x=x)["y"]
    np.testing.assert_allclose(found, x * numbers(4), rtol=1e-6)


@pytest.mark.parametrize(
    "location",
    [
        *("../secret", "sub/../../secret", "link", "to_outside/secret", "hard", "pipe"),
        *("sub", "nowhere", "", "data", "data\0"),
    ],
)
def test_external_data_come_from_plain_files_of_the_folder(inside: Path, location: str) -> None:
    onnx.save(with_external(location, length="99"), inside / "model.onnx")
    with pytest.raises(gc.ModelFileError, match="data of ONNX tensor 'w' cannot be read"):
        load(inside / "model.onnx", external_data=True)


def test_an_absolute_path_is_none(inside: Path) -> None:
    onnx.save(with_external(str(inside / "data")), inside / "model.onnx")
    with pytest.raises(gc.ModelFileError, match="is not inside the model's folder"):
        load(inside / "model.onnx", external_data=True)


def test_a_model_in_memory_has_no_folder() -> None:
    with pytest.raises(gc.ModelFileError, match="is in another file"):
        load(with_external("/etc/hostname"), external_data=True)
    with pytest.raises(gc.ModelFileError, match="is in another file"):
        prepare(with_external("/etc/hostname")).run([numbers(4)])


def _dims(*sizes: int) -> Callable[[ModelProto], object]:
    def change(made: ModelProto) -> None:
        made.graph.initializer[0].ClearField("dims")
        made.graph.initializer[0].dims.extend(sizes)

    return change


def _twice(made: ModelProto) -> None:
    made.graph.node.append(made.graph.node[1])


def _cycle(made: ModelProto) -> None:
    made.graph.node[0].input[0] = "a"


def _name(made: ModelProto) -> None:
    made.graph.node[0].op_type = "Gemm\x1b[31m"


def _long(made: ModelProto) -> None:
    made.graph.node[0].name = "n" * 2000


def _lost(made: ModelProto) -> None:
    made.graph.output[0].name = "nobody"


def _two(made: ModelProto) -> None:
    made.graph.initializer.append(made.graph.initializer[0])


def _text(made: ModelProto) -> None:
    made.graph.initializer[0].data_type = TensorProto.STRING


def _opset(made: ModelProto) -> None:
    made.opset_import[0].version = 99


WRONG: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "negative": (_dims(-1, 4), "has the shape"),
    "huge": (_dims(2**40, 2**40), "has the shape"),
    "other data": (_dims(5, 5), "cannot be read"),
    "a name twice": (_twice, "makes 'a' twice"),
    "a circle": (_cycle, "reads 'a', which no earlier node makes"),
    "letters nobody sees": (_name, "characters that are not printable"),
    "a long name": (_long, "has 2,000 characters"),
    "no such output": (_lost, "no node of the model makes its output 'nobody'"),
    "two of one name": (_two, "two initializers 'fc1.weight'"),
    "text": (_text, "contains text, not numbers"),
    "opset": (_opset, "asks for opset 99"),
}


@pytest.mark.parametrize("what", WRONG)
def test_files_that_do_not_fit_are_refused(what: str) -> None:
    change, told = WRONG[what]
    made = perceptron()
    change(made)
    with pytest.raises(gc.GraphError, match=told):
        load(made)


def test_losses_are_named_by_metadata_that_may_be_wrong() -> None:
    made = perceptron()
    helper.set_model_props(made, {LOSSES: "scores\nnobody"})
    assert load(made).graph().losses == ()


def test_shapes_that_are_too_large_make_nothing() -> None:
    shape = model(
        [node("ConstantOfShape", "s", "c"), node("Add", "c c", "y")],
        {},
        ["y"],
        {"s": np.array([2**30, 2**30])},
    )
    with pytest.raises(gc.GraphError, match="larger than any memory"):
        load(shape)
    steps = model(
        [node("Range", "a b c", "y")],
        {},
        ["y"],
        {"a": np.int64(0), "b": np.int64(2**60), "c": np.int64(1)},
    )
    with pytest.raises(gc.GraphError, match=r"too much work: more than .* elements"):
        load(steps)


def test_functions_that_call_themselves_end() -> None:
    call = node("f", "a", "b")
    call.domain = "mine"
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "f", ["a"], ["b"], [call], opsets)
    outer = node("f", "x", "y")
    outer.domain = "mine"
    made = model([outer], {"x": (2,)}, ["y"], functions=[function])
    with pytest.raises(gc.GraphError, match="call each other"):
        load(made)


def test_the_text_of_an_op_of_graphc_is_not_run() -> None:
    for text in (
        "__import__('os')",
        "layer nothing()",
        "constant(shape=(2,), dtype=3)",
        "relu(x=1)",
    ):
        call = helper.make_node("relu", ["x"], ["y"], domain="graphc", graphc=text)
        made = model([call], {"x": (2,)}, ["y"])
        made.opset_import.append(helper.make_opsetid("graphc", 1))
        with pytest.raises(gc.GraphError):
            load(made)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 100, b"\x08\x0a", b"nothing like it"])
def test_files_that_are_not_models_are_reported(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(gc.ModelFileError, match="is not an ONNX model, or is damaged"):
        load(tmp_path / "model.onnx")


def test_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null"), tmp_path / "nix"):
        with pytest.raises(gc.ModelFileError, match="cannot read"):
            load(path)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them changed, left out, or standing twice."""
    parts = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(parts))
        match rng.randrange(4):
            case 0:
                parts[at] = rng.randrange(256)
            case 1:
                parts[at] ^= 1 << rng.randrange(8)
            case 2:
                del parts[at : at + rng.randint(1, 8)]
            case _:
                parts[at:at] = parts[at : at + rng.randint(1, 8)]
        if not parts:
            break
    return bytes(parts)


def read_or_refused(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        load(path)
    except gc.GraphError:
        return False
    return True


def seeds() -> list[bytes]:
    from tests.onnx.test_save import NETS, made, to_proto

    return [perceptron().SerializeToString()] + [
        to_proto(made(declare)).SerializeToString() for declare in NETS
    ]


def test_damaged_models_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    data = perceptron().SerializeToString()
    read = sum(read_or_refused(tmp_path / "model.onnx", damaged(data, rng)) for _ in range(200))
    assert 0 < read < 200


@pytest.mark.slow
def test_many_damaged_models_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(1)
    for data in seeds():
        for _ in range(700):
            read_or_refused(tmp_path / "model.onnx", damaged(data, rng))


def test_errors_about_long_lists_are_short() -> None:
    many = model(
        [node("Split", "x s", "y")], {"x": ("N", 4)}, ["y"], {"s": np.ones(100_000, np.int64)}
    )
    with pytest.raises(gc.GraphError) as caught:
        load(many)
    assert len(str(caught.value)) < 6000


def test_as_many_parts_as_results() -> None:
    cut = model([node("Split", "x", "y z", axis=1, num_outputs=2**60)], {"x": ("N", 4)}, ["y"])
    with pytest.raises(gc.GraphError, match=f"num_outputs={2**60} for 2 outputs"):
        load(cut)


@pytest.mark.parametrize("name", ["\ud800", "a\x1b[2J"])
def test_a_net_with_a_name_that_cannot_be_seen_is_not_written(name: str) -> None:
    net = gc.Net("n")
    net.output("o", gc.relu(net.input(name, (gc.N, 2))))
    with pytest.raises(gc.GraphError, match="has characters that are not printable"):
        gc.onnx.to_proto(net)
