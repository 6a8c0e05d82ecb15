"""What must not change a result: each is a check of a case against its first run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc

from . import rewrites
from .calls import Call, Ref
from .case import Case
from .compare import Reference, Wrong, same
from .drawer import Feed, Skip
from .runs import Result, act, executor, lasting, outputs, plan_of, run, start_of

TRAINING = ("step", "parts")


@dataclass
class Check:
    """A case, its plan, what it gave on NumPy, what it should give, and numbers to draw from.

    `coarse` makes what it should give to the digits of float32, `judged` what another case should.
    """

    case: Case
    plan: gc.Plan
    base: list[Result]
    reference: Reference
    coarse: Callable[[], Reference]
    judged: Callable[[Case], Reference]
    rng: np.random.Generator

    def same_bits(self, what: str, other: list[Result]) -> None:
        """Raise Wrong unless a run has the bits of the first one."""
        same(what, other, self.base)

    def near(self, what: str, other: list[Result]) -> None:
        """Raise Wrong unless a run is as near to what is right as the first one should be."""
        self.reference.compare(what, other)

    def compiled(self, **options: Any) -> gc.Executor:
        """Return an executor of a plan with other options, which is verified."""
        return executor(self.case, verified(plan_of(self.case, **options)))

    def one(self, items: Any) -> Any:
        """Return one of the items."""
        return items[int(self.rng.integers(len(items)))]


def verified(plan: gc.Plan) -> gc.Plan:
    """Return the plan; raise Wrong when its own certificate is refuted."""
    report = plan.verify()
    if not report.ok:
        raise Wrong(f"refuted: {report.counterexample}")
    return plan


def native(c: Check) -> None:
    """Run as machine code on one thread."""
    c.near("native", run(c.case, c.compiled(backend="native", threads=1)))


def threads(c: Check) -> None:
    """Run as machine code on one thread and on two: every bit is the same."""
    one, two = (run(c.case, c.compiled(backend="native", threads=n)) for n in (1, 2))
    same("threads", two, one)
    c.near("native", two)


def native_proof(c: Check) -> None:
    """Prove the plan for machine code, which is not made."""
    verified(plan_of(c.case, backend="native", threads=2))


def a_pass_left_out(c: Check) -> None:
    """Leave out one of the passes that may be."""
    name = c.one(optional_passes())
    c.near(f"without {name}", run(c.case, c.compiled(passes=gc.passes.without(name))))


def all_passes_left_out(c: Check) -> None:
    """Leave out all passes that may be."""
    c.near("without passes", run(c.case, c.compiled(passes=gc.passes.without(*optional_passes()))))


def optional_passes() -> list[str]:
    """Return the names of the passes that may be left out."""
    entries = [p for p in gc.passes.DEFAULT.entries if not isinstance(p, str)]
    return sorted({gc.passes.name_of(p) for p in entries} - gc.passes.REQUIRED)


def validated(c: Check) -> None:
    """Let each pass be judged while the net is compiled."""
    with tempfile.TemporaryDirectory() as folder:
        plan_of(c.case, validate=folder)


def exact_batch(c: Check) -> None:
    """Run each action by a plan for no more rows than it has, on one state."""
    found: list[Result] = []
    ex = c.compiled()
    for turn, (action, rows) in enumerate(c.case.actions):
        ex = gc.Executor(verified(plan_of(c.case, batch=rows)), state=ex.state)
        found.append(act(ex, action, c.case.feeds(rows, turn)))
    c.near("plans of other batches on one state", found)


def larger_batch(c: Check) -> None:
    """Plan for more rows."""
    c.near("larger batch", run(c.case, c.compiled(batch=c.case.batch + int(c.rng.integers(1, 20)))))


def saved(c: Check) -> None:
    """Save and load half-way: all that follows has the same bits."""
    at = int(c.rng.integers(len(c.case.actions)))

    def between(ex: gc.Executor, turn: int) -> gc.Executor:
        if turn != at:
            return ex
        with tempfile.TemporaryDirectory() as folder:
            return gc.load(gc.save(Path(folder) / "case.gc", ex))

    c.same_bits("saved and loaded", run(c.case, c.compiled(), between))


def frozen(c: Check) -> None:
    """Freeze the net before the first action."""
    turns = [t for t, (action, _) in enumerate(c.case.actions) if action == "infer"]
    first = [t for t in turns if all(c.case.actions[i][0] == "infer" for i in range(t))]
    ex = gc.freeze(c.compiled(), batch=c.case.batch)
    verified(ex.plan)
    for turn in first:
        rows = c.case.actions[turn][1]
        found = outputs(ex.forward(needed(c.case.feeds(rows, turn), ex)))
        c.near("frozen", [found if t == turn else {} for t in range(len(c.base))])


def needed(feeds: Mapping[str, Any], ex: gc.Executor) -> dict[str, Any]:
    """Return the feeds that a plan has inputs for."""
    return {n: a for n, a in feeds.items() if n in ex.plan.input_names}


def parts(c: Check) -> None:
    """Run forward, backward and update in the place of each step."""
    if c.case.optimizer is None or c.case.optimizer.accumulate > 1:
        raise Skip
    actions = tuple(("parts" if a == "step" else a, rows) for a, rows in c.case.actions)
    c.near("parts of steps", run(dataclasses.replace(c.case, actions=actions), c.compiled()))


def given_gradients(c: Check) -> None:
    """Hand the gradients to the optimizer."""
    if c.case.optimizer is None or c.case.optimizer.accumulate > 1:
        raise Skip
    ex, found = c.compiled(), []
    for turn, (action, rows) in enumerate(c.case.actions):
        if action not in TRAINING:
            found.append(act(ex, action, c.case.feeds(rows, turn)))
            continue
        act(ex, "train", c.case.feeds(rows, turn))
        ex.update(ex.backward())
        found.append(lasting(ex))
    c.near("gradients given", found)


def a_budget(c: Check) -> None:
    """Plan with less memory: every bit stays."""
    least = c.plan.memory.total
    try:
        ex = c.compiled(budget=int(least * c.one([0.8, 0.9, 0.97])))
    except gc.BudgetError:
        raise Skip from None
    c.same_bits("budget", run(c.case, ex))


def rows_apart(c: Check) -> None:
    """Infer each row by itself, by predict and forward."""
    if not c.case.apart or not any(c.case.outputs.values()):
        raise Skip
    ex = c.compiled(batch=c.one([1, 2, 3]))
    feeds = c.case.feeds(c.case.batch, 99)
    whole = c.compiled().forward(feeds)
    found = ex.predict(**feeds)
    of_rows = [n for n, has_rows in c.case.outputs.items() if has_rows]
    found = found if isinstance(found, dict) else dict.fromkeys(of_rows, found)
    off(c, "predict by few rows", found, {n: whole[n] for n in of_rows})


def off(c: Check, what: str, found: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Raise Wrong where inference of rows that the reference has not seen differs much."""
    for name in found:
        if name in right and np.shape(found[name]) == np.shape(right[name]):
            a, b = (np.asarray(v).astype(float) for v in (found[name], right[name]))
            kind = np.asarray(right[name]).dtype.kind
            scale = np.mean(np.abs(b[np.isfinite(b)])) if np.isfinite(b).any() else 1.0
            with np.errstate(all="ignore"):
                wrong = np.abs(a - b) > ROUGH[c.case.dtype] * (np.abs(b) + scale)
            if kind == "f" and wrong.sum() > 0.02 * wrong.size:
                raise Wrong(f"{what}: {name}: {a[wrong][0]!r}, not {b[wrong][0]!r}")


ROUGH = {"float32": 3e-3, "float64": 1e-7}


def evaluated(c: Check) -> None:
    """Evaluate by plans of other batches: the losses are those of all rows together."""
    if not c.case.losses or "mixed" in c.case.losses.values():
        raise Skip
    rows = c.case.batch + int(c.rng.integers(0, 12))
    feeds = c.case.feeds(rows, 98)
    right = c.compiled(batch=rows).forward(feeds)
    for batch in {c.case.batch, int(c.rng.integers(1, rows + 1))}:
        found = c.compiled(batch=batch).evaluate(**feeds)
        losses = {n: found[n] for n in c.case.losses}
        off(c, f"evaluate {rows} rows by {batch}", losses, right)


def sharded(c: Check) -> None:
    """Cut steps into shards, which no result depends on but by rounding."""
    if not c.case.losses or not c.case.apart or c.case.optimizer is None:
        raise Skip
    shards = c.one([2, 4])
    if c.case.batch < shards:
        raise Skip
    try:
        ex = c.compiled(shards=shards, batch=-(-c.case.batch // shards) * shards)
    except gc.GraphError as error:
        if "computed from parameters" in str(error):
            raise Skip from None
        raise
    found: list[Result] = [{} for _ in c.base]
    for turn, (action, rows) in enumerate(c.case.actions):
        if action in TRAINING:
            found[turn] = act(ex, "step", c.case.feeds(rows, turn))
        elif action == "train":  # which shards do not do; rows apart have no other lasting part
            ex.state.assign({"draws": ex.state["draws"] + 1})
    c.near(f"{shards} shards", found)


def losses_apart(c: Check) -> None:
    """Add up the gradients by each loss alone."""
    if len(c.case.losses) < 2:
        raise Skip
    case = trained_once(c.case)
    total: Result = {}
    for loss in case.losses:
        for name, gradient in gradients(case, losses=loss).items():
            total[name] = total.get(name, 0) + gradient
    c.judged(case).compare("losses apart", [total])


def fewer_trained(c: Check) -> None:
    """Train by some parameters only: their gradients stay, the others do too."""
    if not c.case.losses or len(c.plan.wrt) < 2:
        raise Skip
    chosen = sorted(n for n in c.plan.wrt if c.rng.random() < 0.5) or [c.plan.wrt[0]]
    case = trained_once(c.case)
    found = gradients(case, wrt=chosen)
    if set(found) != {f"gradient {n}" for n in chosen}:
        raise Wrong(f"wrt: {sorted(found)}, not by {chosen}")
    c.judged(case).compare("wrt", [found])
    ex = c.compiled(wrt=chosen, optimizer=gc.SGD(lr=0.1))
    before = {n: ex.parameters[n] for n in ex.parameters if n not in chosen}
    ex.step(c.case.feeds(c.case.batch, 95))
    moved = [n for n, value in before.items() if not np.array_equal(value, ex.parameters[n])]
    if moved:
        raise Wrong(f"wrt: {moved} moved, not among {chosen}")


def trained_once(case: Case) -> Case:
    """Return the case that only asks for all gradients of a full batch at the start."""
    return dataclasses.replace(case, actions=(("train", case.batch),), optimizer=None, wrt=None)


def gradients(case: Case, **options: Any) -> Result:
    """Return the gradients of the only action, by a plan with other options."""
    found = run(case, executor(case, verified(plan_of(case, **options))))[0]
    return {name: value for name, value in found.items() if name.startswith("gradient ")}


def rewritten(c: Check) -> None:
    """Declare the same net in another way."""
    name, calls = c.one(rewrites.ALL)(c.case, c.rng)
    case = dataclasses.replace(c.case, calls=calls)
    c.near(name, run(case, executor(case, verified(plan_of(case)))))


def rows_twice(c: Check) -> None:
    """Feed every row twice: what is a mean over rows stays."""
    if not c.case.losses or c.case.masks or any(how != "mean" for how in c.case.losses.values()):
        raise Skip
    actions = tuple(("step" if a == "parts" else a, rows) for a, rows in c.case.actions)
    ex = c.compiled(batch=2 * c.case.batch)
    found = []
    for turn, (action, rows) in enumerate(actions):
        whole = c.case.feeds(rows, turn)
        feeds = {
            n: np.concatenate([a, a]) if c.case.inputs[n].batched else a for n, a in whole.items()
        }
        result = act(ex, action, feeds)
        found.append(
            {
                n: v
                for n, v in result.items()
                if not n.startswith("output") or n[7:] in c.case.losses
            }
        )
    c.near("rows twice", found)


def cotangents(c: Check) -> None:
    """Differentiate an output by a cotangent, as a loss that is its product with it."""
    smooth = [n for n in c.case.outputs if n in c.case.smooth]
    if not smooth or c.case.masks or not c.case.losses:
        raise Skip
    name = c.one(smooth)
    case = trained_once(with_product(c.case, name))
    feeds = case.feeds(case.batch, 0)
    cotangent = feeds.pop("given")
    ex = c.compiled(optimizer=None, wrt=None)
    ex.forward(feeds, train=True)
    found = {f"gradient {n}": g for n, g in ex.backward(**{name: cotangent}).items()}
    right = c.judged(case)
    right.compare(f"product with {name}", [gradients(case)])
    right.compare(f"cotangent of {name}", [found])


def with_product(case: Case, name: str) -> Case:
    """Return the case whose only loss is the sum of an output's product with a further input."""
    outputs = [call.args for call in case.calls if call.function == "net.output"]
    shape = case.smooth[name]
    more = (
        Call(("given",), "net.input", ("given", shape), {"dtype": case.dtype}),
        Call(("product",), "gc.mul", (dict(outputs)[name], Ref("given"))),
        Call(("total",), "gc.sum", (Ref("product"),)),
        Call((), "net.loss", ("total", Ref("total"))),
    )
    calls = tuple(call for call in case.calls if call.function != "net.loss")
    inputs = {**case.inputs, "given": Feed(shape, "normal")}
    return dataclasses.replace(
        case, calls=(*calls, *more), inputs=inputs, losses={"total": "mixed"}
    )


def two_optimizers(c: Check) -> None:
    """Train by two optimizers on one state: each has its own rate, or the second is refused."""
    if c.case.optimizer is None or c.case.masks:
        raise Skip
    kind, name = c.one([gc.SGD, gc.Adam]), c.one(["", "second"])
    plans = [
        plan_of(c.case, optimizer=optimizer)
        for optimizer in (kind(lr=0.01), kind(lr=0.002, name=name))
    ]
    feeds = c.case.feeds(c.case.actions[0][1], 0)
    alone = [trained(c, executor(c.case, plan), feeds) for plan in plans]
    first = executor(c.case, plans[0])
    try:
        second = gc.Executor(plans[1], state=first.state)
    except (gc.GraphError, gc.StateError):
        if name:
            raise
        return
    same("two optimizers on one state", [trained(c, ex, feeds) for ex in (first, second)], alone)


def trained(c: Check, ex: gc.Executor, feeds: Any) -> Result:
    """Return the parameters after a step from the start."""
    ex.state.assign(start_of(c.case, ex))
    ex.step(feeds)
    return {name: ex.parameters[name] for name in ex.parameters}


def by_fit(c: Check) -> None:
    """Let `fit` make the steps: it has the same bits."""
    if c.case.optimizer is None or not any(f.batched for f in c.case.inputs.values()):
        raise Skip
    if not all(f.batched for f in c.case.inputs.values()) or c.case.fitted or weighed(c.case):
        raise Skip
    rows = int(c.rng.integers(1, 2 * c.case.batch + 1))
    feeds = c.case.feeds(rows, 97)
    one, other = c.compiled(), c.compiled()
    try:
        gc.fit(one, feeds, shuffle=False, progress=False)
    except gc.NotFiniteError:
        raise Skip from None
    for start in range(0, rows, c.case.batch):
        other.step({n: a[start : start + c.case.batch] for n, a in feeds.items()})
    same("fit", [lasting(one)], [lasting(other)])


def weighed(case: Case) -> bool:
    """Return whether weights are fed, which `fit` feeds itself."""
    return any(feed.kind == "weights" for feed in case.inputs.values())


CHEAP: tuple[Callable[[Check], None], ...] = (
    native_proof,
    a_pass_left_out,
    all_passes_left_out,
    exact_batch,
    larger_batch,
    saved,
    frozen,
    parts,
    given_gradients,
    a_budget,
    rows_apart,
    evaluated,
    sharded,
    losses_apart,
    fewer_trained,
    cotangents,
    rewritten,
    rows_twice,
    two_optimizers,
    by_fit,
)
