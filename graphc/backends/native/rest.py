"""The stores of a loop kernel across the direction of its loops."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence

from graphc.backends.native.elements import Elements, Known, Place
from graphc.backends.native.ir import Value
from graphc.backends.native.phases import needed, stores_at
from graphc.backends.native.ranges import Masks, alone, blocks
from graphc.kernels.body import Span, Store
from graphc.kernels.kernel import LANES

LEVELS: tuple[Span, ...] = ("row", "column", "one")


def emit_rest(elements: Elements, known: Known, stores: Sequence[Store]) -> None:
    """Emit the remaining stores, for the first thread to run after its part of the loops.

    They are single numbers, and values of a row or column that several threads share.
    """
    rows, columns, numbers = (
        [store for store in stores if store in stores_at(elements.body, level)] for level in LEVELS
    )

    def emit() -> None:
        if rows:
            _rows(elements, known, rows)
        if columns:
            _columns(elements, known, columns)
        elements.store(numbers, known, Place())

    if stores:
        alone(elements.function, emit)


def _rows(elements: Elements, known: Known, stores: Sequence[Store]) -> None:
    steps = needed(elements.body, (store.step for store in stores))

    def row(number: Value, _: list[Value]) -> None:
        values: Known = ChainMap({}, dict(known))
        elements.evaluate(steps, values, Place(number))
        elements.store(stores, values, Place(number))

    elements.function.loop(0, elements.rows, 1, row)


def _columns(elements: Elements, known: Known, stores: Sequence[Store]) -> None:
    steps = needed(elements.body, (store.step for store in stores))

    def block(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
        for i, mask in enumerate(masks):
            values: Known = ChainMap({}, dict(known))
            place = Place(column=column, lane=LANES * i, mask=mask)
            elements.evaluate(steps, values, place)
            elements.store(stores, values, place)
        return []

    blocks(elements.vectors, 0, elements.columns, block)
