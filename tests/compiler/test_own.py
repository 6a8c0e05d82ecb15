"""Planners and schedules of a user's own: what they get, what is refused, who grades them."""

from __future__ import annotations

import copy
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation import ValidationError
from graphc.kernels.program import LiveRange
from tests.check.verify.test_faults import LIVE, PLACE, THREADS
from tests.error_text import error_text
from tests.tools.generate import random_feeds, random_net, trainable

BACKENDS = ("numpy", "native")
BATCH = 64


def declare() -> gc.Net:
    net = gc.Net("layers")
    h = net.input("x", (gc.N, 24))
    for _ in range(3):
        h = gc.relu(gc.batchnorm(gc.affine(h, 40)))
    scores = net.output("scores", gc.affine(h, 10))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def called() -> gc.Net:
    """A net with a call, which has no kernel."""
    net = gc.Net("called")
    h = gc.relu(gc.affine(net.input("x", (gc.N, 24)), 40))
    net.output("sorted", gc.exp(gc.sort(gc.exp(h), axis=1)))
    return net


def compiled(net: gc.Net | None = None, **options: Any) -> gc.Plan:
    options = {"optimizer": gc.Adam() if net is None else None, "threads": 2, **options}
    return gc.compile(net or declare(), batch=BATCH, **options)


def rounded(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def side_by_side(ranges: tuple[LiveRange, ...]) -> dict[str, int]:
    offsets, end = {}, 0
    for live in ranges:
        offsets[live.name] = end
        end += rounded(live.nbytes)
    return offsets


def first_fit(ranges: tuple[LiveRange, ...]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    for live in sorted(ranges, key=lambda live: -live.nbytes):
        near = sorted(
            (offsets[o.name], offsets[o.name] + rounded(o.nbytes))
            for o in ranges
            if o.name in offsets and o.first <= live.last and live.first <= o.last
        )
        offset = 0
        for start, end in near:
            if start - offset >= rounded(live.nbytes):
                break
            offset = max(offset, end)
        offsets[live.name] = offset
    return offsets


def one_by_one(instructions: Any) -> Any:
    return [[one] for one in instructions]


def in_one_epoch(instructions: Any) -> Any:
    return [instructions]


def in_some_order(r: random.Random) -> Callable[[Any], Any]:
    """A schedule that takes any instruction whose operands are there and whose bytes are free."""

    def schedule(instructions: Any) -> Any:
        left, order = list(instructions), []
        while left:
            ready = [one for i, one in enumerate(left) if not any(waits(one, o) for o in left[:i])]
            order.append(r.choice(ready))
            left.remove(order[-1])
        return one_by_one(order)

    return schedule


def waits(one: Any, other: Any) -> bool:
    """Whether one reads what the other writes, or writes what the other reads."""
    return any(
        a.buffer == b.buffer and a.writes != b.writes for a in one.accesses for b in other.accesses
    )


def trained(plan: gc.Plan, steps: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    ex = gc.Executor(plan, seed=0)
    x, y = rng.normal(size=(BATCH, 24)), rng.integers(0, 10, BATCH)
    losses = [ex.step(x=x, y=y) for _ in range(steps)]
    return {"losses": np.array(losses), **{k: np.array(v) for k, v in ex.parameters.items()}}


# ---------------------------------------------------------------- what is right


@pytest.mark.one_in(9)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "own",
    [
        {"planner": first_fit, "schedule": one_by_one},
        {"planner": side_by_side},
        {"planner": first_fit},
        {"schedule": one_by_one},
        {"schedule": in_some_order(random.Random(0))},
    ],
    ids=("both", "side_by_side", "first_fit", "one_by_one", "any_order"),
)
def test_a_right_function_is_proved_and_changes_no_bit(backend: str, own: Any) -> None:
    plan = compiled(backend=backend, **own)
    proof = plan.verify()
    assert proof.ok, proof
    ours = trained(compiled(backend=backend))
    theirs = trained(plan)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_planner_gets_the_live_ranges_of_the_arena_and_decides_its_size() -> None:
    seen: list[tuple[LiveRange, ...]] = []

    def recorded(ranges: tuple[LiveRange, ...]) -> dict[str, int]:
        seen.append(ranges)
        return side_by_side(ranges)

    plan = compiled(planner=recorded)
    sizes = [sum(rounded(live.nbytes) for live in ranges) for ranges in seen]
    assert sizes == [size for size in plan.memory.arenas.values() if size]
    for program, ranges in zip(plan.programs.values(), seen, strict=False):
        assert {live.name for live in ranges} == {s.key for s in program.storages}
        assert program.arena.peak == compiled().programs[program.name].arena.peak


def test_an_order_inside_an_epoch_is_kept_and_epochs_are_between_barriers() -> None:
    plan = compiled(schedule=one_by_one, backend="native")
    for program in plan.programs.values():
        epochs = [
            epoch
            for instr, epoch in zip(program.instrs, program.epochs, strict=True)
            if instr.kind != "barrier"
        ]
        assert len(set(epochs)) == len(epochs)
    together = compiled(schedule=in_one_epoch, backend="native").programs["step"]
    assert [instr.kind for instr in together.instrs].count("barrier") == 0


def test_a_call_is_in_an_epoch_of_its_own() -> None:
    plan = compiled(called(), schedule=one_by_one)
    proof = plan.verify()
    assert proof.ok, proof
    x = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    ours, theirs = gc.Executor(compiled(called()), seed=0), gc.Executor(plan, seed=0)
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    with pytest.raises(gc.GraphError, match=r"runs 'topk_1' .* but it is a call"):
        compiled(called(), schedule=in_one_epoch)


def test_a_budget_and_other_batches_use_the_function_too() -> None:
    plan = compiled(planner=side_by_side)
    assert plan.memory.at(7).arena == compiled(planner=side_by_side).memory.at(7).arena
    assert plan.memory.at(7).arena > compiled().memory.at(7).arena
    budget = int(0.97 * compiled().memory.total)
    smaller = compiled(planner=first_fit, budget=budget)
    assert smaller.memory.total <= budget
    assert smaller.verify().ok
    with pytest.raises(gc.BudgetError):
        compiled(planner=side_by_side, budget=budget)


def test_frozen_plans_and_cotangents_use_the_function_too() -> None:
    plan = compiled(planner=side_by_side)
    frozen = gc.freeze(gc.Executor(plan, seed=0), batch=1)
    assert frozen.plan.options.planner is side_by_side
    program = plan.cotangent_program(("scores",))
    assert program.arena.nbytes == sum(rounded(s.range_at(BATCH).nbytes) for s in program.storages)


@pytest.mark.parametrize("own", [{"planner": first_fit}, {"schedule": one_by_one}])
def test_a_model_is_saved_without_the_function_and_says_so(own: Any, tmp_path: Path) -> None:
    (option,) = own
    ex = gc.Executor(compiled(**own), seed=0)
    with pytest.warns(UserWarning, match=f"the {option} of your own is not saved"):
        gc.save(tmp_path / "m.gc", ex)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = gc.load(tmp_path / "m.gc")
    assert getattr(loaded.plan.options, option) is None
    assert getattr(copy.deepcopy(ex.plan).options, option) is not None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_order_that_is_accepted_is_proved(backend: str, seed: int) -> None:
    r = random.Random(seed)
    net = random_net(r, "float32", without=("other_dtype",))
    if not trainable(net):
        return
    own: Any = {"schedule": in_some_order(r), "planner": first_fit}
    options: Any = {"optimizer": gc.SGD(lr=0.1, momentum=0.9), "backend": backend}
    ours, theirs = compiled(net, **options), compiled(net, **options, **own)
    proof = theirs.verify()
    assert proof.ok, proof
    feeds = random_feeds(net.graph(), 5, seed)
    if backend == "numpy":  # the other would compile code for each
        one, other = stepped(ours, feeds), stepped(theirs, feeds)
        assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def stepped(plan: gc.Plan, feeds: dict[str, Any]) -> dict[str, Any]:
    ex = gc.Executor(plan, seed=0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = ex.step(feeds)
    return {"loss": loss, **ex.parameters}


# ---------------------------------------------------------------- what verify refuses


def all_at_zero(ranges: tuple[LiveRange, ...]) -> dict[str, int]:
    return {live.name: 0 for live in ranges}


def last_epoch_forgotten(ranges: tuple[LiveRange, ...]) -> dict[str, int]:
    """Bytes are free one epoch too early."""
    short = [
        LiveRange(live.name, live.nbytes, live.first, max(live.first, live.last - 1))
        for live in ranges
    ]
    return first_fit(tuple(short))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("own", "rules"),
    [
        ({"planner": all_at_zero}, (LIVE,)),
        ({"planner": last_epoch_forgotten}, (LIVE, PLACE)),
        ({"schedule": in_one_epoch}, (THREADS,)),
    ],
)
def test_a_wrong_plan_is_refuted_by_its_proof(backend: str, own: Any, rules: Any) -> None:
    proof: Any = compiled(backend=backend, **own).verify()
    assert not proof.ok
    assert proof.counterexample.rule in rules


@pytest.mark.slow
def test_validation_names_the_proof_of_a_wrong_plan_and_does_not_warn_of_a_right_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(planner=first_fit, schedule=one_by_one, validate=True)
    with pytest.raises(ValidationError, match="program 'infer', own plan: ") as caught:
        compiled(planner=all_at_zero, validate=True)
    assert "they share arena bytes" in str(caught.value)
    assert "plan.verify()" in str(caught.value)


# ---------------------------------------------------------------- what is no plan at all


def but(change: Callable[[dict[Any, Any]], Any]) -> Callable[[Any], Any]:
    def spoilt(ranges: Any) -> Any:
        offsets: dict[Any, Any] = dict(side_by_side(ranges))
        if "affine_1" in offsets:  # not in the program for inference
            change(offsets)
        return offsets

    return spoilt


NO_PLANS = {
    "returned None, not a dict": lambda ranges: None,
    r"returned \[0, 64\], not a dict": lambda ranges: [0, 64],
    "gave no offset to 'affine_1'": but(lambda o: o.pop("affine_1")),
    "gave an offset to 'nobody'": but(lambda o: o.update(nobody=0)),
    "gave an offset to None": but(lambda o: o.update({None: 0})),
    "gave 'affine_1' the offset -64": but(lambda o: o.update(affine_1=-64)),
    "gave 'affine_1' the offset 32": but(lambda o: o.update(affine_1=32)),
    "gave 'affine_1' the offset 64.0": but(lambda o: o.update(affine_1=64.0)),
    "gave 'affine_1' the offset None": but(lambda o: o.update(affine_1=None)),
    "gave 'affine_1' the offset True": but(lambda o: o.update(affine_1=True)),
    "gave 'affine_1' the offset 1152921504606846976": but(lambda o: o.update(affine_1=1 << 60)),
}


@pytest.mark.parametrize(("message", "planner"), NO_PLANS.items())
def test_offsets_that_are_no_plan_are_refused(message: str, planner: Any) -> None:
    with pytest.raises(gc.GraphError) as caught:
        compiled(planner=planner)
    assert re.search(message, error_text(caught.value))
    assert "test_own.py" in str(caught.value)
    if "affine_1" in message:
        assert "bytes, epochs 0 to " in str(caught.value)
        assert "declared at" in str(caught.value)


def swapped(instructions: Any) -> Any:
    return [[one] for one in reversed(instructions)]


NO_SCHEDULES = {
    "returned None, not a list of epochs": lambda ins: None,
    "has .* for an epoch, not a list": lambda ins: list(ins),
    "has 'affine_1' in an epoch": lambda ins: [["affine_1"]],
    "never runs 'relu_1' of": lambda ins: one_by_one(ins[1:]),
    "runs 'relu_1' of program 'infer' twice": lambda ins: one_by_one([*ins, ins[0]]),
    "runs .* before .*, which writes it": swapped,
    "is not one of the instructions given": lambda ins: one_by_one(map(copy.copy, ins)),
}


@pytest.mark.parametrize(("message", "schedule"), NO_SCHEDULES.items())
def test_epochs_that_are_no_schedule_are_refused(message: str, schedule: Any) -> None:
    with pytest.raises(gc.GraphError) as caught:
        compiled(schedule=schedule)
    assert re.search(message, error_text(caught.value))
    assert "test_own.py" in str(caught.value)


def test_a_state_is_overwritten_after_its_readers_only() -> None:
    def update_first(instructions: Any) -> Any:
        updates = [
            one
            for one in instructions
            if any(a.writes and a.buffer == "affine_1.weight" for a in one.accesses)
        ]
        return one_by_one([*updates, *(one for one in instructions if one not in updates)])

    with pytest.raises(gc.GraphError, match=r"runs .*, which (overwrites|reads) "):
        compiled(schedule=update_first)


def test_an_error_in_the_function_says_where_it_was_called() -> None:
    def broken(ranges: Any) -> Any:
        raise KeyError("mine")

    def broken_later(instructions: Any) -> Any:
        yield instructions[:1]
        raise KeyError("mine")

    broken_later.__name__ = "broken"
    for option, function in (("planner", broken), ("schedule", broken), ("schedule", broken_later)):
        own: Any = {option: function}
        with pytest.raises(KeyError, match="mine") as caught:
            compiled(**own)
        assert caught.value.__notes__ == [f"in {option} 'broken', for program 'infer'"]


def test_what_is_no_function_of_one_argument_is_refused() -> None:
    with pytest.raises(gc.GraphError, match=r"planner= takes a function of one argument"):
        compiled(planner="first_fit")
    with pytest.raises(gc.GraphError, match=r"schedule= takes .* '<lambda>' takes others"):
        compiled(schedule=lambda a, b: a)
    with pytest.raises(gc.GraphError, match=r"schedule= does not go with shards="):
        compiled(schedule=one_by_one, shards=2)


def test_a_planner_serves_shards_too() -> None:
    plan = compiled(planner=first_fit, shards=2)
    proof = plan.verify()
    assert proof.ok, proof


def test_a_planner_that_gives_other_offsets_each_time_is_told_so() -> None:
    calls = []

    def growing(ranges: tuple[LiveRange, ...]) -> dict[str, int]:
        calls.append(ranges)
        return {name: 4096 * len(calls) + at for name, at in first_fit(ranges).items()}

    with pytest.raises(gc.GraphError, match="arenas of different sizes"):
        compiled(planner=growing, budget=int(0.97 * compiled().memory.total))
