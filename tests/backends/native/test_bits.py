"""Results depend on no circumstance, to the bit: threads, batches, files, processes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import target
from tests.backends.native.nets import NETS, OPTIMIZERS, feeds_of
from tests.extras import needs

pytestmark = pytest.mark.needs("native")

WORKLOADS = ("mlp", "seed_layers", "deep", "wide", "gated", "other_rows", "images")
BATCH = 70
"""Five chunks of rows, the last of them short."""
STEPS = 20
SEED = 9

State = dict[str, bytes]


def executor(name: str, optimizer: str, **options: Any) -> gc.Executor:
    plan = gc.compile(
        NETS[name]("float32"),
        batch=BATCH,
        optimizer=OPTIMIZERS[optimizer](),
        backend="native",
        **options,
    )
    return gc.Executor(plan, seed=SEED)


def trained(ex: gc.Executor, name: str, steps: int = STEPS) -> State:
    """The bytes of the state, and of the losses, after some steps of several sizes."""
    net, losses = NETS[name]("float32"), []
    for step in range(steps):
        n = (BATCH, BATCH, 33, 1)[step % 4]
        losses.append(ex.step(feeds_of(net, n, seed=step)))
    return {**as_bytes(ex.snapshot().items()), "losses": np.array(losses).tobytes()}


def as_bytes(arrays: Iterable[tuple[str, Any]]) -> State:
    return {name: np.asarray(array).tobytes() for name, array in arrays}


@pytest.mark.one_in(10)
@pytest.mark.parametrize(
    ("name", "optimizer"), list(zip(WORKLOADS, cycle(("momentum", "adam")), strict=False))
)
def test_any_number_of_threads(name: str, optimizer: str, four_threads: object) -> None:
    wanted = trained(executor(name, optimizer, threads=1), name)
    for threads in (2, 3, 4):
        found = trained(executor(name, optimizer, threads=threads), name)
        assert found == wanted, f"{threads} threads"


@pytest.mark.one_in(12)
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_any_net_and_number_of_threads(name: str, optimizer: str, four_threads: object) -> None:
    wanted = trained(executor(name, optimizer, threads=1), name)
    for threads in (2, 3, 4):
        found = trained(executor(name, optimizer, threads=threads), name)
        assert found == wanted, f"{threads} threads"


def test_gradients_with_any_number_of_threads(four_threads: object) -> None:
    feeds = feeds_of(NETS["seed_layers"]("float32"), BATCH)
    found = []
    for threads in (1, 3, 4):
        ex = executor("seed_layers", "momentum", threads=threads)
        outputs = ex.forward(feeds, train=True)
        found.append(as_bytes((*outputs.items(), *ex.backward().items())))
    assert found[0] == found[1] == found[2]


# ---------------------------------------------------------------------- how rows are batched

SPLITS = ((64,), (1, 63), (7,) * 9 + (1,), (33, 31), (16, 17, 31), (2, 3, 4, 55))


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("seed_layers", "float32"),
        ("seed_layers", "float64"),
        ("gated", "float32"),
        ("three_axes", "float64"),
        ("concat_of_slices", "float32"),
    ],
)
def test_any_split_of_rows_at_inference(name: str, dtype: str, four_threads: object) -> None:
    """And any capacity of the plan, and any number of threads."""
    net = NETS[name](dtype)
    feeds = feeds_of(net, 64)
    found = set()
    for capacity, threads in ((64, 1), (71, 4), (300, 3)):
        ex = gc.Executor(gc.compile(net, batch=capacity, threads=threads, backend="native"), seed=1)
        for sizes in SPLITS:
            found.add(np.concatenate(list(in_parts(ex, feeds["x"], sizes))).tobytes())
    few = gc.Executor(gc.compile(net, batch=5, backend="native"), seed=1)
    found.add(few.predict(feeds["x"]).tobytes())
    assert len(found) == 1


def in_parts(ex: gc.Executor, x: Any, sizes: Iterable[int]) -> Iterator[Any]:
    start = 0
    for n in sizes:
        yield ex.forward(x=x[start : start + n])["scores"]
        start += n
    assert start == len(x)


# ---------------------------------------------------------------------- where it runs


@pytest.fixture(scope="module")
def wanted() -> State:
    return trained(executor("seed_layers", "momentum"), "seed_layers")


def test_again(wanted: State) -> None:
    """On arrays elsewhere in memory, and in a plan made anew."""
    hindrance = np.ones(12345)
    assert trained(executor("seed_layers", "momentum"), "seed_layers") == wanted
    assert hindrance.all()


@pytest.mark.one_in(len(NETS))
@pytest.mark.parametrize("name", NETS)
def test_without_optimization(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests of what runs code have it compiled so."""
    wanted = trained(executor(name, "momentum"), name, steps=4)
    monkeypatch.setitem(target.CODEGEN, "opt", 0)
    assert trained(executor(name, "momentum"), name, steps=4) == wanted


def test_after_a_rest_in_a_file(wanted: State, tmp_path: Path) -> None:
    path = tmp_path / "model.gc"
    gc.save(path, executor("seed_layers", "momentum"))
    ex = gc.load(path, batch=BATCH, optimizer=OPTIMIZERS["momentum"]())
    assert trained(ex, "seed_layers") == wanted


def test_in_threads(wanted: State) -> None:
    assert in_threads(3) == [wanted] * 3


def in_threads(count: int, **options: Any) -> list[State]:
    """What training leaves in each of some threads."""
    found: list[State] = []
    executors = [executor("seed_layers", "momentum", **options) for _ in range(count)]
    threads = [
        threading.Thread(target=lambda ex=ex: found.append(trained(ex, "seed_layers")))
        for ex in executors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def send_trained(connection: Any, **options: Any) -> None:
    connection.send(trained(executor("seed_layers", "momentum", **options), "seed_layers"))


@pytest.mark.parametrize("how", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_in_a_process(wanted: State, how: str) -> None:
    assert trained_in_a_process(how) == wanted


def trained_in_a_process(how: str, **options: Any) -> State:
    """What training leaves in a process that starts so."""
    needs("POSIX")
    context: Any = multiprocessing.get_context(how)
    here, there = context.Pipe()
    process = context.Process(target=send_trained, args=(there,), kwargs=options)
    process.start()
    there.close()
    found: State = here.recv()
    process.join()
    assert process.exitcode == 0
    return found


def test_in_blocks_in_a_thread_and_in_a_forked_process(four_threads: object) -> None:
    """A process may use registers of tiles in all its threads, and so may those it forks."""
    blocks = {"*": "bf16_blocks"}
    wanted = trained(executor("seed_layers", "momentum", precision=blocks), "seed_layers")
    (found,) = in_threads(1, threads=4, precision=blocks)
    assert found == wanted
    assert trained_in_a_process("fork", threads=1, precision=blocks) == wanted
