"""A wrong case made small: whatever it is wrong without is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .calls import Call, Ref, change
from .case import Case
from .check import Outcome, check

DECLARE = ("net.output", "net.loss")


def shrunk(case: Case, outcome: Outcome, tries: int = 200) -> Case:
    """Return a smaller case that is wrong in the same way."""
    again = True
    while again and tries > 0:
        again = False
        for smaller in candidates(case):
            tries -= 1
            if tries < 0:
                break
            if kind(check(smaller, outcome.checks[-1])) == kind(outcome):
                case, again = smaller, True
                break
    return case


def kind(outcome: Outcome) -> Any:
    """Return what tells one way of being wrong from another: the check, and the first words."""
    return outcome.checks[-1:], outcome.wrong.split(":")[0].rstrip(
        "0123456789"
    ) if outcome.wrong else ""


def candidates(case: Case) -> Iterator[Case]:
    """Yield cases that lack something."""
    for at in range(len(case.actions)):
        if len(case.actions) > 1:
            yield replace(case, actions=case.actions[:at] + case.actions[at + 1 :])
    used = read(case.calls)
    for at, call in reversed(list(enumerate(case.calls))):
        rest = case.calls[:at] + case.calls[at + 1 :]
        if call.function in DECLARE or (call.results and not used & set(call.results)):
            smaller = without(case, rest, call)
            if counts_rows(smaller) or not counts_rows(case):
                yield smaller
        elif len(call.results) == 1:
            for name in dict.fromkeys(call.reads):
                yield replace(case, calls=tuple(instead(c, call.results[0], name) for c in rest))


def counts_rows(case: Case) -> bool:
    """Return whether some input says how many rows there are."""
    return any(feed.batched for feed in case.inputs.values())


def read(calls: tuple[Call, ...]) -> set[str]:
    """Return what some call reads."""
    return {name for call in calls for name in call.reads}


def without(case: Case, rest: tuple[Call, ...], gone: Call) -> Case:
    """Return a case without a call, and without what was known of it."""
    name = str(gone.args[0]) if gone.args else ""
    fields = {
        "losses": {
            k: v for k, v in case.losses.items() if gone.function != "net.loss" or k != name
        },
        "outputs": {
            k: v for k, v in case.outputs.items() if gone.function != "net.output" or k != name
        },
        "inputs": {
            k: v for k, v in case.inputs.items() if gone.function != "net.input" or k != name
        },
        "masks": {k: v for k, v in case.masks.items() if k != gone.kwargs.get("name")},
    }
    return replace(case, calls=rest, **fields)


def instead(call: Call, old: str, new: str) -> Call:
    """Return the call with one value read in the place of another."""

    def leaf(value: Any) -> Any:
        return Ref(new) if isinstance(value, Ref) and value.name == old else value

    return Call(call.results, call.function, *change((call.args, dict(call.kwargs)), leaf))
