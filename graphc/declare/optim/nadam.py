"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.declare.optim.adam import TwoMoments
from graphc.declare.optim.optimizer import made_with
from graphc.declare.optim.slots import decayed, next_name
from graphc.ir.build import Builder, Value
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.functions import sqrt
from graphc.ops.rate import Corrected, NadamMomentum
from graphc.ops.source import constant, global_state


@made_with("gc.NAdam()")
@dataclass(frozen=True, repr=False)
class NAdam(TwoMoments):
    """NAdam: p = p - lr*((1 - mu_t)/(1 - M_t)*g + mu_t+1/(1 - M_t+1)*m)/(sqrt(shat) + eps).

    mu_t = beta1*(1 - 0.96^(t*momentum_decay)/2), M_t is the product of all up to mu_t, m and s are
    Adam's means and shat = s/(1 - beta2^t).  T. Dozat, "Incorporating Nesterov momentum into
    Adam", ICLR 2016 workshop, as in torch.optim.NAdam; weight decay is added to the gradient.
    """

    lr: float = 2e-3
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("momentum_decay", hint="0.004 is usual", usual="0.004")

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, its slots `.mean` and `.square`, and M_t, which all share."""
        b, decay = p.builder, self.decay_of(p.node)
        m, s = self.means(p, g, decay)
        now, ahead = self._shares(b, rate, updates)
        direction = add(mul(decayed(p, g, decay), now), mul(m, ahead))
        spread = mul(sqrt(s), sqrt(b.apply(Corrected(self.beta2), _one(b, p.dtype), updates)))
        moved = div(direction, add(spread, self.eps), name=b.unique(f"{p.name}.moved"))
        b.update(p, sub(p, moved, name=next_name(p)))

    def _shares(self, b: Builder, rate: Value, updates: Value) -> tuple[Value, Value]:
        """Return the factors of the gradient and of the mean."""
        product = global_state(b, f"momenta.{rate.dtype}", TensorType((), rate.dtype), 1.0)
        mu = NadamMomentum(self.beta1, self.momentum_decay)
        after = NadamMomentum(self.beta1, self.momentum_decay, ahead=1)
        if product.name not in b.updates:
            b.update(product, b.apply(mu, product, updates, name=next_name(product)))
        total, one = b.value(b.updates[product.name]), _one(b, rate.dtype)
        now = div(sub(rate, b.apply(mu, rate, updates)), sub(one, total))
        ahead = div(b.apply(after, rate, updates), sub(one, b.apply(after, total, updates)))
        return now, ahead


def _one(b: Builder, dtype: str) -> Value:
    return constant(b, 1.0, dtype)
