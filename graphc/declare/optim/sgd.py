"""Gradient descent, with momentum or without."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.base.errors import GraphError
from graphc.declare.optim.optimizer import (
    Optimizer,
    Update,
    made_with,
    share,
)
from graphc.declare.optim.slots import (
    next_value,
    operands_with_decay,
    slot,
)
from graphc.ir.build import Value
from graphc.ir.op import Array, shared
from graphc.ops.optim import Momentum, NesterovStep, SgdStep

__all__ = ["SGD"]


@made_with("gc.SGD(lr=0.1, momentum=0.9)")
@dataclass(frozen=True, repr=False)
class SGD(Optimizer):
    """Gradient descent: v = momentum*v + g, p = p - lr*v.

    As in torch.optim.SGD, the rate multiplies the velocity when it is used, there is no dampening,
    and weight decay is added to the gradient.

    Parameters
    ----------
    momentum
        The share of the velocity that each update keeps, from 0 to below 1.
    nesterov
        Whether to step along g + momentum*v: I. Sutskever et al., "On the importance of
        initialization and momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> gc.SGD(lr=0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9)
    """

    momentum: float = share(0.0, "0.9")
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise GraphError(
                "SGD: nesterov without momentum", hint="SGD(lr=0.1, momentum=0.9, nesterov=True)"
            )

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add one or two nodes, and the slot `<parameter>.velocity` with momentum."""
        decay = self.decay_of(p)
        if not self.momentum:
            next_value(p, shared(SgdStep), p, g, rate, *decay)
            return
        velocity = slot(p, "velocity")
        more = operands_with_decay(decay, p)
        new = next_value(velocity, shared(Momentum, self.momentum), velocity, g, *more)
        if self.nesterov:
            next_value(p, shared(NesterovStep, self.momentum), p, new, g, rate, *decay)
        else:
            next_value(p, shared(SgdStep), p, new, rate)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as I. Sutskever et al., ICML 2013, in the form of torch.optim.SGD."""
        g = u.g
        if not self.momentum:
            return u.next(u.p - u.rate * g)
        velocity = self.momentum * u.slot("velocity") + g
        direction = g + self.momentum * velocity if self.nesterov else velocity
        return u.next(u.p - u.rate * direction, velocity=velocity)
