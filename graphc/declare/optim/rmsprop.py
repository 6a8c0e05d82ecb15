"""The optimizer RMSprop."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.declare.optim.optimizer import Optimizer, made_with
from graphc.declare.optim.slots import decayed, divided, next_value, operands_with_decay, slot
from graphc.ir.build import Value
from graphc.ir.op import shared
from graphc.ops.optim import AdamSquare, Momentum, SgdStep


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
