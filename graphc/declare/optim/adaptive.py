"""Gradient descent with a step size for each number: Adagrad, RMSprop and Adadelta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.declare.optim.optimizer import (
    Optimizer,
    Update,
    made_with,
    positive,
    running_mean,
    share,
)
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
from graphc.ops.moments import AdamSquare
from graphc.ops.optim import Momentum, SgdStep

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


@made_with("gc.Adagrad()")
@dataclass(frozen=True, repr=False)
class Adagrad(Optimizer):
    """Adagrad: s = s + g*g, p = p - lr*g/(sqrt(s) + eps).

    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 2011, as in torch.optim.Adagrad; weight decay is added to the gradient.
    """

    lr: float = 0.01
    eps: float = positive(1e-10)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slot `<parameter>.sum`."""
        g = decayed(p, g, self.decay_of(p))
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

    Parameters
    ----------
    rho
        The share of both means that each update keeps, from 0 to below 1.
    """

    lr: float = 1.0
    rho: float = share(0.9)
    eps: float = positive(1e-6)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slots `<parameter>.square` and `.delta`."""
        b, square, delta = p.builder, slot(p, "square"), slot(p, "delta")
        g = decayed(p, g, self.decay_of(p))
        s = next_value(square, AdamSquare(self.rho), square, g)
        size = div(sqrt(add(delta, self.eps)), sqrt(add(s, self.eps)))
        direction = mul(g, size, name=b.unique(f"{p.name}.direction"))
        next_value(delta, AdamSquare(self.rho), delta, direction)
        next_value(p, shared(SgdStep), p, direction, rate)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as M. Zeiler, 2012, in the form of torch.optim.Adadelta."""
        square = running_mean(u.slot("square"), u.g**2, self.rho)
        change = np.sqrt((u.slot("delta") + self.eps) / (square + self.eps)) * u.g
        delta = running_mean(u.slot("delta"), change**2, self.rho)
        return u.next(u.p - u.rate * change, square=square, delta=delta)


@made_with("gc.RMSprop(lr=0.01)", rho="it is alpha")
@dataclass(frozen=True, repr=False)
class RMSprop(Optimizer):
    """RMSprop: steps divided by a running root mean square of the gradient.

    s = alpha*s + (1 - alpha)*g*g, p = p - lr*g/(sqrt(s) + eps), or with momentum
    v = momentum*v + g/(sqrt(s) + eps), p = p - lr*v.

    G. Hinton, "Neural networks for machine learning", lecture 6e, 2012, as in torch.optim.RMSprop;
    weight decay is added to the gradient.

    Parameters
    ----------
    alpha
        The share of the mean square that each update keeps, from 0 to below 1.
    momentum
        The share of the velocity that each update keeps, from 0 to below 1.
    """

    lr: float = 0.01
    alpha: float = share(0.99)
    eps: float = positive(1e-8)
    momentum: float = share(0.0, "0.9")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slot `<parameter>.square`; `.velocity` with momentum."""
        decay = self.decay_of(p)
        square = slot(p, "square")
        more = operands_with_decay(decay, p)
        s = next_value(square, AdamSquare(self.alpha), square, g, *more)
        direction = divided(p, decayed(p, g, decay), s, self.eps)
        if self.momentum:
            velocity = slot(p, "velocity")
            direction = next_value(velocity, Momentum(self.momentum), velocity, direction)
        next_value(p, shared(SgdStep), p, direction, rate)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as G. Hinton, 2012, in the form of torch.optim.RMSprop."""
        square = running_mean(u.slot("square"), u.g**2, self.alpha)
        direction = u.g / (np.sqrt(square) + self.eps)
        if not self.momentum:
            return u.next(u.p - u.rate * direction, square=square)
        velocity = self.momentum * u.slot("velocity") + direction
        return u.next(u.p - u.rate * velocity, square=square, velocity=velocity)
