"""Products that may round their factors to bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.ir.bfloat16 import Order, converted
from graphc.ir.op import Array, Op


@dataclass(frozen=True)
class OrderedProduct(Op, base=True):
    """The base of products of the first two operands, its factors.

    With an order the factors are of bfloat16, or are rounded to it first: `round_products` makes
    that a node of its own.
    """

    order: Order | None = field(default=None, kw_only=True)
    """The order in which terms of bfloat16 are added; None if factors are not rounded to it."""

    def factors(self, ins: Sequence[Array]) -> Sequence[Array]:
        """Return the factors as they are multiplied: as bits of bfloat16 if there is an order."""
        return ins if self.order is None else [converted(x, "bfloat16") for x in ins]


def order_of(op: Op) -> Order | None:
    """Return the order of terms of a product; None for other ops."""
    return op.order if isinstance(op, OrderedProduct) else None
