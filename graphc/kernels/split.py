"""How threads share each kernel."""

from __future__ import annotations

from graphc.kernels.body import Axis, Body
from graphc.kernels.kernel import CHUNK, Split
from graphc.tensor_type import Dim, dim_at


def gemm_split(m: Dim, capacity: int) -> Split:
    """By rows, which needs no barrier between layers, unless they are too few to share."""
    return "rows" if dim_at(m, capacity) >= 2 * CHUNK else "columns"


def loop_split(rows: Dim, columns: Dim, axis: Axis, body: Body, capacity: int) -> Split:
    """By what the kernel does not reduce along."""
    reduces = any(step.op in ("sum", "max") for step in body.steps)
    stored = {store.span for store in body.stores}
    if axis == "rows" and (reduces or "column" in stored):
        return "columns"
    if dim_at(rows, capacity) >= 2 * CHUNK and stored <= {"each", "row"}:
        return "rows"
    if rows == 1 and stored == {"each"} and not reduces and dim_at(columns, capacity) > 1:
        return "columns"
    return "none"
