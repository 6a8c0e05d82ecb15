"""The base of all optimizers: frozen descriptions of how a parameter follows its gradient.

An optimizer holds no state.  It adds update nodes to a graph (see passes/update.py); its slots and
the learning rate are states of the graph, named after the parameter and `hyper.`, and after the
optimizer where that has a name: `w.velocity:critic`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial

from graphc.base.arguments import options
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.declare.optim.checks import Checked
from graphc.declare.optim.group import Group
from graphc.declare.schedules import Schedule
from graphc.ir.build import Value
from graphc.ir.graph import Node

made_with = partial(
    options,
    learning_rate="it is lr",
    betas="they are beta1 and beta2",
    epsilon="it is eps",
    global_clipnorm="it is clip_norm",
    use_ema="it is ema, the share that the average keeps: ema=0.99",
    gradient_accumulation_steps="it is accumulate",
)
"""The decorator of optimizers, with hints for options that other libraries name otherwise."""


@dataclass(frozen=True, repr=False)
class Optimizer(Checked):
    """The base of all optimizers, with the options that they share.

    `decay` has patterns of the names of the parameters that `weight_decay` applies to; None means
    those of rank 2 and more.  `clip_value` limits each number of a gradient, then `clip_norm` the
    norm over all gradients; `schedule` gives a factor on `lr` by the number of updates;
    `accumulate` is how many steps one update averages.  The first of `groups` that matches a
    parameter applies to it.  With `ema` the weights are averaged:
    average = ema*average + (1 - ema)*weight after each update, starting with the weights after the
    first; see `Executor.averaged`.  An optimizer with a `name` has rates, counters and slots of its
    own in a state that several plans share.

    Raises GraphError, at the user's line, for a number that makes no sense.
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

    def _check_groups(self) -> None:
        given: object = (self.groups,) if isinstance(self.groups, Group) else self.groups
        if not isinstance(given, Sequence) or not all(isinstance(one, Group) for one in given):
            hint = 'groups=[gc.Group("head.*", lr=1.0)]'
            raise self._error("groups", "it must be groups", hint)
        self._keep("groups", tuple(given))

    def state(self, name: str) -> str:
        """Return the full name of a state that the optimizer itself calls `name`."""
        return f"{name}:{self.name}" if self.name else name

    def group_of(self, name: str) -> Group | None:
        """Return the first group that matches a parameter, or None."""
        return next((group for group in self.groups if group.holds(name)), None)

    def trains(self, name: str) -> bool:
        """Return whether a parameter is not frozen."""
        group = self.group_of(name)
        return group is None or not group.frozen

    def decay_of(self, parameter: Node) -> float:
        """Return the weight decay of a parameter: by group, by pattern, or by rank."""
        group = self.group_of(parameter.name)
        if group is not None and group.weight_decay is not None:
            return group.weight_decay
        if self.decay is None:
            decays = parameter.type.rank >= 2
        else:
            decays = any(fnmatchcase(parameter.name, pattern) for pattern in self.decay)
        return self.weight_decay if decays else 0.0

    def check_groups(self, parameters: Iterable[str]) -> None:
        """Raise GraphError if a group applies to no parameter."""
        from difflib import get_close_matches

        known = list(parameters)
        holding = [self.group_of(name) for name in known]
        for group in self.groups:
            if group not in holding:
                close = get_close_matches(group.names[0], known, n=1, cutoff=0.4)
                others = any(group.holds(name) for name in known)
                raise GraphError(
                    f"{type(self).__name__}: no parameter is in the group {group}",
                    loc=caller_loc(),
                    hint="earlier groups match all that it matches: the first match counts"
                    if others
                    else f"there are parameters such as {(close or known)[0]!r}",
                )

    def update(self, p: Value, g: Value, rate: Value, updates: Value) -> None:
        """Add the nodes that give a parameter and its slots their next values."""
        raise NotImplementedError(f"{type(self).__name__} has no update rule")
