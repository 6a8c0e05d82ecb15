"""AdaMax: Adam with the largest gradient in place of the mean square."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.declare.optim.adam import TwoMoments
from graphc.declare.optim.optimizer import made_with
from graphc.declare.optim.slots import decayed, next_name, next_value, slot
from graphc.ir.build import Value
from graphc.ir.op import shared
from graphc.ops.elementwise import add, div, mul
from graphc.ops.functions import abs_
from graphc.ops.optim import AdamMean, SgdStep
from graphc.ops.rate import Corrected
from graphc.ops.select import maximum


@made_with("gc.Adamax()")
@dataclass(frozen=True, repr=False)
class Adamax(TwoMoments):
    """AdaMax: u = max(beta2*u, |g| + eps), p = p - lr/(1 - beta1^t)*m/u, m being Adam's mean.

    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 2, as in
    torch.optim.Adamax; weight decay is added to the gradient.
    """

    lr: float = 2e-3

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slots `<parameter>.mean` and `.largest`."""
        b, mean, largest = p.builder, slot(p, "mean"), slot(p, "largest")
        g = decayed(p, g, self.decay_of(p.node))
        m = next_value(mean, AdamMean(self.beta1), mean, g)
        size = add(abs_(g), self.eps, name=b.unique(f"{p.name}.size"))
        u = maximum(mul(largest, self.beta2), size, name=next_name(largest))
        b.update(largest, u)
        direction = div(m, u, name=b.unique(f"{p.name}.direction"))
        next_value(p, shared(SgdStep), p, direction, b.apply(Corrected(self.beta1), rate, updates))
