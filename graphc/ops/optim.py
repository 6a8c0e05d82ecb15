"""Ops of optimizers: each computes the next value of a parameter or of one of its slots.

The first operand is the old value, whose memory the result may take.  With weight decay d as the
last operand the gradient g becomes g + d*p, and the ops that would not read the parameter p
otherwise take it before d.  None of these ops has a gradient rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from graphc.ir.expr import Axis, Broadcast, Expr, call, select
from graphc.ir.op import Array, Iteration, Op
from graphc.ir.tensor_type import TensorType


@cache
def _number(dtype: str) -> TensorType:
    return TensorType((), dtype)


COUNTERS = ("updates", "averages")
"""The roles of operands that count."""


class UpdateOp(Op, base=True):
    """The base of update ops: elementwise, on arrays of one type, then on scalars."""

    inplace = (0,)
    arrays: ClassVar[int]
    """The number of operands, from the front, that have the type of the result."""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the first operand; raise ValueError unless the others go with it."""
        roles, first = self.roles, ins[0]
        needed, more = roles[: len(roles) - self.optional], roles[len(roles) - self.optional :]
        if len(ins) not in (len(needed), len(roles)):
            rest = f" or also {', '.join(more)}" if more else ""
            raise ValueError(f"it takes {', '.join(needed)}{rest}, not {len(ins)} operands")
        if not first.is_float or first.batched:
            raise ValueError(f"{roles[0]} is {first}, only floats of a fixed shape are updated")
        for i in range(1, len(ins)):
            if roles[i] in COUNTERS:
                wanted = _number("int64")
            else:
                wanted = first if i < self.arrays else _number(first.dtype)
            if ins[i] is not wanted and ins[i] != wanted:
                raise ValueError(f"{roles[i]} is {ins[i]}, it must be {wanted}")
        return first

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return that each element is computed by itself."""
        return "elements"

    def next(self, ins: Sequence[Any]) -> Any:
        """Return the next value, of arrays or of expressions, where one formula serves both."""
        raise NotImplementedError(f"op {self.name} has no formula")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the next value of arrays."""
        return np.asarray(self.next(ins))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the next value of one element."""
        result: Expr = self.next(ins)
        return result


def with_decay(g: Any, p: Any = None, decay: Any = None) -> Any:
    """Return g + decay * p, for arrays or expressions; g if there is no decay."""
    return g if decay is None else g + decay * p


@dataclass(frozen=True)
class Momentum(UpdateOp):
    """The next velocity mu*v + g, without dampening, as in torch.optim.SGD."""

    roles = ("velocity", "gradient", "parameter", "decay")
    optional = 2
    arrays = 3
    operations = 2
    mu: float

    def next(self, ins: Sequence[Any]) -> Any:
        """Return mu*v + g."""
        v, g, *decay = ins
        return self.mu * v + with_decay(g, *decay)


@dataclass(frozen=True)
class SgdStep(UpdateOp):
    """The next parameter p - rate*g; after momentum, g is the next velocity."""

    roles = ("parameter", "gradient", "rate", "decay")
    optional = 1
    arrays = 2
    operations = 2

    def next(self, ins: Sequence[Any]) -> Any:
        """Return p - rate*g."""
        p, g, rate, *decay = ins
        return p - rate * with_decay(g, p, *decay)


@dataclass(frozen=True)
class NesterovStep(UpdateOp):
    """p - rate*(g + mu*v), v being the next velocity, as in torch.optim.SGD.

    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and
    momentum in deep learning", ICML 2013, in the form that keeps the gradient at p.
    """

    roles = ("parameter", "velocity", "gradient", "rate", "decay")
    optional = 1
    arrays = 3
    operations = 4
    mu: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the parameter; raise ValueError unless mu is above 0."""
        if not self.mu > 0:
            raise ValueError(f"mu is {self.mu}, it must be above 0")
        return super().infer(ins)

    def next(self, ins: Sequence[Any]) -> Any:
        """Return p - rate*(g + mu*v)."""
        p, v, g, rate, *decay = ins
        return p - rate * (with_decay(g, p, *decay) + self.mu * v)


@dataclass(frozen=True)
class Average(UpdateOp):
    """decay*average + (1 - decay)*weight, or the weight where nothing was averaged before."""

    roles = ("average", "weight", "averages")
    arrays = 2
    decay: float

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the next average of arrays."""
        average, weight, averages = ins
        if not averages > 0:
            return weight.copy()
        return np.asarray(self.decay * average + (1.0 - self.decay) * weight)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the next average of one element."""
        average, weight, averages = ins
        mixed = self.decay * average + (1 - self.decay) * weight
        return select(averages > 0, mixed, weight)


@dataclass(frozen=True)
class Track(UpdateOp):
    """(1 - rate)*target + rate*source."""

    roles = ("target", "source")
    arrays = 2
    rate: float

    def next(self, ins: Sequence[Any]) -> Any:
        """Return the next target."""
        target, source = ins
        return (1 - self.rate) * target + self.rate * source


class SquareSum(Op):
    """The sum of the squares of a gradient, its part in the global norm, in float64.

    Squares of float32 neither overflow nor underflow there.
    """

    roles = ("gradient",)
    operations = 2

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return one float64; raise ValueError unless the gradient is of floats."""
        (g,) = ins
        if not g.is_float:
            raise ValueError(f"gradient is {g}, it must be of floats")
        return TensorType((), "float64")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the sum of the squares in float64."""
        return np.asarray(np.sum(np.square(ins[0], dtype=np.float64)))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return that all elements are reduced to one number."""
        return "all"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        """Return that the gradient is read element by element."""
        return ("each",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the sum of the squares, as a reduction."""
        wide = ins[0].cast("float64")
        return (wide * wide).sum(axis)


class ClipScale(Op):
    """The factor of all gradients: min(1, limit/norm) from the total of square sums.

    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural
    networks", ICML 2013, algorithm 1.
    """

    roles = ("total", "limit")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the limit; raise ValueError unless both are one float."""
        total, limit = ins
        if any(x.rank != 0 or not x.is_float for x in (total, limit)):
            raise ValueError(f"total is {total}, limit is {limit}; both are one float")
        return limit

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the factor in float64; NaN if the total is."""
        total, limit = ins
        norm = sqrt(max(float(total), 0.0)) if total == total else float("nan")
        return np.asarray(1.0 if norm <= limit else float(limit) / norm, limit.dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return that each element is computed by itself."""
        return "elements"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the factor as an expression in float64."""
        total, limit = (x.cast("float64") for x in ins)
        norm = call("sqrt", call("maximum", total, 0))
        return select(norm <= limit, 1, limit / norm).cast(ins[1].dtype)


class Cleared(UpdateOp):
    """Zeros that replace the accumulated gradient after an update."""

    roles = ("accumulated",)
    arrays = 1
    operations = 0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the accumulated gradient."""
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return zeros."""
        return np.zeros_like(ins[0])

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return zero."""
        return ins[0].builder.const(0, ins[0].dtype)
