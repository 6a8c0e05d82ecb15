"""Run the events of a case on an executor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.ops.source import Input
from tests.tools.fuzz.case import Case
from tests.tools.fuzz.interpreted import interpret
from tests.tools.fuzz.meaning import cotangent_output
from tests.tools.fuzz.whole import whole_outputs


def run(case: Case) -> tuple[list[dict[str, Array]], list[Plan]]:
    """The results of each event, and the plans that were made."""
    if case.backend == "interpreted":
        return interpret(case), [case.plan]
    ex = gc.Executor(case.plan)
    plans = [case.plan]
    if case.other is not None:
        plans.append(case.other_plan)
        gc.Executor(case.other_plan, state=ex.state)  # makes its states
    ex.state = case.state()
    results: list[dict[str, Array]] = []
    for number, event in enumerate(case.events):
        found = _event(case, ex, number, event.kind, plans)
        found.update({f"state {name}": array for name, array in ex.state.items()})
        results.append(found)
    return results, plans


def _event(
    case: Case, ex: gc.Executor, number: int, kind: str, plans: list[Plan]
) -> dict[str, Array]:
    feeds = case.feeds(number)
    if kind == "infer":
        return _named("output", ex.forward(feeds))
    if kind == "unlabelled":
        return _named("output", ex.forward(_unlabelled(case, feeds)))
    if kind == "frozen":
        frozen = gc.freeze(ex, batch=case.events[number].n)
        plans.append(frozen.plan)
        return _named("output", frozen.forward(feeds))
    if kind == "evaluate":
        known, found = whole_outputs(case.plan.declared), ex.evaluate(feeds)
        return _named("output", {name: found[name] for name in found if name in known})
    if kind == "other":
        return {"loss": np.asarray(gc.Executor(case.other_plan, state=ex.state).step(feeds))}
    if kind == "step":
        loss = ex.step(feeds)
        values = {name: ex.values[name] for name in ex.values if _has_value(case, number, name)}
        return {"loss": np.asarray(loss), **_named("output", values)}
    found = _named("output", ex.forward(feeds, train=True))
    if kind == "cotangents":
        output = cotangent_output(case)
        return found | _named("gradient", ex.backward(**{output: case.cotangent(number, output)}))
    if kind == "forward":
        return found
    found |= _named("gradient", ex.backward())
    if kind == "update":
        ex.update()
    return found


def _has_value(case: Case, number: int, output: str) -> bool:
    """Whether a step says what an output is: where the last shard has rows, or it is a loss."""
    return case.events[number].n >= case.shards or output in case.plan.declared.losses


def _named(what: str, arrays: Mapping[str, Any]) -> dict[str, Array]:
    return {f"{what} {name}": np.asarray(array) for name, array in arrays.items()}


def _unlabelled(case: Case, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Without the inputs that only losses read; with all where the rest does not tell the rows."""
    declared = case.plan.declared
    plain = (value for name, value in declared.outputs.items() if name not in declared.losses)
    needed = declared.upstream(plain)
    inputs = [node.name for node in declared if isinstance(node.op, Input)]
    read = {name: feeds[name] for name in inputs if name in needed}
    return read if any(declared[name].type.batched for name in read) else dict(feeds)
