"""Adagrad, and RMSprop and Adadelta, whose sums of squares decay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.declare.optim.optimizer import Optimizer, Update, made_with, mixed
from graphc.declare.optim.slots import (
    decayed,
    divided,
    next_name,
    next_value,
    operands_with_decay,
    slot,
)
from graphc.ir.build import Value
from graphc.ir.op import Array, shared
from graphc.ops.elementwise import add, div, mul
from graphc.ops.functions import sqrt
from graphc.ops.optim import AdamSquare, Momentum, SgdStep

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


@made_with("gc.Adagrad()")
@dataclass(frozen=True, repr=False)
class Adagrad(Optimizer):
    """Adagrad: s = s + g*g, p = p - lr*g/(sqrt(s) + eps).

    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 2011, as in torch.optim.Adagrad; weight decay is added to the gradient.
    """

    lr: float = 0.01
    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._above_0("eps", "1e-10")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slot `<parameter>.sum`."""
        g = decayed(p, g, self.decay_of(p.node))
        total = slot(p, "sum")
        s = add(total, mul(g, g), name=next_name(total))
        p.builder.update(total, s)
        next_value(p, shared(SgdStep), p, divided(p, g, s, self.eps), rate)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as J. Duchi et al., JMLR 2011, in the form of torch.optim.Adagrad."""
        total = u.slot("sum") + u.g**2
        return u.next(u.p - u.rate * u.g / (np.sqrt(total) + self.eps), sum=total)


@made_with("gc.Adadelta()")
@dataclass(frozen=True, repr=False)
class Adadelta(Optimizer):
    """Adadelta: steps scaled by running mean squares of the gradients and of earlier steps.

    s = rho*s + (1 - rho)*g*g, d = g*sqrt(a + eps)/sqrt(s + eps), p = p - lr*d, and
    a = rho*a + (1 - rho)*d*d.

    M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012 (arXiv:1212.5701), as in
    torch.optim.Adadelta; weight decay is added to the gradient.
    """

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("rho", "0.9")
        self._above_0("eps", "1e-6")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slots `<parameter>.square` and `.delta`."""
        b, square, delta = p.builder, slot(p, "square"), slot(p, "delta")
        g = decayed(p, g, self.decay_of(p.node))
        s = next_value(square, AdamSquare(self.rho), square, g)
        size = div(sqrt(add(delta, self.eps)), sqrt(add(s, self.eps)))
        direction = mul(g, size, name=b.unique(f"{p.name}.direction"))
        next_value(delta, AdamSquare(self.rho), delta, direction)
        next_value(p, shared(SgdStep), p, direction, rate)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as M. Zeiler, 2012, in the form of torch.optim.Adadelta."""
        square = mixed(u.slot("square"), u.g**2, self.rho)
        change = np.sqrt((u.slot("delta") + self.eps) / (square + self.eps)) * u.g
        delta = mixed(u.slot("delta"), change**2, self.rho)
        return u.next(u.p - u.rate * change, square=square, delta=delta)


@made_with("gc.RMSprop(lr=0.01)", rho="it is alpha")
@dataclass(frozen=True, repr=False)
class RMSprop(Optimizer):
    """RMSprop: steps divided by a running root mean square of the gradient.

    s = alpha*s + (1 - alpha)*g*g, p = p - lr*g/(sqrt(s) + eps), or with momentum
    v = momentum*v + g/(sqrt(s) + eps), p = p - lr*v.

    G. Hinton, "Neural networks for machine learning", lecture 6e, 2012, as in torch.optim.RMSprop;
    weight decay is added to the gradient.
    """

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("alpha", "0.99")
        self._above_0("eps", "1e-8")
        self._share("momentum", "0.9")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slot `<parameter>.square`; `.velocity` with momentum."""
        decay = self.decay_of(p.node)
        square = slot(p, "square")
        kept = AdamSquare(self.alpha, decay)
        s = next_value(square, kept, square, g, *operands_with_decay(decay, p))
        direction = divided(p, decayed(p, g, decay), s, self.eps)
        if self.momentum:
            velocity = slot(p, "velocity")
            direction = next_value(velocity, Momentum(self.momentum), velocity, direction)
        next_value(p, shared(SgdStep), p, direction, rate)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as G. Hinton, 2012, in the form of torch.optim.RMSprop."""
        square = mixed(u.slot("square"), u.g**2, self.alpha)
        direction = u.g / (np.sqrt(square) + self.eps)
        if not self.momentum:
            return u.next(u.p - u.rate * direction, square=square)
        velocity = self.momentum * u.slot("velocity") + direction
        return u.next(u.p - u.rate * velocity, square=square, velocity=velocity)
