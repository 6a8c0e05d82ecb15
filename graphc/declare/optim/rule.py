"""An update rule: an optimizer, the losses that it minimises, and the parameters that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphc.base.arguments import options
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.declare.optim.optimizer import Checked, Optimizer
from graphc.declare.selection import Names, listed, select_outputs, select_wrt
from graphc.ir.build import Value
from graphc.ir.graph import Graph

__all__ = ["UpdateRule"]

EXAMPLE = 'gc.UpdateRule("critic_loss", "critic/*", gc.Adam(name="critic"))'


@options(EXAMPLE)
@dataclass(frozen=True, init=False, repr=False)
class UpdateRule(Checked):
    """One of several updates of a step, for `gc.compile(net, updates=[...])`.

    Rules apply in order.  Each differentiates its losses at the values that those before it wrote,
    with the same feeds and random masks.

    Parameters
    ----------
    losses
        The losses to minimise, by name, value or pattern; several add up.
    wrt
        The parameters to train, by name, value or pattern such as "critic/*".
    optimizer
        The optimizer.  Where there are several rules, each has a `name` of its own.

    Raises
    ------
    GraphError
        If a field is not what it must be.

    Examples
    --------
    >>> gc.UpdateRule("critic_loss", "critic/*", gc.Adam(name="critic"))
    UpdateRule(losses=('critic_loss',), wrt=('critic/*',), optimizer=Adam(name='critic'))
    """

    losses: tuple[str, ...]
    wrt: tuple[str, ...]
    optimizer: Optimizer

    def __init__(self, losses: Names, wrt: Names, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise GraphError(
                f"UpdateRule: optimizer is {optimizer!r}, not an optimizer of graphc", hint=EXAMPLE
            )
        self._keep("losses", _names("losses", losses))
        self._keep("wrt", _names("wrt", wrt))
        self._keep("optimizer", optimizer)


def _names(field: str, given: Names) -> tuple[str, ...]:
    """Return what a field of a rule names; raise GraphError if that is nothing."""
    some = isinstance(given, (str, Value, Sequence)) and listed(given)
    if not some or not all(isinstance(name, str) for name in some):
        raise GraphError(f"UpdateRule: {field} is {given!r}, it must be names", hint=EXAMPLE)
    return tuple(some)


class Training(NamedTuple):
    """The graph that a plan computes, with its chosen outputs, and what it trains by name."""

    graph: Graph
    wrt: tuple[str, ...]
    """The names to differentiate by."""
    required: tuple[str, ...]
    """The ones that were given without patterns."""
    rules: tuple[UpdateRule, ...]
    """The updates of a step in order; none if the plan does not train."""


def one_rule(
    graph: Graph, losses: Names, outputs: Names, wrt: Names, optimizer: Optimizer | None
) -> Training:
    """Return what a plan with one optimizer trains, or with none."""
    graph = select_outputs(graph, losses, outputs)
    names, required = select_wrt(graph, wrt)
    if optimizer is None or not (graph.losses and names):
        return Training(graph, names, required, ())
    return Training(graph, names, required, (UpdateRule(graph.losses, names, optimizer),))


def several_rules(graph: Graph, outputs: Names, updates: object) -> Training:
    """Return what a plan with these update rules trains; raise GraphError for unfit ones."""
    rules: list[UpdateRule] = []
    required: list[str] = []
    for rule in _checked(updates):
        alone = one_rule(graph, rule.losses, None, rule.wrt, rule.optimizer)
        rules += alone.rules
        required += alone.required
    check_rules(rules)
    losses = [name for rule in rules for name in rule.losses]
    wrt = tuple(name for rule in rules for name in rule.wrt)
    return Training(select_outputs(graph, losses, outputs), wrt, tuple(required), tuple(rules))


def _checked(updates: object) -> Sequence[UpdateRule]:
    """Return update rules as a sequence; raise GraphError for anything else."""
    if isinstance(updates, UpdateRule):
        return (updates,)
    if (
        isinstance(updates, Sequence)
        and updates
        and all(isinstance(r, UpdateRule) for r in updates)
    ):
        return updates
    raise _error(f"updates is {updates!r}, it must be update rules", f"updates=[{EXAMPLE}]")


def check_rules(rules: Sequence[UpdateRule]) -> None:
    """Raise GraphError for rules that do not go together."""
    if len(rules) < 2:
        return
    names = [rule.optimizer.name for rule in rules]
    if "" in names or len({*names}) < len(names):
        raise _error(
            f"the optimizers of {len(rules)} update rules are named "
            f"{', '.join(map(repr, names))}, so their rates and counters would be the same",
            f"give each a name of its own: {EXAMPLE}",
        )
    trained = [name for rule in rules for name in rule.wrt]
    if len({*trained}) < len(trained):
        twice = next(name for name in trained if trained.count(name) > 1)
        hint = "choose wrt= so that each parameter is trained by one rule"
        raise _error(f"parameter {twice!r} is trained by two update rules", hint)
    if any(rule.optimizer.accumulate > 1 for rule in rules):
        raise _error(
            "an optimizer with accumulate= goes with one update rule alone",
            "each rule sees what those before it wrote in the same step, and here no step writes",
        )


def _error(sentence: str, hint: str) -> GraphError:
    return GraphError(f"compile: {sentence}", loc=caller_loc(), hint=hint)
