"""A case run by graphc."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gc

from .calls import made
from .case import Case, sized

Result = dict[str, Any]
POSITIVE = (".running_var", ".scale")


def plan_of(case: Case, **options: Any) -> gc.Plan:
    """Compile a case's net, with other options than its own where they are given."""
    net, _ = made(case.calls, case.dtype)
    own = {"batch": case.batch, "optimizer": case.optimizer, "wrt": case.wrt, "backend": "numpy"}
    if case.products.startswith("bf16"):
        own["precision"] = {"*": case.products}
    return gc.compile(net, **{**own, **options})


def executor(case: Case, plan: gc.Plan) -> gc.Executor:
    """Return an executor whose parameters and states have numbers of their names' own."""
    ex = gc.Executor(plan, seed=case.seed)
    ex.state.assign(start_of(case, ex))
    return gc.quantize(ex, case.feeds(case.batch, 93)) if case.products == "int8" else ex


def start_of(case: Case, ex: gc.Executor) -> dict[str, Any]:
    """Return what parameters and running statistics start from."""
    states = [n for n in ex.state if n in case.fitted or ".running_" in n]
    return {n: start(n, np.shape(ex.state[n]), case) for n in [*ex.parameters, *states]}


def start(name: str, shape: tuple[int, ...], case: Case) -> Any:
    """Return numbers for a name: positive where they divide, small where sums are long."""
    rng = np.random.default_rng([case.seed, zlib.crc32(name.encode())])
    if name.endswith(POSITIVE):
        return rng.uniform(0.5, 2, shape).astype(case.dtype)
    size = 1 / np.sqrt(max(1, np.prod(shape[:-1]))) if len(shape) > 1 else 0.6
    return (size * rng.normal(size=shape)).astype(case.dtype)


def act(ex: gc.Executor, action: str, feeds: Mapping[str, Any]) -> Result:
    """Run one action, and return all that it gives."""
    if action == "infer":
        return outputs(ex.forward(feeds))
    if action == "step":
        found: Result = {"loss": np.asarray(ex.step(feeds))}
    else:
        found = outputs(ex.forward(feeds, train=True))
        found |= {f"gradient {n}": g for n, g in ex.backward().items()}
        if action == "parts":
            ex.update()
    return found | lasting(ex)


def outputs(found: Mapping[str, Any]) -> Result:
    """Return outputs by the names that results have here."""
    return {f"output {n}": np.asarray(v) for n, v in found.items()}


def lasting(ex: gc.Executor) -> Result:
    """Return all that lasts, by name."""
    return {f"state {n}": np.asarray(v) for n, v in ex.state.items()}


Between = Callable[[gc.Executor, int], gc.Executor]


def run(case: Case, ex: gc.Executor, between: Between | None = None) -> list[Result]:
    """Run all actions of a case; `between` may put another executor in the place of the first."""
    found = []
    for turn, (action, rows) in enumerate(case.actions):
        found.append(act(ex, action, case.feeds(rows, turn)))
        ex = between(ex, turn) if between is not None else ex
    return found


def masks_of(case: Case) -> list[Mapping[str, Any]]:
    """Return the masks of every training forward, drawn by dropouts of the same names alone."""
    turns = [rows for action, rows in case.actions if action != "infer"]
    if not case.masks or not turns:
        return [{}] * len(turns)
    net = gc.Net("masks", dtype=case.dtype)
    net.loss("any", gc.sum(net.parameter("any.weight", (1,))))
    for name, (shape, keep) in case.masks.items():
        dims = tuple(d if isinstance(d, int) else d.times * gc.N for d in shape)
        net.output(name, gc.dropout(net.input(f"in_{name}", dims), keep_prob=keep, name=name))
    ex = gc.Executor(gc.compile(net, batch=case.batch, backend="numpy"), seed=case.seed)
    found = []
    for rows in turns:
        feeds = {f"in_{n}": np.ones(sized(shape, rows)) for n, (shape, _) in case.masks.items()}
        found.append(
            {n: v != 0 for n, v in ex.forward(feeds, train=True).items() if n in case.masks}
        )
    return found
