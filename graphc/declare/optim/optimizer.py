"""The base of all optimizers: frozen descriptions of an update rule.

An optimizer holds no state.  It adds update nodes to a graph (see passes/update.py).  Its slots are
states named after the parameter, its rates and weight decays states such as `hyper.lr`.  An
optimizer that has a name appends it: `w.velocity:critic`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import partial
from math import inf
from typing import Any, Self

from graphc.base.arguments import (
    C,
    call_text,
    checked_number,
    checked_whole,
    finite,
    lost_in,
    options,
)
from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError, close_names
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ops.shape import as_dtype
from graphc.ops.source import hyper

__all__ = ["Group"]

AVERAGE = "ema"
"""The kind of the slot that holds the moving average of a parameter."""
AVERAGES_MADE = "ema_updates"
"""The name of the state that counts the averages made so far."""


def number(default: float, usual: str = "", **limits: float) -> Any:
    """Return a field of an optimizer for a finite number of 0 or more; see `Checked._number`.

    `usual` is such a number, for hints, if it is not the default.
    """
    usual = usual or f"{default:g}".replace("e-0", "e-")
    return field(default=default, metadata=limits | {"hint": f"{usual} is usual", "usual": usual})


share = partial(number, below=1.0)
"""The field of an optimizer for a number from 0 to below 1."""
positive = partial(number, above=True)
"""The field of an optimizer for a number above 0."""


class Schedule:
    """A factor on the learning rate as a function of the counter of updates."""

    __repr__ = call_text

    def rate(self, lr: Value, updates: Value, start: int = 0) -> Value:
        """Return the scalar `lr` times the factor, which counts updates from `start` on.

        Before `start` the factor keeps its initial value.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def reference(self, updates: int) -> float:
        """Return the factor after that many updates, in plain Python; counts below 0 mean 0.

        Validation compares `rate` with it; a class without it is not validated.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reference rule")


class Checked:
    """The base of frozen dataclasses that raise GraphError, at the user's line, for a bad field."""

    __repr__ = call_text

    def _number(
        self, name: str, *, above: bool = False, below: float = inf, hint: str, usual: str
    ) -> None:
        """Store a field as a finite float of 0 or more, or above 0 with `above`.

        It must be less than `below`; `usual` is such a number, for the hint.
        """
        given = getattr(self, name)
        if finite(given) is None:
            hint = f"give a finite number, such as {name}={usual}"
        over, least = (0.0, -inf) if above else (-inf, 0.0)
        what = f"{type(self).__name__}: {name}"
        self._keep(
            name, checked_number(what, given, above=over, least=least, below=below, hint=hint)
        )

    def _whole(self, name: str, hint: str) -> None:
        """Store a field as a whole number from 1 up; raise GraphError for anything else."""
        what = f"{type(self).__name__}: {name}"
        self._keep(name, checked_whole(what, getattr(self, name), hint=hint))

    def check_held(self, dtypes: Collection[str]) -> None:
        """Raise GraphError for a field that one of these dtypes makes infinite, or 0."""
        for each in fields(self):  # type: ignore[arg-type]
            number = getattr(self, each.name)
            for dtype in dtypes if isinstance(number, float) else ():
                if lost := lost_in(dtype, number):
                    hint = "give another number, or declare the net with dtype='float64'"
                    raise self._error(each.name, f"which is {lost} in {dtype}", hint)

    def _patterns(self, name: str, hint: str) -> None:
        """Store one name pattern, or several, as a tuple."""
        value = getattr(self, name)
        listed = (value,) if isinstance(value, str) else value
        if not isinstance(listed, Sequence) or not all(isinstance(text, str) for text in listed):
            raise self._error(name, "it must be name patterns", hint)
        self._keep(name, tuple(listed))

    def _keep(self, name: str, value: object) -> None:
        """Set a field of the frozen dataclass."""
        object.__setattr__(self, name, value)

    def _error(self, name: str, wanted: str, hint: str) -> GraphError:
        """Return the error for a field."""
        sentence = f"{type(self).__name__}: {name} is {getattr(self, name)!r}, {wanted}"
        return GraphError(sentence, hint=hint)


@dataclass(frozen=True, repr=False)
class Group(Checked):
    """Settings for the parameters that name patterns match, in place of the optimizer's own.

    Parameters
    ----------
    names
        One pattern, or several, such as "head.*".
    lr
        Their learning rate, `ex.hyper["lr." + patterns]`, which the schedule's factor multiplies as
        well.
    weight_decay
        Their weight decay, which applies to parameters of rank 1 too; if it is above 0,
        `ex.hyper["weight_decay." + patterns]`.
    frozen
        Whether they are not trained: there are no slots for them, and no gradient is computed.

    Raises
    ------
    GraphError
        At your line, for a field that is not valid, or a group that changes nothing.

    Examples
    --------
    >>> gc.SGD(lr=0.1, groups=[gc.Group("head.*", lr=1.0)])
    SGD(lr=0.1, groups=(Group(names=('head.*',), lr=1.0),))
    """

    names: tuple[str, ...] | str
    lr: float | None = field(default=None, kw_only=True)
    weight_decay: float | None = field(default=None, kw_only=True)
    frozen: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._patterns("names", 'gc.Group("head.*", lr=1.0)')
        if not self.names:
            raise self._error("names", "there must be at least one", 'gc.Group("head.*", lr=1.0)')
        if self.lr is not None:
            hint = "frozen=True is for what is not to be trained"
            self._number("lr", hint=hint, usual="0.1")
        if self.weight_decay is not None:
            self._number("weight_decay", hint="0 means no decay", usual="0.01")
        given = self.lr is not None or self.weight_decay is not None
        if given == bool(self.frozen):
            problem = "is frozen, but has numbers to train by" if given else "changes nothing"
            raise GraphError(
                f"Group: {self} {problem}",
                hint='gc.Group("head.*", lr=1.0) or gc.Group("body.*", frozen=True)',
            )

    def holds(self, name: str) -> bool:
        """Return whether a parameter of that name is in the group."""
        return any(fnmatchcase(name, pattern) for pattern in self.names)

    @property
    def title(self) -> str:
        """The patterns, joined by commas, as in the name of the hyper-parameter."""
        return ",".join(self.names)

    def __str__(self) -> str:
        return repr(self.title)


_OF_ALL = """
Parameters
----------
lr
    The learning rate.
beta1, beta2
    The shares of the mean of the gradient, and of its square, that each update keeps, from 0 to
    below 1.
eps
    The number that keeps the divisor above 0.
weight_decay, decay, schedule, clip_norm, clip_value, accumulate, groups, ema, name
    The options of every optimizer; see `gc.optim.Optimizer`.

Raises
------
GraphError
    At your line, for a number out of range.

Examples
--------
>>> gc.{public}(lr=0.02)
{public}(lr=0.02)
"""

_other_names = partial(
    options,
    learning_rate="it is lr",
    betas="they are beta1 and beta2",
    epsilon="it is eps",
    global_clipnorm="it is clip_norm",
    max_grad_norm="it is clip_norm",
    use_ema="it is ema, the share that the average keeps: ema=0.99",
    gradient_accumulation_steps="it is accumulate",
)


def made_with(example: str, **hints: str) -> Callable[[C], C]:
    """Return the decorator of optimizers, which describes the parameters that they share.

    A wrong option is an error with hints for what other libraries name otherwise.
    """
    checked, described = _other_names(example, **hints), with_shared(_OF_ALL)
    return lambda made: described(checked(made))


@dataclass(frozen=True)
class Update:
    """The values that a rule in plain NumPy reads to update one parameter."""

    name: str
    gradient: Array
    decay: float
    rate: float
    t: int
    """The number of the update, from 1 on."""
    state: Mapping[str, Array]

    @property
    def p(self) -> Array:
        """The parameter."""
        return self.state[self.name]

    @property
    def g(self) -> Array:
        """The gradient plus that of the weight decay."""
        return self.gradient + self.decay * self.p

    def slot(self, name: str) -> Array:
        """Return the parameter's slot of that name."""
        return self.state[f"{self.name}.{name}"]

    def next(self, p: Array, **slots: Array) -> dict[str, Array]:
        """Return the next parameter and slots by their names in the state."""
        return {f"{self.name}.{name}": value for name, value in slots.items()} | {self.name: p}


def running_mean(old: Array, new: Array, keep: float) -> Array:
    """Return the next running mean, which keeps that share of the old one."""
    return keep * old + (1 - keep) * new


def owned_by(optimizer: str, name: str) -> str:
    """Return the full name of what an optimizer calls `name`."""
    return f"{name}:{optimizer}" if optimizer else name


@dataclass(frozen=True, repr=False)
class Optimizer(Checked):
    """The base of all optimizers, with the options that they share.

    Parameters
    ----------
    lr
        The learning rate.
    weight_decay
        The share of a parameter that an update subtracts, times the rate.  If it is above 0, it may
        be set between steps, to 0 too: `ex.hyper["weight_decay"]`.
    decay
        Patterns of the names of the parameters that decay; by default those of rank 2 and more.
    schedule
        A factor on `lr` by the number of updates, such as `gc.Cosine(total=10_000)`.
    clip_norm
        The largest norm over all gradients; larger ones are scaled down.
    clip_value
        The largest size of a number in a gradient; it is applied first.
    accumulate
        How many steps one update averages.
    groups
        Settings for some of the parameters; the first group that matches one applies to it.
    ema
        The share that averages of the weights keep: after each update
        average = ema*average + (1 - ema)*weight, from the weights after the first on; see
        `Executor.averaged`.
    name
        A name for the rates, counters and slots in a state that several plans share.

    Raises
    ------
    GraphError
        At your line, for a number out of range, or an option that is not valid.

    Examples
    --------
    >>> gc.AdamW(lr=0.001, clip_norm=1.0)
    AdamW(clip_norm=1.0)
    """

    lr: float
    weight_decay: float = field(default=0.0, kw_only=True)
    decay: tuple[str, ...] | None = field(default=None, kw_only=True)
    schedule: Schedule | None = field(default=None, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    clip_value: float | None = field(default=None, kw_only=True)
    accumulate: int = field(default=1, kw_only=True)
    groups: tuple[Group, ...] = field(default=(), kw_only=True)
    ema: float | None = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self._number("lr", hint="updates go against the gradient already", usual="0.1")
        self._number("weight_decay", hint="0 means no decay", usual="0.01")
        for clip in ("clip_norm", "clip_value"):
            if getattr(self, clip) is not None:
                self._number(clip, above=True, hint="None means no clipping", usual="1.0")
        self._whole("accumulate", "1 means an update in each step")
        if self.decay is not None:
            self._patterns("decay", 'decay=("*.weight",)')
        if self.schedule is not None and not isinstance(self.schedule, Schedule):
            hint = "gc.Cosine(total=10_000), gc.Step(1000, 0.5) or gc.WarmUp(500)"
            raise self._error("schedule", "it must be a schedule", hint)
        if self.ema is not None:
            self._number("ema", above=True, below=1.0, hint="0.999 is usual", usual="0.999")
        plain = isinstance(self.name, str) and re.fullmatch(r"[\w.-]*", self.name)
        if not plain:
            raise self._error("name", "it must be letters, digits, _, - and .", 'name="critic"')
        self._check_groups()
        for each in fields(self):
            if each.metadata:
                self._number(each.name, **each.metadata)

    def _check_groups(self) -> None:
        """Store the groups as a tuple; raise GraphError for anything else."""
        given: object = (self.groups,) if isinstance(self.groups, Group) else self.groups
        if not isinstance(given, Sequence) or not all(isinstance(one, Group) for one in given):
            hint = 'groups=[gc.Group("head.*", lr=1.0)]'
            raise self._error("groups", "it must be groups", hint)
        self._keep("groups", tuple(given))

    @property
    def kind(self) -> Self:
        """The optimizer without the numbers that may differ between states of one plan."""
        return replace(self, lr=1.0, weight_decay=1.0)

    def state(self, name: str) -> str:
        """Return the full name of a state that the optimizer itself calls `name`."""
        return owned_by(self.name, name)

    def group_of(self, name: str) -> Group | None:
        """Return the first group that matches a parameter, or None."""
        return next((group for group in self.groups if group.holds(name)), None)

    def trains(self, name: str) -> bool:
        """Return whether a parameter is not frozen."""
        group = self.group_of(name)
        return group is None or not group.frozen

    def decay_of(self, p: Value) -> tuple[Value, ...]:
        """Return the weight decay of a parameter, a state; nothing if none is declared for it."""
        group = self.group_of(p.name)
        if group is not None and group.weight_decay is not None:
            name, start = f"weight_decay.{group.title}", group.weight_decay
        else:
            name, start = "weight_decay", self.weight_decay if self._decays(p) else 0.0
        return (as_dtype(hyper(p.builder, name, p.dtype, start), p.dtype),) if start else ()

    def _decays(self, p: Value) -> bool:
        """Return whether the optimizer's own weight decay applies to a parameter."""
        if self.decay is None:
            return len(p.shape) >= 2  # biases and scales, which are vectors, do not decay
        return any(fnmatchcase(p.name, pattern) for pattern in self.decay)

    def check_groups(self, parameters: Iterable[str]) -> None:
        """Raise GraphError if a group applies to no parameter."""
        known = list(parameters)
        holding = [self.group_of(name) for name in known]
        for group in self.groups:
            if group not in holding:
                close = close_names(group.names[0], known, n=1, cutoff=0.4)
                others = any(group.holds(name) for name in known)
                raise GraphError(
                    f"{type(self).__name__}: no parameter is in the group {group}",
                    hint="earlier groups match all that it matches: the first match counts"
                    if others
                    else f"there are parameters such as {(close or known)[0]!r}",
                )

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the nodes that give a parameter and its slots their next values."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule")

    def reference(self, u: Update) -> dict[str, Array]:
        """Return the next values of a parameter and its slots, in plain NumPy.

        This defines the optimizer: it is written from the paper, shares no code with `update`, and
        validation compares `update` with it.  A class without it is not validated.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reference rule")


def leading(optimizers: Iterable[Optimizer]) -> Optimizer:
    """Return the one whose plan serves all of its kind: without weight decay there is no state."""
    return max(optimizers, key=lambda one: one.weight_decay)


def numbers_of(optimizers: Sequence[Optimizer], known: Container[str]) -> dict[str, Any]:
    """Return the numbers of optimizers by name, of the hyper-parameters that are known."""
    names = [name for name in ("lr", "weight_decay") if name in known]
    return {name: [getattr(one, name) for one in optimizers] for name in names}
