"""Loops without reductions over dense matrices, whose elements are taken as one long row."""

from __future__ import annotations

from collections import ChainMap
from functools import partial
from math import gcd

from graphc.backends.native.elements import Elements, Known, Place
from graphc.backends.native.ir import Value
from graphc.backends.native.phases import Phase, phases, reductions
from graphc.backends.native.ranges import BLOCK, Masks, block_size, blocks, in_thread, own
from graphc.kernels.kernel import CHUNK, LANES, Loop


def is_flat(kernel: Loop, elements: Elements) -> bool:
    """Return whether the elements may be one row: nothing depends on where a row begins."""
    body = kernel.body
    spans = {step.span for step in body.steps} | {store.span for store in body.stores}
    if reductions(body) or not spans <= {"each", "one"}:
        return False
    dense = all(pitch == elements.columns for pitch in elements.pitch.values())
    draws = any(step.op == "philox" for step in body.steps)
    return kernel.rows == 1 or (dense and not draws and kernel.split != "columns")


def emit_flat(elements: Elements, kernel: Loop, known: Known) -> None:
    """Emit the kernel as one row."""
    for phase in phases(kernel.body):  # one at most
        in_thread(elements.function, kernel.split, partial(_emit, elements, kernel, known, phase))


def _emit(elements: Elements, kernel: Loop, known: Known, phase: Phase) -> None:
    def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
        words = elements.words(phase.steps, known, 0, column)
        for i, mask in enumerate(masks):
            values: Known = ChainMap({n: found[i] for n, found in words.items()}, dict(known))
            place = Place(0, elements.buffers, column, LANES * i, mask)
            elements.evaluate(phase.steps, values, place)
            elements.store(phase.stores, values, place)
        return []

    unit = gcd(BLOCK, kernel.columns) if isinstance(kernel.columns, int) else 1
    size = block_size(kernel.body)
    blocks(elements.vectors, *_range(elements, kernel), visit, size=size, unit=unit)


def _range(elements: Elements, kernel: Loop) -> tuple[Value | int, Value | int]:
    """Emit the range of a thread's elements, which are whole rows if threads share rows."""
    function, columns = elements.function, elements.columns
    if kernel.split == "columns":
        return own(function, columns, BLOCK, True)
    first, last = own(function, elements.rows, CHUNK, kernel.split == "rows")
    return function.mul(first, columns), function.mul(last, columns)
