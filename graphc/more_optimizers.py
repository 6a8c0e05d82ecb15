"""Optimizers beyond SGD and Adam: RMSprop, Adagrad and Lion."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.build import Value
from graphc.op import shared
from graphc.ops.elementwise import add, div, mul
from graphc.ops.functions import sign, sqrt
from graphc.ops.optim import AdamMean, AdamSquare, Momentum, SgdStep
from graphc.optim import Optimizer, next_value, operands_with_decay, slot


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s = alpha*s + (1 - alpha)*g*g, p = p - lr*g/(sqrt(s) + eps), or with momentum
    v = momentum*v + g/(sqrt(s) + eps), p = p - lr*v.

    G. Hinton, "Neural networks for machine learning", lecture 6e, 2012, as in
    torch.optim.RMSprop; weight decay is added to the gradient.
    """

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("alpha", "it must be from 0 to below 1", below=1.0, hint="0.99 is usual")
        self._number("eps", "it must be above 0", above=True, hint="1e-8 is usual")
        self._number("momentum", "it must be from 0 to below 1", below=1.0, hint="0 is none")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """The slot `<parameter>.square`, and `.velocity` with momentum."""
        decay = self.decay_of(p.node)
        square = slot(p, "square")
        kept = AdamSquare(self.alpha, decay)
        s = next_value(square, kept, square, g, *operands_with_decay(decay, p))
        direction = _divided(p, _decayed(p, g, decay), s, self.eps)
        if self.momentum:
            velocity = slot(p, "velocity")
            direction = next_value(velocity, Momentum(self.momentum), velocity, direction)
        next_value(p, shared(SgdStep), p, direction, rate)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """s = s + g*g, p = p - lr*g/(sqrt(s) + eps).

    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 2011, as in torch.optim.Adagrad; weight decay is added to the gradient.
    """

    lr: float = 0.01
    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("eps", "it must be above 0", above=True, hint="1e-10 is usual")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """The slot `<parameter>.sum`."""
        g = _decayed(p, g, self.decay_of(p.node))
        total = slot(p, "sum")
        s = add(total, mul(g, g), name=p.builder.unique(f"{total.name}.next"))
        p.builder.update(total, s)
        next_value(p, shared(SgdStep), p, _divided(p, g, s, self.eps), rate)


@dataclass(frozen=True)
class Lion(Optimizer):
    """p = p - lr*(sign(beta1*m + (1 - beta1)*g) + decay*p), m = beta2*m + (1 - beta2)*g.

    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023 (arXiv:2302.06675),
    algorithm 2; weight decay is decoupled.  Its lr is usually a tenth of Adam's.
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("beta1", "it must be from 0 to below 1", below=1.0, hint="0.9 is usual")
        self._number("beta2", "it must be from 0 to below 1", below=1.0, hint="0.99 is usual")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """The slot `<parameter>.mean`."""
        b, mean = p.builder, slot(p, "mean")
        mixed = b.apply(AdamMean(self.beta1), mean, g, name=b.unique(f"{p.name}.mixed"))
        direction = sign(mixed, name=b.unique(f"{p.name}.direction"))
        next_value(mean, AdamMean(self.beta2), mean, g)
        next_value(p, SgdStep(self.decay_of(p.node)), p, direction, rate)


def _decayed(p: Value, g: Value, decay: float) -> Value:
    """The gradient with that of the L2 norm added."""
    return add(g, mul(p, decay), name=p.builder.unique(f"{p.name}.decayed")) if decay else g


def _divided(p: Value, g: Value, square: Value, eps: float) -> Value:
    """g / (sqrt(square) + eps)."""
    spread = add(sqrt(square), eps, name=p.builder.unique(f"{p.name}.spread"))
    return div(g, spread, name=p.builder.unique(f"{p.name}.direction"))
