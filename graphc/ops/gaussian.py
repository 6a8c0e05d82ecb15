"""Normal distributions that a net computes: samples with gradients, densities, entropies."""

from __future__ import annotations

from math import log, pi

import numpy as np

from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value, as_value, misfit
from graphc.ops.apply import lift
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.functions import exp, softplus, tanh
from graphc.ops.functions import log as log_of
from graphc.ops.random_numbers import random_normal
from graphc.ops.select import clip
from graphc.ops.sums import broadcast_to, sum_

__all__ = ["Gaussian"]

_OF_ROWS = """
Parameters
----------
name
    The name of the node.

Returns
-------
Value
    Of the shape of the mean without its last axis.
"""


class Gaussian:
    """A normal distribution for each row, of independent numbers on the last axis.

    Its methods add nodes to the net.  A sample is mean + std * `gc.random_normal(mean)`, so
    gradients flow through it to mean and log_std (Kingma and Welling 2014, "Auto-encoding
    variational Bayes").  In inference, where those numbers are 0, it is the mean.  With `squash` a
    sample is the tanh of that, between -1 and 1, as in soft actor-critic (Haarnoja et al. 2018).

    Parameters
    ----------
    mean
        Floats (N, ..., D).
    log_std
        The logarithm of the standard deviation: of the same shape, of one that is broadcast to it
        such as a parameter (D,), or a number.
    squash
        Whether samples are squashed by tanh.

    Raises
    ------
    GraphError
        If the mean has no last axis of numbers, or log_std does not fit it or its net.

    Examples
    --------
    >>> net = gc.Net("example")
    >>> h = gc.tanh(gc.affine(net.input("x", (gc.N, 3)), 16))
    >>> log_std = gc.clip(gc.affine(h, 2), -5.0, 2.0)
    >>> policy = gc.Gaussian(gc.affine(h, 2), log_std, squash=True)
    >>> action = net.output("action", policy.sample())
    >>> net.loss("loss", gc.mean(0.2 * policy.log_prob(action) + gc.sum(action * action, 1)))
    <mean_1: float32[]>
    """

    def __init__(self, mean: Value, log_std: Value | float, *, squash: bool = False) -> None:
        self.mean = mean = as_value("Gaussian: mean", mean)
        self.squash = squash
        if mean.type.rank < 2 or not mean.type.is_float:
            raise misfit(f"Gaussian: mean is {mean.type}\nit must be floats (N, D)", mean=mean)
        self.log_std = given = lift("Gaussian: log_std", log_std, mean)
        sizes = zip(reversed(given.shape), reversed(mean.shape), strict=False)
        if given.dtype != mean.dtype or any(own not in (1, size) for own, size in sizes):
            raise misfit(
                f"Gaussian: log_std is {given.type}, the mean {mean.type}\n"
                "it has the mean's dtype, and its shape or one that is broadcast to it: (D,)",
                log_std=given,
                mean=mean,
            )
        own, other = mean.builder, given.builder
        if not (own.is_within(other) or other.is_within(own)):
            raise misfit(
                f"Gaussian: log_std belongs to {other.name!r}, the mean to {own.name!r}\n"
                "declare both in one net",
                log_std=given,
                mean=mean,
            )
        if given.shape != mean.shape:
            self.log_std = broadcast_to(given, mean.shape)
        self._known: dict[tuple[Builder, str], tuple[Value, Value]] = {}
        """For each sample: its random numbers, and its value before tanh."""

    def mode(self) -> Value:
        """Return the mean of the normal numbers; squashed, their median.

        Returns
        -------
        Value
            Of the shape of the mean: what a sample is in inference.
        """
        return tanh(self.mean) if self.squash else self.mean

    def sample(self, *, counter: Value | None = None, name: str | None = None) -> Value:
        """Return a sample for each row, through which gradients flow.

        Parameters
        ----------
        counter
            A single whole number that keys its random numbers; see `gc.random_normal`.
        name
            The name of the node.

        Returns
        -------
        Value
            Of the shape of the mean.

        Raises
        ------
        GraphError
            If the counter is not a single whole number.
        """
        b = self.mean.builder
        node = b.free_name("sample", name)
        with b.all_or_nothing():
            noise = random_normal(self.mean, counter=counter, name=f"{node}.noise")
            moved = mul(exp(self.log_std, name=f"{node}.std"), noise)
            inner = add(self.mean, moved, name=f"{node}.normal" if self.squash else node)
            found = tanh(inner, name=node) if self.squash else inner
        self._known[found.builder, found.name] = noise, inner
        return found

    @with_shared(_OF_ROWS)
    def log_prob(self, x: Value, *, name: str | None = None) -> Value:
        """Return the logarithm of the density at x, summed over the last axis.

        That of a sample of this distribution is computed from its random numbers: exactly also
        where it is squashed to nearly 1, with the gradient of both together.

        Parameters
        ----------
        x
            A sample, or floats of the shape of the mean; if squashed, from -1 to 1, where those
            nearest to the ends count as a little farther from them.

        Raises
        ------
        GraphError
            If x does not have the shape of the mean.
        """
        x = as_value("Gaussian.log_prob", x)
        if x.type != self.mean.type:
            raise misfit(
                f"Gaussian.log_prob: x is {x.type}, the mean {self.mean.type}",
                x=x,
                mean=self.mean,
            )
        with x.builder.all_or_nothing():
            noise, inner = self._known.get((x.builder, x.name)) or self._places(x)
            density = sub(mul(mul(noise, noise), -0.5), self.log_std)
            density = sub(density, 0.5 * log(2 * pi))
            if self.squash:
                # log(1 - tanh(u)**2), without the difference that would be 0 for a large u.
                slope = sub(sub(log(2), inner), softplus(mul(inner, -2.0)))
                density = sub(density, mul(slope, 2.0))
            return sum_(density, -1, name=name)

    @with_shared(_OF_ROWS)
    def entropy(self, *, name: str | None = None) -> Value:
        """Return the entropy of each row, summed over the last axis.

        Raises
        ------
        GraphError
            If samples are squashed, whose entropy has no formula.
        """
        if self.squash:
            raise GraphError(
                "Gaussian: the entropy of squashed samples has no formula",
                hint="estimate it by a sample: -policy.log_prob(policy.sample())",
            )
        return sum_(add(self.log_std, 0.5 * (1 + log(2 * pi))), -1, name=name)

    def _places(self, x: Value) -> tuple[Value, Value]:
        """Return the standard normal numbers that lead to x, and x before it is squashed."""
        if self.squash:
            largest = 1 - 2 * float(np.finfo(x.dtype).eps)
            x = clip(x, -largest, largest)
            # By operations that have kernels, as atanh has not.
            x = mul(log_of((1.0 + x) / (1.0 - x)), 0.5)
        return mul(sub(x, self.mean), exp(mul(self.log_std, -1.0))), x
