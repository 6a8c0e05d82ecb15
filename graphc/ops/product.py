"""Products whose terms may have an order, for which their factors are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.ir.forms import TermOrder
from graphc.ir.narrow import converted
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import ORDERED


@dataclass(frozen=True)
class OrderedProduct(Op, base=True):
    """The base of products of the first two operands, its factors.

    With an order the factors are of `ORDERED`, or are rounded to it first: `round_products` makes
    that a node of its own.
    """

    order: TermOrder | None = field(default=None, kw_only=True)
    """The order in which terms are added; None if factors are not rounded."""

    def factors(self, ins: Sequence[Array]) -> Sequence[Array]:
        """Return the factors as they are multiplied: as bits of `ORDERED` if there is an order."""
        return ins if self.order is None else [converted(x, ORDERED) for x in ins]


def order_of(op: Op) -> TermOrder | None:
    """Return the order of terms of a product; None for other ops."""
    return op.order if isinstance(op, OrderedProduct) else None
