"""Transformations that must not change a result, one applied to what another made.

Between actions other executors take the place of the first one: loaded from a file, a member of a
population, of a plan for other rows, and so on.  What infers is frozen, read back from ONNX, or run
as machine code besides.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from tests.extras import missing

from .compare import same
from .drawer import Skip
from .exports import model_of
from .runs import Result, act, outputs, plan_of
from .transformations import Check, optional_passes


class Move(NamedTuple):
    """A way to put another executor in the place of one.

    `exact`: it has the same bits.  `share`: how often it is drawn, beside the others.
    """

    apply: Callable[[Check, gc.Executor], gc.Executor]
    exact: bool = True
    share: float = 1.0


def saved(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return the executor that a file gives back."""
    with tempfile.TemporaryDirectory() as folder:
        return gc.load(gc.save(Path(folder) / "case.gc", ex), batch=ex.plan.batch)


def pickled(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return the executor that a pickle gives back."""
    found: gc.Executor = pickle.loads(pickle.dumps(ex))
    return found


def copied(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return a deep copy."""
    return copy.deepcopy(ex)


def assigned(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor from another seed that has taken the whole state."""
    other = gc.Executor(ex.plan, seed=c.case.seed + 1)
    other.state = ex.snapshot()
    return other


def by_parameters(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return a copy whose parameters were overwritten, and then taken back as one vector."""
    other = copied(c, ex)
    other.parameters.load_flat(np.zeros_like(other.parameters.flat()))
    other.parameters.load_flat(ex.parameters.flat())
    return other


def member(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return a member of a population that has taken the state, was copied, and kept."""
    population = gc.Population(ex.plan, members=3)
    first, second = (int(i) for i in c.rng.permutation(3)[:2])
    population[first].state = ex.snapshot()
    population.copy(first, second)
    population.keep([second] if c.rng.random() < 0.5 else [(3 - first - second), second])
    return population[len(population) - 1]


def population_saved(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return a member of a population that a file gives back."""
    population = gc.Population(ex.plan, members=2)
    population[1].state = ex.snapshot()
    with tempfile.TemporaryDirectory() as folder:
        return gc.load(gc.save(Path(folder) / "members.gc", population))[1]


def replanned(**options: Any) -> Callable[[Check, gc.Executor], gc.Executor]:
    """Return a move to a plan with other options on the same state."""

    def move(c: Check, ex: gc.Executor) -> gc.Executor:
        if missing(options.get("backend", "numpy")):
            raise Skip
        return gc.Executor(plan_of(c.case, **options), state=ex.state)

    return move


def more_rows(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor of a plan for more rows on the same state."""
    return replanned(batch=c.case.batch + int(c.rng.integers(1, 9)))(c, ex)


def a_pass_less(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor of a plan without one of the passes on the same state."""
    return replanned(passes=gc.passes.without(c.one(optional_passes())))(c, ex)


def less_memory(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor of a plan with a budget on the same state."""
    try:
        return replanned(budget=int(0.9 * c.plan.memory.total))(c, ex)
    except gc.BudgetError:
        raise Skip from None


TRAINING: dict[str, Move] = {
    "saved": Move(saved),
    "pickled": Move(pickled),
    "copied": Move(copied),
    "assigned": Move(assigned),
    "flat": Move(by_parameters),
    "member": Move(member),
    "members saved": Move(population_saved),
    "more rows": Move(more_rows, exact=False),
    "a pass less": Move(a_pass_less, exact=False),
    "less memory": Move(less_memory),
    "native": Move(replanned(backend="native", threads=1), exact=False, share=0.1),
    "C": Move(replanned(backend="c"), exact=False, share=0.05),
}


def frozen(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor with constants for weights."""
    return gc.freeze(ex, batch=c.case.batch)


def refreshed(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return one that was frozen with other weights, and has taken these."""
    if not ex.plan.parameter_names or not c.case.smooth:  # no output depends on a weight
        raise Skip
    other = copied(c, ex)
    other.parameters.load_flat(1 - 0.5 * ex.parameters.flat())
    found = gc.freeze(other, batch=c.case.batch)
    found.refresh(ex)
    return found


def from_onnx(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor of the net that is read from the model of this one."""
    if missing("onnx"):
        raise Skip
    net = gc.onnx.load(model_of(c, ex))
    return gc.Executor(gc.compile(net, batch=c.case.batch, backend=ex.plan.backend))


INFERENCE: dict[str, Move] = {
    "saved": Move(saved),
    "pickled": Move(pickled),
    "member": Move(member),
    "frozen": Move(frozen, exact=False),
    "refreshed": Move(refreshed, exact=False),
    "from ONNX": Move(from_onnx, exact=False),
}


QUANTIZED = {name: INFERENCE[name] for name in ("saved", "pickled", "member", "from ONNX")}


def composed(c: Check) -> None:
    """Run each action on what some moves made of the executor, and each inference by a chain."""
    ex, found, used, exact = c.compiled(), [], [], True
    for turn, (action, rows) in enumerate(c.case.actions):
        ex, names, bits = chain(c, ex, TRAINING, int(c.rng.integers(0, 3)))
        if action == "infer":
            last, more, some = chain(c, ex, INFERENCE, int(c.rng.integers(1, 4)))
            found.append(inferred(c, last, c.case.feeds(rows, turn)))
            names, bits = [*names, *more], bits and some
        else:
            step, more, some = chain(c, ex, STEP, int(action == "step" and c.rng.random() < 0.1))
            found.append(act(step, action, c.case.feeds(rows, turn)))
            names, bits = [*names, *more], bits and some
        used.append(f"{', '.join(names)}: {action}")
        exact = exact and bits
    what = "; ".join(used)
    if exact:
        c.same_bits(what, found)
    elif "from ONNX" in what:  # Attributes such as the slope of a leaky relu are float32 in ONNX.
        c.coarse().compare(what, found)
    else:
        c.near(what, found)


def inferred(c: Check, ex: gc.Executor, feeds: Result) -> Result:
    """Return the outputs that an executor gives for the inputs that it has."""
    names = ex.plan.input_names
    return outputs(ex.forward({n: a for n, a in feeds.items() if n in names}))


def sharded(c: Check, ex: gc.Executor) -> gc.Executor:
    """Return an executor that makes steps in two shards, on the same state."""
    if not c.case.apart or c.case.batch < 2:
        raise Skip
    try:
        return replanned(shards=2, batch=2 * -(-c.case.batch // 2))(c, ex)
    except gc.GraphError as error:
        if "computed from parameters" in str(error):
            raise Skip from None
        raise


STEP = {"sharded": Move(sharded, exact=False)}


def quantized(c: Check) -> None:
    """Infer by what a chain of transformations makes of a quantized net: every bit stays."""
    ex = c.compiled()
    feeds = c.case.feeds(c.case.batch, 93)
    try:
        first = gc.quantize(ex, feeds)
    except gc.GraphError:
        raise Skip from None  # nothing is multiplied by weights, or a value is not finite
    last, names, _ = chain(c, first, QUANTIZED, 2)
    same(f"quantized, {', '.join(names)}", [inferred(c, last, feeds)], [inferred(c, first, feeds)])


def chain(
    c: Check, ex: gc.Executor, moves: dict[str, Move], length: int
) -> tuple[gc.Executor, list[str], bool]:
    """Return what some moves make of an executor, their names, and whether bits must stay."""
    names: list[str] = []
    exact = True
    for _ in range(length):
        shares = np.array([move.share for move in moves.values()])
        name = str(c.rng.choice(list(moves), p=shares / shares.sum()))
        try:
            ex = moves[name].apply(c, ex)
        except Skip:
            continue
        names.append(name)
        exact = exact and moves[name].exact
    return ex, names, exact
