"""Rows added to those that indices name: the bits of NumPy, for any threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import graphc as gc
from graphc.backends.native.ir import Function, Module
from graphc.backends.native.transpose_scatter import emit_scatter_add
from graphc.ir.expr import BodyBuilder
from graphc.ir.tensor_type import N
from graphc.kernels.interpret import run as interpreted
from graphc.kernels.kernel import ScatterAdd
from graphc.kernels.text import kernel_text
from graphc.ops.gather import GatherGrad
from tests.backends.native.compiled_function import Compiled
from tests.backends.native.gemm_function import guarded
from tests.kernels.test_program_text import instructions, native

Array = NDArray[Any]


def kernel(rows: int, columns: int, dtype: str = "float32", indices: str = "int64") -> ScatterAdd:
    """3 * N rows, added to so many."""
    b = BodyBuilder()
    b.store(b.scatter_add(dtype), "out", "each")
    how = {"source": "dout", "indices": "ids", "index_dtype": indices, "count": 3 * N}
    return ScatterAdd(rows, columns, "rows", b.body(), "columns", **how)  # type: ignore[arg-type]


def run(loop: ScatterAdd, arrays: dict[str, Array], n: int, threads: int) -> Array:
    """The result by generated code, between guards."""
    module = Module()
    name = emit_scatter_add(module, loop).name
    arguments = "ptr %rows, ptr %indices, ptr %out, i64 %n, i64 %tid, i64 %threads"
    f = Function(module, "entry", arguments, linkage="")
    f.do(f"call void @{name}({arguments})")
    f.ret()
    module.add(f)
    compiled = Compiled(module, "entry")
    out, untouched = guarded(arrays["out"])
    for thread in reversed(range(threads)):
        compiled(arrays["dout"], arrays["ids"], out, n, thread, threads)
    assert untouched()
    return out.copy()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("columns", [1, 19, 64, 150])
def test_sums_have_the_order_of_indices(columns: int) -> None:
    """Repeated ones, and some out of bounds; with threads that have nothing to do."""
    rng = np.random.default_rng(columns)
    dtype, indices = ("float32", "int64") if columns % 2 else ("float64", "int32")
    loop = kernel(5, columns, dtype, indices)
    arrays = {
        "dout": rng.standard_normal((7, 3, columns)).astype(dtype),
        "ids": rng.integers(-3, 9, (7, 3)).astype(indices),
        "out": np.full((5, columns), np.nan, dtype),
    }
    wanted = GatherGrad((5, columns)).reference([arrays["ids"], arrays["dout"]])
    for threads in (1, 2, 3, 4):
        assert run(loop, arrays, 7, threads).tobytes() == wanted.tobytes()
    interpreted(loop, arrays, 7)
    assert arrays["out"].tobytes() == wanted.tobytes()


def test_text() -> None:
    assert kernel_text(kernel(5, 8)) == (
        "loop 5 x 8  float32 partition=columns  scatter_add = 3*N rows of dout by ids\n"
        "  out = scatter_add\n"
    )


def embedded(axis: int = 0, *, vector: bool = False) -> gc.Net:
    """The loss of rows by indices, or of single numbers."""
    net = gc.Net("embedded")
    ids = net.input("ids", (gc.N, 6), dtype="int64")
    table = net.parameter("table", (50,) if vector else (50, 37), init=gc.Normal(1.0))
    rows = gc.gather(table if not axis else gc.transpose(table), ids, axis=axis)
    net.loss("loss", gc.mean(gc.tanh(rows) * 2.0))
    return net


def test_a_step_calls_nothing() -> None:
    program = native(embedded(), "step", gc.SGD(lr=0.1))
    text = instructions(program)
    assert "table[minimum(maximum(ids[i], 0), 49), p1]" in text
    assert "partition=columns  scatter_add = 6*N rows of" in text
    assert all(instr.kind not in ("call", "reference") for instr in program.instrs)
    assert program.verify().ok


def test_a_step_with_a_vector_calls_nothing() -> None:
    program = native(embedded(vector=True), "step", gc.SGD(lr=0.1))
    text = instructions(program)
    assert "table[minimum(maximum(ids[i], 0), 49), p1]" in text
    assert "loop 50 x 1  float32 partition=columns  scatter_add = 6*N rows of" in text
    assert all(instr.kind not in ("call", "reference") for instr in program.instrs)
    assert program.verify().ok


def test_along_another_axis_numpy_is_called() -> None:
    program = native(embedded(1), "step", gc.SGD(lr=0.1))
    assert {i.kernel for i in program.instrs if i.kind == "call"} == {"gather", "gather_grad"}
    assert program.verify().ok


@pytest.mark.parametrize("vector", [False, True])
def test_training_equals_numpy_and_one_thread(vector: bool) -> None:
    feeds = {"ids": np.random.default_rng(0).integers(0, 50, (9, 6))}
    found = []
    for backend, threads in (("numpy", 1), ("native", 1), ("native", 2)):
        how = {"optimizer": gc.SGD(lr=0.5), "backend": backend, "threads": threads}
        plan = gc.compile(embedded(vector=vector), batch=9, **how)
        ex = gc.Executor(plan, seed=0)
        for _ in range(3):
            ex.step(**feeds)
        found.append(ex.state["table"].copy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert found[1].tobytes() == found[2].tobytes()
