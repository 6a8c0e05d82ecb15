"""Ops of schedules: a learning rate times a factor that depends on the update count.

u is the number of updates since update number `start`, and 0 before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np

from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array, Iteration, Op
from graphc.ir.tensor_type import TensorType


class RateOp(Op, base=True):
    """The base of rates: rate * factor(u)."""

    roles = ("rate", "updates")
    inplace = (0,)
    start: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the rate; raise ValueError unless it is a float, the count int64."""
        rate, updates = ins
        if rate.rank != 0 or not rate.is_float:
            raise ValueError(f"rate is {rate}, it must be one float")
        if updates != TensorType((), "int64"):
            raise ValueError(f"updates is {updates}, it must be int64[]")
        return rate

    def factor(self, u: int) -> float:
        """Return the factor at u updates after the start, in float64."""
        raise NotImplementedError(f"op {self.name} has no factor")

    def factor_of(self, u: Expr) -> Expr:
        """Return the factor as an expression of u, in float64."""
        raise NotImplementedError(f"op {self.name} has no factor")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the rate times the factor."""
        rate, updates = ins
        u = max(int(updates) - self.start, 0)
        return np.asarray(float(rate) * self.factor(u), rate.dtype)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return that each element is computed by itself."""
        return "elements"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the rate times the factor, computed in float64."""
        rate, updates = ins
        u = call("maximum", updates - self.start, 0)
        return (rate.cast("float64") * self.factor_of(u)).cast(rate.dtype)


@dataclass(frozen=True)
class CosineRate(RateOp):
    """Half a cosine: the factor falls from 1 at u = 0 to `floor` at u = total, and stays there.

    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR
    2017, equation 5, without restarts.
    """

    total: int
    floor: float = 0.0
    start: int = 0

    def factor(self, u: int) -> float:
        """Return the factor after u updates."""
        done = min(u / self.total, 1.0)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + cos(pi * done))

    def factor_of(self, u: Expr) -> Expr:
        """Return the factor as an expression."""
        done = call("minimum", u.cast("float64") / self.total, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + call("cos", pi * done))


@dataclass(frozen=True)
class StepRate(RateOp):
    """The factor by^k after k times `every` updates."""

    every: int
    by: float
    start: int = 0

    def factor(self, u: int) -> float:
        """Return the factor after u updates."""
        return float(self.by ** (u // self.every))

    def factor_of(self, u: Expr) -> Expr:
        """Return the factor as an expression."""
        times = call("floor_div", u, self.every).cast("float64")
        return call("pow", times.lift(self.by), times)


@dataclass(frozen=True)
class WarmUpRate(RateOp):
    """The linear factor (u + 1)/steps for the first `steps` updates, then 1."""

    steps: int
    start: int = 0

    def factor(self, u: int) -> float:
        """Return the factor after u updates."""
        return min((u + 1) / self.steps, 1.0)

    def factor_of(self, u: Expr) -> Expr:
        """Return the factor as an expression."""
        return call("minimum", (u.cast("float64") + 1) / self.steps, 1)


@dataclass(frozen=True)
class Corrected(RateOp):
    """The factor 1/(1 - beta^(u + 1)), which corrects a running mean that started at 0."""

    beta: float
    start: int = 0

    def factor(self, u: int) -> float:
        """Return the factor after u updates."""
        return float(1.0 / (1.0 - self.beta ** (u + 1)))

    def factor_of(self, u: Expr) -> Expr:
        """Return the factor as an expression."""
        t = u.cast("float64") + 1
        return 1 / (1 - call("pow", t.lift(self.beta), t))


@dataclass(frozen=True)
class NadamMomentum(RateOp):
    """NAdam's momentum, which grows: beta*(1 - 0.96^(t*decay)/2), t = u + 1 + ahead.

    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR 2016 workshop.
    """

    beta: float
    decay: float
    ahead: int = 0
    start: int = 0

    def factor(self, u: int) -> float:
        """Return the factor after u updates."""
        t = u + 1 + self.ahead
        # 0.5 and 0.96 are Dozat's; his t / 250 is PyTorch's decay of 0.004.
        return float(self.beta * (1.0 - 0.5 * 0.96 ** (t * self.decay)))

    def factor_of(self, u: Expr) -> Expr:
        """Return the factor as an expression."""
        t = (u.cast("float64") + (1 + self.ahead)) * self.decay
        return self.beta * (1 - 0.5 * call("pow", t.lift(0.96), t))
