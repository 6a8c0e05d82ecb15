"""Adam, with weight decay added to the gradient or decoupled from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.declare.optim.optimizer import Optimizer, made_with
from graphc.declare.optim.slots import next_value, operands_with_decay, slot
from graphc.ir.build import Value
from graphc.ops.optim import AdamMean, AdamSquare, AdamStep


@dataclass(frozen=True, repr=False)
class TwoMoments(Optimizer):
    """The base of optimizers with a mean of the gradient (`beta1`) and of its size (`beta2`)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("beta1", "0.9")
        self._share("beta2", "0.999")
        self._above_0("eps", "1e-8")

    def means(self, p: Value, g: Value, l2: float) -> tuple[Value, Value]:
        """Add the next values of the slots `<parameter>.mean` and `.square`, and return them."""
        mean, square, more = slot(p, "mean"), slot(p, "square"), operands_with_decay(l2, p)
        m = next_value(mean, AdamMean(self.beta1, l2), mean, g, *more)
        return m, next_value(square, AdamSquare(self.beta2, l2), square, g, *more)


@made_with("gc.Adam()")
@dataclass(frozen=True, repr=False)
class Adam(TwoMoments):
    """Adam with bias correction; weight decay is added to the gradient, as in torch.optim.Adam.

    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add three nodes, and the slots `<parameter>.mean` and `.square`."""
        self._step(p, g, rate, updates, self.decay_of(p.node), 0.0)

    def _step(
        self, p: Value, g: Value, rate: Value, updates: Value, l2: float, decoupled: float
    ) -> None:
        m, s = self.means(p, g, l2)
        step = AdamStep(self.beta1, self.beta2, self.eps, decoupled)
        next_value(p, step, p, m, s, rate, updates)


@made_with("gc.AdamW()")
@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by lr*weight_decay*p beside Adam's step.

    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019, as in
    torch.optim.AdamW.
    """

    weight_decay: float = field(default=0.01, kw_only=True)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add three nodes, and the slots `<parameter>.mean` and `.square`."""
        self._step(p, g, rate, updates, 0.0, self.decay_of(p.node))
