"""Adam and its relatives: AdamW, AdaMax, NAdam and Lion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc.declare.optim.optimizer import (
    Optimizer,
    Update,
    made_with,
    number,
    positive,
    running_mean,
    share,
)
from graphc.declare.optim.slots import decayed, next_name, next_value, operands_with_decay, slot
from graphc.ir.build import Builder, Value
from graphc.ir.op import Array, shared
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.functions import abs_, sign, sqrt
from graphc.ops.moments import AdamMean, AdamSquare, AdamStep
from graphc.ops.optim import SgdStep
from graphc.ops.rate import Corrected, NadamMomentum
from graphc.ops.select import maximum
from graphc.ops.source import constant, global_state

__all__ = ["Adam", "AdamW", "Adamax", "Lion", "NAdam"]


@dataclass(frozen=True, repr=False)
class TwoMoments(Optimizer):
    """The base of optimizers with a mean of the gradient (`beta1`) and of its size (`beta2`)."""

    lr: float = 1e-3
    beta1: float = share(0.9)
    beta2: float = share(0.999)
    eps: float = positive(1e-8)

    def means(self, p: Value, g: Value, l2: Sequence[Value]) -> tuple[Value, Value]:
        """Add the next values of the slots `<parameter>.mean` and `.square`, and return them."""
        mean, square, more = slot(p, "mean"), slot(p, "square"), operands_with_decay(l2, p)
        m = next_value(mean, shared(AdamMean, self.beta1), mean, g, *more)
        return m, next_value(square, shared(AdamSquare, self.beta2), square, g, *more)

    def mixed_moments(self, u: Update, g: Array) -> tuple[Array, Array]:
        """Return the next mean of the gradient and of its square, in plain NumPy."""
        square = running_mean(u.slot("square"), g**2, self.beta2)
        return running_mean(u.slot("mean"), g, self.beta1), square

    def adam_step(self, u: Update, mean: Array, square: Array) -> Array:
        """Return the step that Adam's algorithm 1 subtracts from p, in plain NumPy."""
        unbiased = mean / (1 - self.beta1**u.t), square / (1 - self.beta2**u.t)
        return np.asarray(u.rate * unbiased[0] / (np.sqrt(unbiased[1]) + self.eps))


@made_with("gc.Adam()")
@dataclass(frozen=True, repr=False)
class Adam(TwoMoments):
    """Adam with bias correction.

    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015 (arXiv:1412.6980),
    algorithm 1, as in torch.optim.Adam; weight decay is added to the gradient.
    """

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add three nodes, and the slots `<parameter>.mean` and `.square`."""
        self._step(p, rate, updates, self.means(p, g, self.decay_of(p)))

    def _step(
        self,
        p: Value,
        rate: Value,
        updates: Value,
        means: tuple[Value, Value],
        decoupled: Sequence[Value] = (),
    ) -> None:
        """Add Adam's step, with decoupled weight decay if there is some."""
        step = shared(AdamStep, self.beta1, self.beta2, self.eps)
        next_value(p, step, p, *means, rate, updates, *decoupled)

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as D. Kingma, J. Ba, ICLR 2015, algorithm 1."""
        mean, square = self.mixed_moments(u, u.g)
        return u.next(u.p - self.adam_step(u, mean, square), mean=mean, square=square)


@made_with("gc.AdamW()")
@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: p shrinks by lr*weight_decay*p beside Adam's step.

    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019 (arXiv:1711.05101),
    as in torch.optim.AdamW.

    Parameters
    ----------
    weight_decay
        The decay of an update, times the rate.

    Examples
    --------
    >>> gc.AdamW(weight_decay=0.1)
    AdamW(weight_decay=0.1)
    """

    weight_decay: float = field(default=0.01, kw_only=True)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add three nodes, and the slots `<parameter>.mean` and `.square`."""
        self._step(p, rate, updates, self.means(p, g, ()), self.decay_of(p))

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as I. Loshchilov, F. Hutter, ICLR 2019, in the form of torch.optim.AdamW."""
        mean, square = self.mixed_moments(u, u.gradient)
        shrunk = u.p * (1 - u.rate * u.decay)
        return u.next(shrunk - self.adam_step(u, mean, square), mean=mean, square=square)


@made_with("gc.Adamax()")
@dataclass(frozen=True, repr=False)
class Adamax(TwoMoments):
    """AdaMax: u = max(beta2*u, |g| + eps), p = p - lr/(1 - beta1^t)*m/u, m being Adam's mean.

    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015 (arXiv:1412.6980),
    algorithm 2, as in torch.optim.Adamax; weight decay is added to the gradient.

    Parameters
    ----------
    beta1, beta2
        The shares of the mean of the gradient, and of its largest size, that each update keeps,
        from 0 to below 1.
    """

    lr: float = 2e-3

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slots `<parameter>.mean` and `.largest`."""
        b, mean, largest = p.builder, slot(p, "mean"), slot(p, "largest")
        g = decayed(p, g, self.decay_of(p))
        m = next_value(mean, AdamMean(self.beta1), mean, g)
        size = add(abs_(g), self.eps, name=b.unique(f"{p.name}.size"))
        u = maximum(mul(largest, self.beta2), size, name=next_name(largest))
        b.update(largest, u)
        direction = div(m, u, name=b.unique(f"{p.name}.direction"))
        next_value(p, shared(SgdStep), p, direction, b.apply(Corrected(self.beta1), rate, updates))

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as D. Kingma, J. Ba, ICLR 2015, algorithm 2, in the form of torch.optim.Adamax."""
        mean = running_mean(u.slot("mean"), u.g, self.beta1)
        largest = np.maximum(self.beta2 * u.slot("largest"), np.abs(u.g) + self.eps)
        moved = u.rate / (1 - self.beta1**u.t) * mean / largest
        return u.next(u.p - moved, mean=mean, largest=largest)


@made_with("gc.NAdam()")
@dataclass(frozen=True, repr=False)
class NAdam(TwoMoments):
    """NAdam: Adam with the momentum of Nesterov.

    p = p - lr*((1 - mu_t)/(1 - M_t)*g + mu_t+1/(1 - M_t+1)*m)/(sqrt(shat) + eps) with
    mu_t = beta1*(1 - 0.96^(t*momentum_decay)/2); M_t is the product of all up to mu_t, m and s are
    Adam's means and shat = s/(1 - beta2^t).  T. Dozat, "Incorporating Nesterov momentum into
    Adam", ICLR 2016 workshop, as in torch.optim.NAdam; weight decay is added to the gradient.

    Parameters
    ----------
    momentum_decay
        How fast mu_t comes near beta1: a number from 0 up.
    """

    lr: float = 2e-3
    momentum_decay: float = number(4e-3)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, its slots `.mean` and `.square`, and M_t, a state of all."""
        b, decay = p.builder, self.decay_of(p)
        m, s = self.means(p, g, decay)
        now, ahead = self._shares(b, rate, updates)
        direction = add(mul(decayed(p, g, decay), now), mul(m, ahead))
        spread = mul(sqrt(s), sqrt(b.apply(Corrected(self.beta2), _one(b, p.dtype), updates)))
        moved = div(direction, add(spread, self.eps), name=b.unique(f"{p.name}.moved"))
        b.update(p, sub(p, moved, name=next_name(p)))

    def _shares(self, b: Builder, rate: Value, updates: Value) -> tuple[Value, Value]:
        """Return the factors of the gradient and of the mean, times the rate."""
        product = global_state(b, f"momenta.{rate.dtype}", TensorType((), rate.dtype), 1.0)
        mu = NadamMomentum(self.beta1, self.momentum_decay)
        after = NadamMomentum(self.beta1, self.momentum_decay, ahead=1)
        if product.name not in b.updates:
            b.update(product, b.apply(mu, product, updates, name=next_name(product)))
        total, one = b.value(b.updates[product.name]), _one(b, rate.dtype)
        now = div(sub(rate, b.apply(mu, rate, updates)), sub(one, total))
        ahead = div(b.apply(after, rate, updates), sub(one, b.apply(after, total, updates)))
        return now, ahead

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as T. Dozat, ICLR 2016 workshop, in the form of torch.optim.NAdam."""
        mean, square = self.mixed_moments(u, u.g)
        now, ahead = (
            self.beta1 * (1 - 0.96 ** (t * self.momentum_decay) / 2) for t in (u.t, u.t + 1)
        )
        kept = next(key for key in u.state if key.startswith("momenta."))
        total = u.state[kept] * now
        direction = (1 - now) / (1 - total) * u.g + ahead / (1 - total * ahead) * mean
        step = u.rate * direction / (np.sqrt(square / (1 - self.beta2**u.t)) + self.eps)
        return u.next(u.p - step, mean=mean, square=square) | {kept: total}


def _one(b: Builder, dtype: str) -> Value:
    """Return the constant 1."""
    return constant(b, 1.0, dtype)


@made_with("gc.Lion()")
@dataclass(frozen=True, repr=False)
class Lion(Optimizer):
    """Lion: p = p - lr*(sign(beta1*m + (1 - beta1)*g) + decay*p), m = beta2*m + (1 - beta2)*g.

    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023 (arXiv:2302.06675),
    algorithm 2; weight decay is decoupled.  Its lr is usually a tenth of Adam's.

    Parameters
    ----------
    beta1, beta2
        The shares of the mean in the direction, and in the next mean, from 0 to below 1.
    """

    lr: float = 1e-4
    beta1: float = share(0.9)
    beta2: float = share(0.99)

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the update of p, and the slot `<parameter>.mean`."""
        b, mean = p.builder, slot(p, "mean")
        mixed = b.apply(AdamMean(self.beta1), mean, g, name=b.unique(f"{p.name}.mixed"))
        direction = sign(mixed, name=b.unique(f"{p.name}.direction"))
        next_value(mean, AdamMean(self.beta2), mean, g)
        next_value(p, shared(SgdStep), p, direction, rate, *self.decay_of(p))

    def reference(self, u: Update) -> dict[str, Array]:
        """Update as X. Chen et al., 2023, algorithm 2."""
        direction = np.sign(running_mean(u.slot("mean"), u.gradient, self.beta1))
        mean = running_mean(u.slot("mean"), u.gradient, self.beta2)
        return u.next(u.p - u.rate * (direction + u.decay * u.p), mean=mean)
