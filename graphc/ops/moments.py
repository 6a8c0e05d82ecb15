"""The updates of Adam: the means of gradients and of their squares, and the step by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.expr import Axis, Expr, call
from graphc.ir.op import Array
from graphc.ops.optim import UpdateOp, with_decay


@dataclass(frozen=True)
class AdamMean(UpdateOp):
    """The next mean beta1*m + (1 - beta1)*g."""

    roles = ("mean", "gradient", "parameter", "decay")
    optional = 2
    arrays = 3
    operations = 3
    beta1: float

    def next(self, ins: Sequence[Any]) -> Any:
        """Return beta1*m + (1 - beta1)*g."""
        m, g, *decay = ins
        return self.beta1 * m + (1 - self.beta1) * with_decay(g, *decay)


@dataclass(frozen=True)
class AdamSquare(UpdateOp):
    """The next mean square beta2*s + (1 - beta2)*g*g."""

    roles = ("square", "gradient", "parameter", "decay")
    optional = 2
    arrays = 3
    operations = 4
    beta2: float

    def next(self, ins: Sequence[Any]) -> Any:
        """Return beta2*s + (1 - beta2)*g*g."""
        s, g, *decay = ins
        g = with_decay(g, *decay)
        return self.beta2 * s + (1 - self.beta2) * (g * g)


@dataclass(frozen=True)
class AdamStep(UpdateOp):
    """The next parameter p - rate*(mhat/(sqrt(shat) + eps) + decay*p).

    m and s are the next mean and square; mhat = m/(1 - beta1^t), shat = s/(1 - beta2^t), where
    t = updates + 1.  D. Kingma, J. Ba, "Adam", ICLR 2015, algorithm 1;
    the decay is that of I. Loshchilov, F. Hutter, "Decoupled weight decay regularization",
    ICLR 2019, multiplied by the rate as in torch.optim.AdamW.
    """

    roles = ("parameter", "mean", "square", "rate", "updates", "decay")
    optional = 1
    arrays = 3
    operations = 6
    beta1: float
    beta2: float
    eps: float

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the next parameter, with both corrections applied to the slots."""
        p, m, s, rate, updates, *decay = ins
        t = int(updates) + 1
        mean, square = m / (1.0 - self.beta1**t), s / (1.0 - self.beta2**t)
        direction = mean / (np.sqrt(square) + self.eps)
        return np.asarray(p - rate * with_decay(direction, p, *decay))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the next parameter, with corrections made once: an element costs one division."""
        p, m, s, rate, updates, *decay = ins
        # In float64: in float32 the first values of 1 - beta**t have only few correct digits.
        t = updates.cast("float64") + 1
        first, second = (1 - call("pow", t.lift(beta), t) for beta in (self.beta1, self.beta2))
        step, spread = rate / first.cast(p.dtype), call("sqrt", 1 / second).cast(p.dtype)
        moved = step * m / (call("sqrt", s) * spread + self.eps)
        return p - moved - rate * decay[0] * p if decay else p - moved
