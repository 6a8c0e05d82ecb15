"""Plans that compute values again fit their budgets, and give the same bytes."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.base import usable_cores
from graphc.compiler.plan import Plan
from graphc.compiler.remat.fit import (
    fitted,
    largest_batch,
    largest_batch_kept,
    least_total,
    smallest,
)
from graphc.compiler.remat.recomputation import clones, keeping_all, recomputes, repeated
from graphc.kernels.program import PREPARE
from tests.compiler.remat.nets import (
    BACKENDS,
    SGD,
    arrays,
    deep,
    dropped,
    halved,
    residual,
    results,
    tight,
)
from tests.tools.generate import random_feeds, random_net, trainable

backends = pytest.mark.parametrize("backend", BACKENDS)
OPTIMIZERS = {
    "sgd": gc.SGD(lr=0.01),
    "nesterov": gc.SGD(lr=0.01, momentum=0.9, nesterov=True),
    "adam": gc.Adam(lr=0.01),
    "adamw, clipped": gc.AdamW(lr=0.01, clip_norm=0.5),
    "accumulated": gc.SGD(lr=0.01, momentum=0.9, accumulate=3),
}


def assert_equal_bytes(plan: Plan, kept: Plan, steps: int = 6) -> None:
    expected, found = results(kept, steps), results(plan, steps)
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if found[name] != value] == []


@pytest.mark.one_in(3)
@backends
@pytest.mark.parametrize(
    ("make", "layers"),
    [(deep, 8), pytest.param(residual, 4, marks=pytest.mark.slow), (dropped, 4)],
)
def test_a_budget_that_is_kept_by_computing_again_changes_no_bit(
    make: Any, layers: int, backend: str
) -> None:
    net = make(layers, 64)
    kept = gc.compile(net, batch=192, optimizer=SGD, backend=backend)
    plan = gc.compile(net, batch=192, optimizer=SGD, backend=backend, budget=tight(kept))
    assert plan.memory.total <= tight(kept) < kept.memory.total
    assert clones(plan, "step")
    assert_equal_bytes(plan, kept)


@pytest.mark.one_in(4)
@backends
@pytest.mark.slow
@pytest.mark.parametrize("batch", [64, 512])
@pytest.mark.parametrize(("make", "layers"), [(deep, 50), (residual, 25)])
def test_fifty_layers_in_half_of_the_arena(
    make: Any, layers: int, batch: int, backend: str
) -> None:
    net = make(layers, 128)
    kept = gc.compile(net, batch=batch, optimizer=SGD, backend=backend)
    plan = gc.compile(net, batch=batch, optimizer=SGD, backend=backend, budget=halved(kept))
    assert plan.memory.total <= halved(kept)
    for told in repeated(plan, kept):
        assert told.share < (0.2 if make is deep else 0.07)
    assert_equal_bytes(plan, kept)


@pytest.mark.one_in(12)
@pytest.mark.parametrize(
    "backend", [*BACKENDS[:1], pytest.param(BACKENDS[-1], marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer(optimizer: Any, backend: str) -> None:
    net = dropped(3, 16)
    kept = gc.compile(net, batch=64, optimizer=optimizer, backend=backend)
    plan = gc.compile(net, batch=64, optimizer=optimizer, backend=backend, budget=tight(kept))
    assert clones(plan, "accumulate" if optimizer.accumulate > 1 else "step")
    assert_equal_bytes(plan, kept, steps=4)


@pytest.mark.one_in(2)
@backends
def test_some_parameters_in_float64(backend: str) -> None:
    def compiled(budget: int | None) -> Plan:
        return gc.compile(
            residual(3, 16, "float64"),
            batch=64,
            optimizer=gc.Adam(),
            wrt=["affine_[1-5].*", "batchnorm_2.gamma"],
            outputs=["scores", "affine_3"],
            backend=backend,
            budget=budget,
        )

    kept = compiled(None)
    plan = compiled(tight(kept))
    assert clones(plan, "step")
    assert_equal_bytes(plan, kept, steps=5)


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10_000))
def test_any_budget_down_to_the_least(seed: int) -> None:
    check_random(seed, "numpy")


@pytest.mark.one_in(2)
@pytest.mark.slow
@backends
def test_any_budget_down_to_the_least_for_many_nets(backend: str) -> None:
    for seed in range(50):
        check_random(seed, backend)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [pytest.param(3, marks=pytest.mark.slow), 6])
def test_any_budget_down_to_the_least_on_native(seed: int) -> None:
    check_random(seed, BACKENDS[-1])


def check_random(seed: int, backend: str) -> None:
    """Random nets, batches and budgets; in bytes against the plan that keeps everything."""
    r = random.Random(seed)
    net, n = random_net(r, r.choice(["float32", "float64"])), r.choice([17, 64])
    optimizer = r.choice(list(OPTIMIZERS.values()))
    if not trainable(net):
        return
    kept = gc.compile(net, batch=n, optimizer=optimizer, backend=backend)
    least = least_total(kept)
    assert least <= kept.memory.total
    if least == kept.memory.total:
        return
    budget = r.randint(least, kept.memory.total - 1)
    plan = gc.compile(net, batch=n, optimizer=optimizer, backend=backend, budget=budget)
    assert plan.memory.total <= budget
    # Or else it may be enough not to repeat for speed, or to keep nothing of the state.
    if not repeats(kept) and budget < kept.without_kept.memory.total:
        assert any(clones(plan, name) for name in plan.programs)
    found = [random_results(each, n) for each in (kept, plan)]
    assert found[0] == found[1]


def random_results(plan: Plan, n: int) -> dict[str, bytes]:
    ex = gc.Executor(plan, seed=1)
    step = "accumulate" if plan.accumulate > 1 else "step"
    found: dict[str, bytes] = {}
    for seed in range(4):
        feeds = random_feeds(plan.declared, n - seed, seed)
        loss = ex.step({name: feeds[name] for name in plan.programs[step].feeds})
        found[f"loss {seed}"] = np.float64(loss).tobytes()
    ex.forward({name: feeds[name] for name in plan.programs["grad"].feeds}, train=True)
    found |= {f"d_{name}": value.tobytes() for name, value in ex.backward().items()}
    return found | {name: value.tobytes() for name, value in ex.snapshot().items()}


# ---------------------------------------------------------------- what a budget does not change


def test_a_budget_that_is_kept_anyway_changes_nothing() -> None:
    kept = gc.compile(deep(3, 32), batch=64, optimizer=SGD)
    plan = gc.compile(deep(3, 32), batch=64, optimizer=SGD, budget=kept.memory.total)
    assert str(plan) == str(kept)
    assert plan.report() == kept.report()
    assert fitted(kept, kept.memory.total) is kept


def test_inference_stays_as_it_is() -> None:
    kept = gc.compile(dropped(4, 16), batch=64, optimizer=SGD)
    plan = gc.compile(dropped(4, 16), batch=64, optimizer=SGD, budget=tight(kept))
    for name in ("infer", "apply"):
        assert str(plan.programs[name]) == str(kept.without_kept.programs[name])


def test_a_state_that_is_an_output_may_be_read_again_too() -> None:
    """They have one copy of it."""
    net = dropped(4, 16)
    net.output("drawn", net["draws"])
    kept = gc.compile(net, batch=64, optimizer=SGD)
    plan = gc.compile(net, batch=64, optimizer=SGD, budget=tight(kept))
    assert plan.memory.total < kept.memory.total
    assert "draws.before" in plan.programs["grad"].graph


def test_without_training_there_is_nothing_to_compute_again() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 8)), 8))
    kept = gc.compile(net, batch=64)
    needed = kept.without_kept.memory.total
    assert least_total(kept) == smallest(kept).memory.total == needed
    with pytest.raises(gc.BudgetError, match=r"batch=[0-9]+ fits$"):
        gc.compile(net, batch=64, budget=needed - 1)


@pytest.mark.one_in(2)
@backends
def test_more_barriers_come_before_recomputation(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan for several threads keeps more; a budget takes that first, and changes no bit."""
    monkeypatch.setattr(usable_cores, "cores", lambda: 2)
    net = deep(6, 64)
    one, kept = (
        gc.compile(net, batch=48, optimizer=SGD, backend=backend, threads=threads)
        for threads in (1, 2)
    )
    assert (one.memory.arena < kept.memory.arena) == (backend == "native")
    budget = kept.memory.total - (backend == "native")
    plan = gc.compile(net, batch=48, optimizer=SGD, backend=backend, threads=2, budget=budget)
    assert plan.memory.arenas == one.memory.arenas
    assert not recomputes(plan)
    assert_equal_bytes(plan, kept)


def test_the_pass_can_be_left_out() -> None:
    kept = gc.compile(deep(4, 32), batch=1024, optimizer=SGD, backend="numpy")
    assert tight(kept) < kept.memory.total
    with pytest.raises(gc.BudgetError, match=r"batch=[0-9]+ fits$"):
        gc.compile(
            deep(4, 32),
            batch=1024,
            optimizer=SGD,
            backend="numpy",
            budget=tight(kept),
            passes=gc.passes.without("rematerialize"),
        )


def test_passes_of_the_users_own_still_run() -> None:
    seen: list[int] = []

    def look(graph: gc.Graph) -> gc.Graph:
        seen.append(len(graph))
        return graph

    net = residual(3, 16)
    kept = gc.compile(net, batch=64, optimizer=SGD)
    passes = gc.passes.DEFAULT.after("rematerialize", look)
    plan = gc.compile(net, batch=64, optimizer=SGD, budget=tight(kept), passes=passes)
    assert [record.name for record in plan.graphs["step"]][-2:] == ["rematerialize", "look"]
    assert len(plan.programs["step"].graph) in seen


# ---------------------------------------------------------------- what does not fit


@pytest.mark.one_in(2)
@backends
def test_a_refusal_names_the_least_memory_and_the_largest_batch(backend: str) -> None:
    def compiled(batch: int, budget: int | None) -> Plan:
        return gc.compile(
            residual(1, 16), batch=batch, optimizer=SGD, backend=backend, budget=budget
        )

    kept = compiled(256, None)
    budget = least_total(kept) - 10_000
    with pytest.raises(gc.BudgetError) as caught:
        compiled(256, budget)
    text = str(caught.value)
    least = int(re.search(r"least +([\d,]+) bytes", text)[1].replace(",", ""))  # type: ignore[index]
    assert compiled(256, least).memory.total <= least
    fits, without = map(int, re.findall(r"batch=(\d+)", text))
    assert compiled(fits, budget).memory.total <= budget
    with pytest.raises(gc.BudgetError):
        compiled(fits + 1, budget)
    assert compiled(without, None).memory.total <= budget < compiled(without + 1, None).memory.total
    assert without < fits < 256


@pytest.mark.slow
def test_the_largest_batch_may_be_larger_than_the_plans() -> None:
    kept = gc.compile(deep(5, 32), batch=32, optimizer=SGD, backend="numpy")
    budget = 2 * kept.memory.total
    fits = largest_batch(kept, budget)
    assert fits > largest_batch_kept(kept, budget) > 32
    gc.compile(deep(5, 32), batch=fits, optimizer=SGD, backend="numpy", budget=budget)
    with pytest.raises(gc.BudgetError):
        gc.compile(deep(5, 32), batch=fits + 1, optimizer=SGD, backend="numpy", budget=budget)


def test_what_inference_keeps_of_the_state_is_not_in_the_least_memory() -> None:
    """With one thread, whose programs need no more barriers to keep less."""
    net = gc.Net("kept")
    h = gc.relu(net.input("x", (gc.N, 8)))
    for name in "uvw":
        h = gc.tanh(h @ gc.exp(net.parameter(name, (8, 8))))
    net.loss("loss", gc.mean(h))
    plan = gc.compile(net, batch=32, optimizer=SGD, backend="numpy")
    assert PREPARE in plan.programs
    least = smallest(plan).memory
    copies = 3 * 8 * 8 * 4
    assert least.total <= plan.memory.total - copies
    assert largest_batch(plan, least.total) >= largest_batch_kept(plan, least.total) > 0


def test_no_batch_fits_below_the_parameters() -> None:
    kept = gc.compile(deep(3, 32), batch=32, optimizer=SGD, backend="numpy")
    assert largest_batch(kept, 1000) == largest_batch_kept(kept, 1000) == 0
    with pytest.raises(gc.BudgetError, match="not even batch=1 fits"):
        gc.compile(deep(3, 32), batch=32, optimizer=SGD, backend="numpy", budget=1000)


# ---------------------------------------------------------------- what is told


def test_the_price_is_that_of_the_programs() -> None:
    kept = gc.compile(deep(6, 32), batch=1024, optimizer=SGD, backend="numpy")
    plan = gc.compile(deep(6, 32), batch=1024, optimizer=SGD, backend="numpy", budget=tight(kept))
    told = {each.program: each for each in repeated(plan, keeping_all(plan))}
    assert "step" in told
    again = [name.removesuffix(".recomputed") for name in told["step"].nodes]
    each = (2 * 32 + 1 + 2) * 1024 * 32  # a product, its bias, and relu's comparison and choice
    assert told["step"].flops - told["step"].flops_kept == each * len(again)
    assert told["step"].ops == (("affine_relu", len(again)),)
    assert (told["step"].arena, told["step"].arena_kept) == (
        plan.programs["step"].arena.nbytes,
        kept.programs["step"].arena.nbytes,
    )
    assert f"  {told['step']}" in plan.report().splitlines()


@pytest.mark.slow
def test_a_saved_model_keeps_its_budget(tmp_path: Any) -> None:
    kept = gc.compile(dropped(4, 16), batch=64, optimizer=SGD, backend="numpy")
    plan = gc.compile(dropped(4, 16), batch=64, optimizer=SGD, backend="numpy", budget=tight(kept))
    ex = gc.Executor(plan, seed=0)
    ex.step(arrays(plan, 64, 0))
    again = gc.load(gc.save(tmp_path / "model.gc", ex))
    assert str(again.plan) == str(plan)
    assert again.step(arrays(plan, 64, 1)) == ex.step(arrays(plan, 64, 1))


def repeats(plan: gc.Plan) -> bool:
    return any(row.name == "repeat_elements" for rows in plan.graphs.values() for row in rows)
