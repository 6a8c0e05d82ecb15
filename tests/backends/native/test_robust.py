"""Right results where the machine, the memory or the caller is unusual.

The whole suite of the backend on narrower vectors is one command:

    GRAPHC_VECTOR_BITS=256 python -m pytest tests/backends/native
    GRAPHC_VECTOR_BITS=128 python -m pytest tests/backends/native
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native.target import WIDTHS, host
from graphc.ir.op import Array
from tests.backends.native.nets import NETS, assert_close, feeds_of
from tests.backends.native.test_bits import BATCH, STEPS, as_bytes, executor, trained
from tests.extras import needs

pytestmark = pytest.mark.needs("native")

ROOT = Path(__file__).parents[3]


# ---------------------------------------------------------------------- other machines

TRAINING = """
import warnings
import numpy as np

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import graphc as gc
    from tests.backends.native.nets import NETS, feeds_of
    net = NETS["seed_layers"]("float64")
    executors = []
    for backend in (None, None, "numpy"):
        plan = gc.compile(net, batch=40, optimizer=gc.Adam(), backend=backend)
        executors.append(gc.Executor(plan, seed=1))
    for step in range(3):
        feeds = feeds_of(net, 40, seed=step)
        losses = [ex.step(feeds) for ex in executors]
        assert np.allclose(losses, losses[-1], rtol=1e-9), losses
print(len(caught), *{program.backend for program in executors[0].plan.programs.values()})
"""


def run_training(before: str = "", **environ: str) -> tuple[str, str]:
    """What training in a process of its own prints, after some lines of code."""
    usual = {name: value for name, value in os.environ.items() if name != "GRAPHC_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", before + TRAINING],
        cwd=ROOT,
        env={**usual, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_without_llvmlite() -> None:
    """One warning for many plans, and the numpy backend."""
    hidden = "import sys\nsys.modules['llvmlite'] = None\n"
    assert run_training(hidden)[0] == "1 numpy"


UNKNOWN = """
from graphc.backends.native import target
target.bindings().get_host_cpu_name = lambda: "{name}"
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "of-next-year"])
def test_unknown_processor(name: str) -> None:
    """LLVM calls generic what it does not know; a name it does not know it complains of itself."""
    printed, complaints = run_training(UNKNOWN.format(name=name))
    assert printed == "0 native"
    assert all("not a recognized processor" in line for line in complaints.splitlines())
    assert name or not complaints


@pytest.mark.slow
def test_nowhere_to_cache(tmp_path: Path) -> None:
    """Neither a folder that is read-only nor a file in its place is a fault."""
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir(mode=0o555)
    assert run_training(GRAPHC_CACHE=str(file)) == ("0 native", "")
    assert run_training(GRAPHC_CACHE=str(folder)) == ("0 native", "")
    assert file.read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed_layers", "wide"])
def test_any_width_of_vectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes."""
    wanted = trained(executor(name, "adam"), name, steps=4)
    for bits in (bits for bits in WIDTHS if bits < host().bits):
        monkeypatch.setenv("GRAPHC_VECTOR_BITS", str(bits))
        assert host().bits == bits
        assert trained(executor(name, "adam"), name, steps=4) == wanted, f"{bits} bits"


@pytest.mark.one_in(2)
@pytest.mark.slow
@pytest.mark.parametrize("bits", [128, 256])
def test_the_whole_suite_on_narrower_vectors(bits: int) -> None:
    needs(f"vectors of {bits} bits")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "tests/backends/native",
        ],
        cwd=ROOT,
        env={**os.environ, "GRAPHC_VECTOR_BITS": str(bits)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]


# ---------------------------------------------------------------------- many at once


def test_many_executors_in_as_many_threads() -> None:
    """Of one plan, all at the same time."""
    count = 24
    plan = executor("seed_layers", "momentum", threads=2).plan
    wanted = trained(gc.Executor(plan, seed=9), "seed_layers")
    start, found, errors = threading.Barrier(count), [], []

    def train() -> None:
        try:
            ex = gc.Executor(plan, seed=9)
            start.wait()
            found.append(trained(ex, "seed_layers"))
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=train) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert found == [wanted] * count


# ---------------------------------------------------------------------- memory


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", ["native", "numpy"])
@pytest.mark.parametrize("name", ["seed_layers", "gated", "three_axes", "towers"])
def test_nan_in_a_feed_reaches_the_loss(name: str, backend: str) -> None:
    net = NETS[name]("float32")
    ex = gc.Executor(gc.compile(net, batch=40, backend=backend))
    for n, place in ((40, 0), (40, -1), (17, 3), (1, 0)):
        for spoiled in (key for key in feeds_of(net, n) if key != "y"):
            feeds = feeds_of(net, n)
            feeds[spoiled].reshape(-1)[place] = np.nan
            outputs = ex.forward(feeds)
            assert np.isnan(outputs["loss"]), f"{spoiled} of {n}"
            assert np.isnan(outputs["scores"]).any(axis=1).sum() == 1, "no other row is touched"


def guarded(array: Array, shift: int) -> tuple[Array, Array]:
    """A copy in the midst of elements that no result may depend on, and all of those."""
    worst = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    zone = np.full(array.size + 2 * 64 + shift, worst, array.dtype)
    inner = zone[64 + shift : 64 + shift + array.size].reshape(array.shape)
    inner[...] = array
    return inner, zone


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", ["seed_layers", "gated", "slices_of_feeds", "towers"])
def test_feeds_among_nans(name: str) -> None:
    """Feeds are read where they lie, at any alignment, and nothing beside them."""
    net = NETS[name]("float32")
    plain, ex = executor(name, "momentum"), executor(name, "momentum")
    for n in (BATCH, 33, 1, 7):
        for shift in (0, 1, 5):
            feeds = feeds_of(net, n, seed=shift)
            around = {key: guarded(array, shift) for key, array in feeds.items()}
            before = as_bytes((key, zone) for key, (_, zone) in around.items())
            inner = {key: array for key, (array, _) in around.items()}
            wanted = as_bytes(plain.forward(feeds).items())
            assert as_bytes(ex.forward(inner).items()) == wanted
            assert plain.step(feeds) == ex.step(inner)
            assert as_bytes((key, zone) for key, (_, zone) in around.items()) == before
    assert as_bytes(ex.snapshot().items()) == as_bytes(plain.snapshot().items())


@pytest.mark.one_in(10)
@pytest.mark.parametrize("name", list(NETS)[::3])
def test_what_the_arena_held_before_is_never_seen(name: str) -> None:
    net = NETS[name]("float32")
    ex = gc.Executor(gc.compile(net, batch=40, backend="native"))
    for n in (40, 7):
        feeds = feeds_of(net, n)
        wanted = as_bytes(ex.forward(feeds).items())
        ex._workspace.arena[...] = 0xFF  # NaN, whatever the dtype
        assert as_bytes(ex.forward(feeds).items()) == wanted


def test_a_step_makes_no_arrays() -> None:
    """The least of several tries counts: other threads of the process allocate, too."""
    ex = executor("seed_layers", "adam")
    feeds = feeds_of(NETS["seed_layers"]("float32"), BATCH)
    for _ in range(3):
        ex.step(feeds)
    most = min(allocated(lambda: ex.step(feeds)) for _ in range(3))
    assert most < 2000, f"{most} bytes: a row of activations has 160, a batch 11,200"


def allocated(step: Callable[[], object]) -> int:
    """The most bytes that Python's memory grew by during steps."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(STEPS):
            step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_arrays_of_other_kinds() -> None:
    """Lists, other dtypes, strided and reversed arrays: converted as the numpy backend does."""
    net = NETS["seed_layers"]("float32")
    native, plain = (
        gc.Executor(gc.compile(net, batch=40, backend=backend), seed=2)
        for backend in ("native", "numpy")
    )
    x, y = (feeds_of(net, 20)[name] for name in ("x", "y"))
    kinds: list[tuple[Any, Any]] = [
        (x.tolist(), y.tolist()),
        (x.astype("float64"), y.astype("int32")),
        (np.repeat(x, 2, axis=1)[:, ::2], np.repeat(y, 3)[::3]),
        (x[::-1], y[::-1]),
        (np.asfortranarray(x), y),
        (x.astype(">f4"), y.astype(">i8")),
    ]
    for xs, ys in kinds:
        assert_close(native.forward(x=xs, y=ys), plain.forward(x=xs, y=ys), 1e-4, str(type(xs)))
