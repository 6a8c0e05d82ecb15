"""Lion: steps by the sign of a mean of gradients."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.declare.optim.optimizer import Optimizer, made_with
from graphc.declare.optim.slots import next_value, slot
from graphc.ir.build import Value
from graphc.ops.functions import sign
from graphc.ops.optim import AdamMean, SgdStep


@made_with("gc.Lion()")
@dataclass(frozen=True, repr=False)
class Lion(Optimizer):
    """Lion: p = p - lr*(sign(beta1*m + (1 - beta1)*g) + decay*p), m = beta2*m + (1 - beta2)*g.

    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023 (arXiv:2302.06675),
    algorithm 2; weight decay is decoupled.  Its lr is usually a tenth of Adam's.
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("beta1", "0.9")
        self._share("beta2", "0.99")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slot `<parameter>.mean`."""
        b, mean = p.builder, slot(p, "mean")
        mixed = b.apply(AdamMean(self.beta1), mean, g, name=b.unique(f"{p.name}.mixed"))
        direction = sign(mixed, name=b.unique(f"{p.name}.direction"))
        next_value(mean, AdamMean(self.beta2), mean, g)
        next_value(p, SgdStep(self.decay_of(p.node)), p, direction, rate)
