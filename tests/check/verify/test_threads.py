"""What the verifier takes threads to do is what native code does.

Each thread runs a kernel by itself: what it has changed is what the verifier says is its own, and
what others own may be NaN to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.backends.native.gemm_tile import choose_tile
from graphc.check.certificate.export import certify_program
from graphc.check.verify import threads as model
from graphc.check.verify.facts import Facts
from graphc.check.verify.threads import ALL, FIRST, Threads
from graphc.compiler.lowering import kernel_instr
from graphc.ir.expr import Axis, Body, BodyBuilder, call
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import ITEMSIZE, Batch, Dim, N, TensorType, align
from graphc.kernels.kernel import Kernel, Loop, Partition
from graphc.kernels.program import Arena, Buffer, Program, Storage
from tests.backends.native import loop_bodies as bodies
from tests.backends.native.gemm_function import Product, Spec
from tests.backends.native.loop_function import LoopFunction, arrays_for

Array = NDArray[Any]
THREADS = (1, 2, 3, 8)


def claims(kernel: Kernel, arrays: dict[str, Array], n: int) -> tuple[Facts, Threads]:
    """The verifier's view of a program of one kernel."""
    instr = kernel_instr(kernel, ("kernel",))
    buffers, storages, offsets, end = {}, [], {}, 0
    for name, array in arrays.items():
        type = TensorType(array.shape, array.dtype.name)
        buffers[name] = Buffer(name, type, "arena", name, end, 0, 0)
        storages.append(Storage(name, (type,), 0, 0))
        offsets[name] = end
        end += align(array.nbytes)
    program = Program(
        "one", Graph("one", ()), n, (instr,), buffers, tuple(storages), Arena(offsets, end, end),
        1, {}, {}, {}, {}, "native",
    )  # fmt: skip
    facts = Facts(certify_program(program))
    return facts, Threads(facts)


def owners(threads: Threads, access: int, count: int, array: Array) -> Array:
    """The thread of each element; -1 where all may touch it."""
    low = int(threads.f.low[threads.f.accesses.buffer[access]])
    addresses = low + np.arange(array.size) * array.itemsize
    return threads.owners(access, addresses, count).reshape(array.shape)


@dataclass(frozen=True)
class Case:
    """A loop to run."""

    body: Body
    rows: Dim
    columns: Dim
    axis: Axis
    partition: Partition


def hoisted() -> Body:
    """Something computed once a column, and a number stored once a row."""
    b = BodyBuilder()
    x, r, c = (b.load(k, s, "float32") for k, s in (("x", "each"), ("r", "row"), ("c", "column")))
    b.store(x * call("exp", c) + r, "y", "each")
    b.store(call("tanh", r), "s", "row")
    return b.body()


def plain() -> Body:
    b = BodyBuilder()
    x, r, c = (b.load(k, s, "float32") for k, s in (("x", "each"), ("r", "row"), ("c", "column")))
    b.store(x * c + r, "y", "each")
    b.store(r + 1.0, "s", "row")
    b.store(c + 1.0, "t", "column")
    b.store(b.load("lr", "one", "float32") * 2.0, "u", "one")
    return b.body()


def flat() -> Body:
    b = BodyBuilder()
    b.store(call("tanh", b.load("x", "each", "float32")), "y", "each")
    return b.body()


CASES = {
    "softmax": Case(bodies.softmax_loss(), N, 10, "columns", "rows"),
    "softmax, wide": Case(bodies.softmax_loss(), N, 200, "columns", "rows"),
    "softmax, alone": Case(bodies.softmax_loss(), N, 10, "columns", "none"),
    "bias": Case(bodies.bias_update(), N, 200, "rows", "columns"),
    "bias, few": Case(bodies.bias_update(), N, 10, "rows", "columns"),
    "batchnorm": Case(bodies.batchnorm(), N, 200, "rows", "columns"),
    "batchnorm, backward": Case(bodies.batchnorm_gradient(), N, 100, "rows", "columns"),
    "dropout": Case(bodies.relu_dropout(), N, 100, "columns", "rows"),
    "momentum": Case(bodies.momentum(), 1, 500, "columns", "columns"),
    "standardize": Case(bodies.standardize(), N, 40, "columns", "rows"),
    "hoisted, rows": Case(hoisted(), N, 200, "columns", "rows"),
    "hoisted, columns": Case(hoisted(), N, 200, "columns", "columns"),
    "plain, rows": Case(plain(), N, 70, "columns", "rows"),
    "plain, columns": Case(plain(), N, 200, "columns", "columns"),
    "plain, along rows": Case(plain(), N, 200, "rows", "columns"),
    "one column": Case(flat(), N, 1, "columns", "rows"),
    "flat": Case(flat(), Batch(2), 33, "columns", "rows"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CASES)
def test_loops(name: str) -> None:
    case = CASES[name]
    kernel = Loop(case.rows, case.columns, case.axis, case.body, case.partition)
    function = LoopFunction(kernel)
    for n in (1, 100):
        compare(function, kernel, n)


def compare(function: LoopFunction, kernel: Loop, n: int) -> None:
    arrays = arrays_for(kernel, n)
    facts, threads = claims(kernel, arrays, n)
    whole = alone(function, kernel, arrays, n, 0, 1)
    for count in THREADS:
        for thread in range(count):
            seen = only_own(threads, arrays, thread, count)
            found = alone(function, kernel, seen, n, thread, count)
            for access in facts.writes.tolist():
                buffer = facts.buffers.names[facts.accesses.buffer[access]]
                mine = owners(threads, access, count, arrays[buffer]) == thread
                assert threads.way[access] != ALL
                same = np.array_equal(found[buffer][mine], whole[buffer][mine], equal_nan=True)
                assert same, (buffer, thread, count)
                left = found[buffer][~mine].tobytes()
                assert left == seen[buffer][~mine].tobytes(), (buffer, thread, count)


def alone(
    function: LoopFunction, kernel: Loop, arrays: dict[str, Array], n: int, tid: int, count: int
) -> dict[str, Array]:
    """The buffers after one of the threads."""
    views = {name: arrays[name].copy() for name in function.buffers}
    function.compiled(*views.values(), n, tid, count)
    return views


def only_own(
    threads: Threads, arrays: dict[str, Array], thread: int, count: int
) -> dict[str, Array]:
    """The arrays, NaN where the verifier says that the thread reads nothing of use to it."""
    facts = threads.f
    readable = {name: np.zeros(array.shape, bool) for name, array in arrays.items()}
    read = set()
    for access in range(len(facts.accesses.step)):
        name = facts.buffers.names[facts.accesses.buffer[access]]
        if access not in facts.writes:
            read.add(name)
            owner = owners(threads, access, count, arrays[name])
            readable[name] |= (owner == thread) | (owner == -1)
    seen = {}
    for name, array in arrays.items():
        seen[name] = array.copy()
        if name in read and array.dtype.kind == "f":
            seen[name][~readable[name]] = np.nan
    return seen


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("spec", "n"),
    [
        (Spec(N, 200, 30), 100),
        (Spec(N, 10, 30, trans_b=True), 50),
        (Spec(70, 200, N, trans_a=True, partition="columns"), 40),
        (Spec(70, 90, N, trans_a=True, partition="rows"), 40),
        (Spec(N, 200, 30, partition="columns"), 20),
        (Spec(N, 333, 30, partition="columns", dtype="float64"), 3),
    ],
)
def test_products(spec: Spec, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product(spec, 512, rows=n)
    panel = choose_tile(spec.dtype, 512).width * ITEMSIZE[spec.dtype]
    monkeypatch.setattr(model, "PANEL_BYTES", panel)
    operands = spec.operands(np.random.default_rng(0), n)
    m = operands["a"].shape[1 if spec.trans_a else 0]
    arrays = {**operands, "c": np.full((m, spec.n), -7, spec.dtype)}
    facts, threads = claims(spec.kernel(), arrays, n)
    (store,) = facts.writes.tolist()
    whole = one_of(product, arrays, n, 0, 1)
    for count in THREADS:
        for thread in range(count):
            found = one_of(product, only_own(threads, arrays, thread, count), n, thread, count)
            mine = owners(threads, store, count, arrays["c"]) == thread
            assert np.array_equal(found[mine], whole[mine]), (thread, count)
            assert np.all(found[~mine] == -7), (thread, count)


def one_of(product: Product, arrays: dict[str, Array], n: int, tid: int, count: int) -> Array:
    """The result after one of the threads."""
    scratch = np.full(product.scratch(n) // 8 + 8, np.nan)
    start = -scratch.ctypes.data % 64 // 8
    buffers = {name: arrays[name].copy() for name in product.code.buffers}
    product._compiled(*buffers.values(), scratch[start:], n, tid, count)
    return buffers["c"]


def test_what_the_first_thread_does_for_all() -> None:
    """A number a row that a loop by blocks of columns stores is not its row's thread's."""
    case = CASES["hoisted, rows"]
    kernel = Loop(case.rows, case.columns, case.axis, case.body, case.partition)
    facts, threads = claims(kernel, arrays_for(kernel, 100), 100)
    ways = {facts.buffers.names[facts.accesses.buffer[i]]: threads.way[i] for i in facts.writes}
    assert ways["s"] == FIRST
