"""Learning-rate schedules: factors on `hyper.lr` by the number of updates made so far.

A schedule is a frozen dataclass that adds its nodes to the update graph, so a plan computes the
rate by itself, and `ex.hyper["lr"]` still scales all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

from graphc.base.arguments import checked_number, checked_whole
from graphc.base.errors import GraphError
from graphc.declare.optim.optimizer import Schedule
from graphc.ir.build import Value
from graphc.ops.rate import CosineRate, StepRate, WarmUpRate


@dataclass(frozen=True, repr=False)
class WarmUp(Schedule):
    """A linear factor (u + 1)/steps for the first updates; then 1, or the factor of a schedule.

    Parameters
    ----------
    steps
        The number of these updates.
    then
        A schedule for after them, which counts its updates from there.

    Raises
    ------
    GraphError
        If `steps` is not a whole number from 1 up, or `then` is not a schedule.

    Examples
    --------
    >>> schedule = gc.WarmUp(100, then=gc.Step(every=1000, factor=0.5))
    >>> schedule.reference(49), schedule.reference(1100)
    (0.5, 0.5)
    """

    steps: int
    then: Schedule | None = None

    def __post_init__(self) -> None:
        _keep_whole(self, "steps", 1)
        if self.then is not None and not isinstance(self.then, Schedule):
            raise GraphError(
                f"WarmUp: then is {self.then!r}, not a schedule",
                hint="WarmUp(500, then=Cosine(total=10_000))",
            )

    def rate(self, lr: Value, updates: Value, start: int = 0) -> Value:
        """Return `lr` times the factors of the warm-up and of `then`, which waits for its end."""
        warm = lr.builder.apply(WarmUpRate(self.steps, start), lr, updates)
        return warm if self.then is None else self.then.rate(warm, updates, start + self.steps)

    def reference(self, updates: int) -> float:
        """Return the product of both factors."""
        after = 1.0 if self.then is None else self.then.reference(updates - self.steps)
        return min((max(updates, 0) + 1) / self.steps, 1.0) * after


@dataclass(frozen=True, repr=False)
class Cosine(Schedule):
    """A factor that falls by half a cosine from 1, and then stays.

    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017
    (arXiv:1608.03983), equation 5, without restarts.

    Parameters
    ----------
    total
        The number of updates until the factor stays.
    floor
        The last factor, from 0 to 1.
    warmup
        How many of the updates are a linear warm-up.

    Raises
    ------
    GraphError
        If a number is out of range, or `warmup` is not below `total`.

    Examples
    --------
    >>> gc.Cosine(total=1000, floor=0.1).reference(500)
    0.55
    """

    total: int
    floor: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        _keep_whole(self, "total", 1)
        _keep_whole(self, "warmup", 0)
        if self.warmup >= self.total:
            raise GraphError(
                f"Cosine: warmup is {self.warmup}, total is {self.total}",
                hint="total counts the updates of the warm-up too, so it is the larger one",
            )
        hint = "it is a factor on the learning rate, not a learning rate"
        checked_number("Cosine: floor", self.floor, least=0, most=1, hint=hint)

    def rate(self, lr: Value, updates: Value, start: int = 0) -> Value:
        """Return `lr` times the factors of the warm-up and of the cosine."""
        b = lr.builder
        if self.warmup:
            lr = b.apply(WarmUpRate(self.warmup, start), lr, updates)
        op = CosineRate(self.total - self.warmup, self.floor, start + self.warmup)
        return b.apply(op, lr, updates)

    def reference(self, updates: int) -> float:
        """Return the warm-up's factor times that of the half cosine."""
        warm = min((max(updates, 0) + 1) / self.warmup, 1.0) if self.warmup else 1.0
        done = max(max(updates, 0) - self.warmup, 0) / (self.total - self.warmup)
        share = 0.5 * (1 + cos(pi * min(done, 1.0)))
        return warm * (self.floor + (1 - self.floor) * share)


@dataclass(frozen=True, repr=False)
class Step(Schedule):
    """A factor that falls in steps: it is multiplied by a number after each so many updates.

    Parameters
    ----------
    every
        The number of updates of a step.
    factor
        The number, above 0.

    Raises
    ------
    GraphError
        If a number is out of range.

    Examples
    --------
    >>> gc.Step(every=1000, factor=0.5).reference(2000)
    0.25
    """

    every: int
    factor: float

    def __post_init__(self) -> None:
        _keep_whole(self, "every", 1)
        hint = "Step(every=1000, factor=0.5) halves the rate each 1000 updates"
        checked_number("Step: factor", self.factor, above=0, hint=hint)

    def rate(self, lr: Value, updates: Value, start: int = 0) -> Value:
        """Return `lr` times `factor` to the power of how often `every` updates have passed."""
        return lr.builder.apply(StepRate(self.every, self.factor, start), lr, updates)

    def reference(self, updates: int) -> float:
        """Return `factor` to the power of how often `every` updates have passed."""
        return float(self.factor ** (max(updates, 0) // self.every))


def _keep_whole(schedule: Schedule, field: str, least: int) -> None:
    """Store a field as a whole number from `least` up; raise GraphError for anything else."""
    hint = "schedules count updates: with n batches an epoch, 10 epochs are 10*n updates"
    what = f"{type(schedule).__name__}: {field}"
    number = checked_whole(what, getattr(schedule, field), least, hint=hint)
    object.__setattr__(schedule, field, number)  # the dataclass is frozen
