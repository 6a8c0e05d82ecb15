"""The body of a kernel, whatever the language of a backend: its passes, and the code of its steps.

A reduction needs a pass over all the elements that it reduces; steps that depend on it run in the
next pass, which recomputes the element values that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, MutableMapping
from dataclasses import dataclass

from graphc.backends.arithmetic import Arithmetic, Value
from graphc.ir.expr import OTHER_STEPS, Body, Broadcast, Step, Store, join

Known = MutableMapping[int, Value]
"""The emitted values of steps, by the steps' numbers."""
Leaf = Callable[[Step], Value]
"""The emitter of a step that is neither a constant nor a function of other steps."""
_LOWEST = {"int64": -(2**63), "int32": -(2**31)}


@dataclass(frozen=True)
class Phase:
    """One pass of a loop over its elements: what it reduces, stores and computes."""

    reductions: tuple[int, ...]
    """The steps that this pass reduces: sums and maxima."""
    stores: tuple[Store, ...]
    """The stores of each element; only the last pass has any."""
    steps: tuple[int, ...]
    """The steps to compute for each element, in order; not the reductions of earlier passes."""


def phases(body: Body) -> list[Phase]:
    """Return the passes in order; an empty list if no reduction or store needs one."""
    level_of, stores = levels(body), stores_at(body, "each")
    last = [level_of[r] - 1 for r in reductions(body)] + [level_of[s.step] for s in stores]
    found = []
    for level in range(max(last, default=-1) + 1):
        reduced = tuple(r for r in reductions(body) if level_of[r] == level + 1)
        written = stores if level == max(last) else ()
        roots = [body.steps[r].args[0] for r in reduced] + [s.step for s in written]
        found.append(Phase(reduced, written, needed(body, roots)))
    return found


def levels(body: Body) -> list[int]:
    """Return for each step how many reductions are on a path to it, one after the other."""
    found: list[int] = []
    for step in body.steps:
        found.append(max((found[arg] for arg in step.args), default=0) + step.reduces)
    return found


def reductions(body: Body) -> list[int]:
    """Return the numbers of the steps that reduce: sums and maxima."""
    return [number for number, step in enumerate(body.steps) if step.reduces]


def needed(body: Body, roots: Iterable[int], known: Container[int] = ()) -> tuple[int, ...]:
    """Return `roots` and the steps that they need, in order, without known ones and reductions."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        number = todo.pop()
        if number not in found and number not in known and not body.steps[number].reduces:
            found.add(number)
            todo.extend(body.steps[number].args)
    return tuple(sorted(found))


def stores_at(body: Body, *levels: Broadcast) -> tuple[Store, ...]:
    """Return the stores of these broadcast kinds: once per element, row, column, or in all.

    A value that varies more than its store, such as the number of the only row, is stored as
    often as it is computed.
    """
    return tuple(
        s for s in body.stores if join(s.broadcast, body.steps[s.step].broadcast) in levels
    )


def evaluate(v: Arithmetic, body: Body, numbers: Iterable[int], known: Known, leaf: Leaf) -> None:
    """Emit the steps with these numbers, in order, unless known, and add their values to `known`.

    Their arguments are known or among them.  Every step rounds by itself, so that its value does
    not depend on the kernel's other steps.
    """
    for number in numbers:
        if number in known:
            continue
        step = body.steps[number]
        if step.op == "const":
            assert isinstance(step.value, int | float), "a constant is a number"
            known[number] = v.const(step.value, step.dtype)
        elif step.op in OTHER_STEPS:
            known[number] = leaf(step)
        else:
            args = [known[a] for a in step.args]
            dtypes = [body.steps[a].dtype for a in step.args]
            known[number] = v.applied(step.op, args, dtypes, step.dtype)


def neutral(v: Arithmetic, step: Step) -> Value:
    """Return what a reduction begins with."""
    if step.op == "sum":
        return v.const(0, step.dtype)
    return v.const(_LOWEST.get(step.dtype, float("-inf")), step.dtype)


def joined(v: Arithmetic, step: Step, a: Value, b: Value) -> Value:
    """Emit the reduction of two values."""
    return (v.add if step.op == "sum" else v.maximum)(a, b, step.dtype)
