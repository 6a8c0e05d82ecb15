"""The computation of a fused kernel for each element: steps in order, then stores.

A kernel runs over rows i and columns j.  Each step yields one value, and its span, the broadcast
kind, gives the indices that the value depends on:

    each     i and j: an element of a matrix
    row      i alone: one number for each row, such as a label
    column   j alone: one number for each column, such as a bias
    one      neither: a scalar, such as a learning rate
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal, NamedTuple

from graphc.kernels.walk import Elsewhere

Span = Literal["each", "row", "column", "one"]
Axis = Literal["rows", "columns"]

Attribute = int | float | bool | str | Elsewhere | tuple[int, ...] | None


class Step(NamedTuple):
    """One value: `op` of earlier steps, by their numbers.

    Besides the scalar functions (see `graphc.kernels.functions`) the ops are

        load      the element of `buffer` at (i, j), (i), (j) or () by the span
        fetch     a gathered element of `buffer`, by the access map `value`; see `Loop.places`.  Its
                  argument, if any, is the index of the first dimension (span row, int64)
        offset    the place of a row modulo tiles of `value`, as a number, int32
        const     the number `value`
        index     the number of the row (span row) or column (span column), int64
        size      the number of rows or columns that the kernel runs over, by `value`
                  ("rows", "columns"), or that many times the rows of the batch (an integer)
        product   the element of the matrix product; only in a Gemm, and only once
        added     the element of the sum of rows; only in a Loop that has one, and only once
        sum, max  of the argument, with the reduction axis `value`
        philox    the random word of (i, j) of stream `value`; its arguments are seed and draws,
                  and the place of row 0 in the batch where that is not 0
    """

    op: str
    args: tuple[int, ...]
    span: Span
    dtype: str
    buffer: str = ""
    value: Attribute = None


class Store(NamedTuple):
    """A write of the value of a step to a buffer, at the place that `span` gives.

    A value of a smaller span is repeated.
    """

    buffer: str
    step: int
    span: Span


@dataclass(frozen=True)
class Body:
    """Steps in order, then stores.

    No step reads a buffer that a store of the kernel changed before: a kernel loads all that it
    needs of an element before it stores that element.
    """

    steps: tuple[Step, ...]
    stores: tuple[Store, ...]

    @property
    def loads(self) -> tuple[str, ...]:
        """The buffers that are read, each once."""
        read = ("load", "fetch")
        return tuple(dict.fromkeys(step.buffer for step in self.steps if step.op in read))

    @property
    def written(self) -> tuple[str, ...]:
        """The buffers that are written."""
        return tuple(store.buffer for store in self.stores)

    def with_own_products(self, stored: Container[str]) -> Body:
        """Return the body with a second computation of each product stored besides `stored`.

        A product with one user is rounded together with the sum that uses it; a store would be
        another user, and the product would be rounded by itself.
        """
        steps, stores = list(self.steps), []
        for store in self.stores:
            step = steps[store.step]
            if store.buffer not in stored and step.op == "mul":
                store = store._replace(step=len(steps))
                steps.append(step)
            stores.append(store)
        return Body(tuple(steps), tuple(stores))
