"""gc.fit of populations: each member trains as its net does alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.init import generator
from graphc.train.members.rows import folds_of
from graphc.view import plots
from tests.extras import needs
from tests.train.nets import BATCH, classes, table

X, Y = table(45)
HELD = table(20, seed=1)
SEEDS, RATES = (3, 1, 4, 15), (0.01, 0.03, 0.003, 0.1)


@pytest.fixture(scope="module", params=["numpy", "native"])
def plan(request: pytest.FixtureRequest) -> gc.Plan:
    return gc.compile(classes(), batch=BATCH, optimizer=gc.Adam(lr=0.01), backend=request.param)


@pytest.fixture(scope="module")
def weighted_plan() -> gc.Plan:
    net = classes(weighted=True)
    return gc.compile(net, batch=BATCH, optimizer=gc.Adam(lr=0.01), backend="numpy")


def population_of(plan: gc.Plan) -> gc.Population:
    return gc.Population(plan, seeds=SEEDS, hyper={"lr": RATES})


def alone(plan: gc.Plan, member: int) -> gc.Executor:
    ex = gc.Executor(plan, seed=SEEDS[member])
    ex.hyper["lr"] = RATES[member]
    return ex


def assert_trained_alike(
    population: gc.Population, histories: Sequence[gc.History], options: Sequence[Any]
) -> None:
    """Assert that each member is as `gc.fit` leaves its net with these arguments."""
    for i, (data, named) in enumerate(options):
        ex = alone(population.plan, i)
        history = gc.fit(ex, data, **named)
        for name, array in ex.state.items():
            assert population.state[name][i].tobytes() == array.tobytes(), (i, name)
        assert histories[i].loss == history.loss
        assert histories[i].stopped == history.stopped
        np.testing.assert_allclose(histories[i].val_loss, history.val_loss, rtol=1e-6)
        assert histories[i].metrics.keys() == history.metrics.keys()
        for name, values in history.metrics.items():
            np.testing.assert_allclose(histories[i].metrics[name], values, rtol=1e-6)


def test_members_that_share_their_batches(plan: gc.Plan) -> None:
    population = population_of(plan)
    options = {"epochs": 2, "validation": HELD, "seed": 7}
    histories = gc.fit(population, (X, Y), **options)
    assert_trained_alike(population, histories, [((X, Y), options)] * len(SEEDS))


def test_members_with_orders_of_their_own(plan: gc.Plan) -> None:
    population, seeds = population_of(plan), [5, 6, 5, 8]
    histories = gc.fit(population, (X, Y), epochs=2, seed=seeds, batch=7)
    options = [((X, Y), {"epochs": 2, "seed": seed, "batch": 7}) for seed in seeds]
    assert_trained_alike(population, histories, options)


def test_members_of_folds(plan: gc.Plan) -> None:
    population, order = population_of(plan), np.random.default_rng(0).permutation(45)
    folds = [(order[20:], order[:20]), (order[:31], order[31:])]
    histories = gc.fit(population, (X, Y), folds=folds, epochs=2, seed=2)
    options = [
        ((X[train], Y[train]), {"epochs": 2, "seed": 2, "validation": (X[held], Y[held])})
        for train, held in folds * 2
    ]
    assert_trained_alike(population, histories, options)


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_counted_folds_hold_each_row_once_and_like_shares_of_classes(dtype: str) -> None:
    folds = folds_of(4, {"x": X, "y": Y.astype(dtype)}, 45, seed=0)
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(45))
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(45))
        for label in range(3):
            assert abs((Y[held] == label).sum() - (label == Y).sum() / 4) < 1
    others = folds_of(4, {"x": X, "y": Y}, 45, seed=1)
    assert [held.tolist() for _, held in folds] != [held.tolist() for _, held in others]
    sizes = [len(held) for _, held in folds_of(4, {"x": X}, 45, seed=0)]
    assert sorted(sizes) == [11, 11, 11, 12]


def test_members_of_bootstrap_samples(plan: gc.Plan) -> None:
    population = population_of(plan)
    histories = gc.fit(population, (X, Y), bootstrap=True, epochs=2, validation=HELD)
    samples = [generator(seed, "bootstrap").integers(45, size=45) for seed in SEEDS]
    assert len(set(samples[0])) < 45 and samples[0].tolist() != samples[1].tolist()
    named = {"epochs": 2, "validation": HELD}
    assert_trained_alike(population, histories, [((X[own], Y[own]), named) for own in samples])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("folds", [None, [(np.arange(30), np.arange(30, 45))]])
def test_a_stopped_member_runs_no_more(
    plan: gc.Plan, folds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    population, ran = population_of(plan), []
    step, steps_of = gc.Population.step, gc.Population.steps

    def recorded(self: gc.Population, *args: Any, **named: Any) -> Any:
        ran.extend(named["members"])
        return step(self, *args, **named)

    def several(self: gc.Population, *args: Any, **named: Any) -> Any:
        found = steps_of(self, *args, **named)
        for member, losses in zip(named["members"], found, strict=True):
            ran.extend([member] * len(losses))
        return found

    monkeypatch.setattr(gc.Population, "step", recorded)
    monkeypatch.setattr(gc.Population, "steps", several)
    held = HELD if folds is None else (X[30:], Y[30:])
    rows = (X, Y) if folds is None else (X[:30], Y[:30])
    stopping = {"epochs": 12, "callbacks": [gc.EarlyStopping(patience=1)]}
    validation = {"validation": held} if folds is None else {"folds": folds}
    histories = gc.fit(population, (X, Y), **stopping, **validation)
    epochs = [len(history.epochs) for history in histories]
    assert len(set(epochs)) > 1 and min(epochs) < 12
    steps = -(-len(rows[0]) // BATCH)
    counts = [ran.count(member) for member in range(len(SEEDS))]
    assert counts == [steps * number for number in epochs]
    options = {**stopping, "validation": held}
    assert_trained_alike(population, histories, [(rows, options)] * len(SEEDS))


def test_weights_of_rows_and_classes(weighted_plan: gc.Plan) -> None:
    population = population_of(weighted_plan)
    folds = [(np.arange(15, 45), np.arange(15)), (np.arange(30), np.arange(30, 45))]
    weight = np.random.default_rng(1).uniform(0.5, 2, 45).astype(np.float32)
    balance = {0: 2.0, 1: 0.5}
    histories = gc.fit(population, (X, Y), folds=folds, sample_weight=weight, class_weight=balance)
    options = [
        (
            (X[train], Y[train]),
            {
                "sample_weight": weight[train],
                "class_weight": balance,
                "validation": (X[held], Y[held], weight[held]),
            },
        )
        for train, held in folds * 2
    ]
    assert_trained_alike(population, histories, options)


def test_batches_of_a_function(plan: gc.Plan) -> None:
    def batches(epoch: int) -> Iterator[tuple[Any, Any]]:
        for start in range(0, 24, BATCH):
            yield X[start : start + BATCH] * epoch, Y[start : start + BATCH]

    population = population_of(plan)
    histories = gc.fit(population, batches, epochs=2)
    assert_trained_alike(population, histories, [(batches, {"epochs": 2})] * len(SEEDS))


def test_statistics_are_those_of_the_rows_of_a_member() -> None:
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    scores = gc.affine(gc.standardize(x, name="s"), 3)
    net.loss("loss", gc.softmax_loss(scores, y))
    plan = gc.compile(net, batch=BATCH, optimizer=gc.SGD(lr=0.1), backend="numpy")
    folds = [(np.arange(30), np.arange(30, 45)), (np.arange(15, 45), np.arange(15))]
    population = gc.Population(plan, members=2)
    gc.fit(population, (X, Y), folds=folds)
    for i, (train, _) in enumerate(folds):
        np.testing.assert_allclose(population.state["s.mean"][i], X[train].mean(0), rtol=1e-5)
        np.testing.assert_allclose(population.state["s.scale"][i], X[train].std(0), rtol=1e-5)
    gc.fit(population, (X + 5, Y))
    np.testing.assert_allclose(population.state["s.mean"][0], X[:30].mean(0), rtol=1e-5)


def test_a_member_whose_loss_is_not_finite_stops_alone() -> None:
    net = gc.Net("square")
    x = net.input("x", (gc.N, 2))
    net.loss("loss", gc.mean(gc.affine(x, 1) ** 2))
    plan = gc.compile(net, batch=BATCH, optimizer=gc.SGD(lr=0.1), backend="numpy")
    population = gc.Population(plan, seeds=[0, 0], hyper={"lr": [0.1, 1e30]})
    histories = gc.fit(population, X[:, :2], epochs=3)
    assert histories[0].epochs == [1, 2, 3] and not histories[0].stopped
    assert histories[1].epochs == [] and "not finite" not in histories[0].stopped
    assert "in epoch 1, step" in histories[1].stopped
    ex = gc.Executor(plan)
    assert gc.fit(ex, X[:, :2], epochs=3).loss == histories[0].loss


def test_the_best_member_and_the_table() -> None:
    found = gc.Histories(gc.History() for _ in range(3))
    numbers = [[(0.5, 0.9, 0.1)], [(0.4, 0.3, 0.2), (0.3, 0.8, 0.7)], [(0.2, 0.4, 0.5)]]
    for history, epochs in zip(found, numbers, strict=True):
        for loss, val_loss, accuracy in epochs:
            history.add(loss, 1.0, val_loss, {"accuracy": accuracy})
    assert (found.best(), found.best("loss"), found.best("accuracy", largest=True)) == (1, 2, 1)
    assert str(found).splitlines() == [
        "member  epochs    loss  val_loss  accuracy",
        "     0       1  0.5000    0.9000    0.1000",
        "     1       2  0.3000    0.8000    0.7000",
        "     2       1  0.2000    0.4000    0.5000",
    ]


def test_the_curves_of_all_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("matplotlib")
    made, original = [], plots.new_figure

    def new_figure(*args: Any) -> Any:
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(plots, "new_figure", new_figure)
    found = gc.Histories(gc.History() for _ in range(3))
    for number, history in enumerate(found):
        for epoch in range(number + 1):
            history.add(0.5, 1.0, 0.25 + number + epoch, {"accuracy": 0.5})
    found.plot(tmp_path / "curves.svg")
    losses, metrics = made[0].axes
    drawn = [line.get_ydata().tolist() for line in losses.lines]
    for history in found:
        assert history.loss in drawn and history.val_loss in drawn
    assert sum(len(line.get_ydata()) for line in metrics.lines) == 6
    assert len({str(line.get_color()) for line in metrics.lines if len(line.get_ydata())}) == 3


def test_mistakes_change_nothing(plan: gc.Plan, tmp_path: Path) -> None:
    population = population_of(plan)
    before = population.snapshot()
    mistakes: list[dict[str, Any]] = [
        {"folds": 3},
        {"folds": 1},
        {"folds": 100},
        {"folds": "all"},
        {"folds": [(np.arange(30), np.arange(44, 46))] * 2},
        {"folds": [(np.arange(30), [0.5])] * 2},
        {"folds": 2, "validation": HELD},
        {"checkpoint": gc.Checkpoints(tmp_path / "run", every=3)},
        {"resume": True},
        {"record": tmp_path / "run"},
        {"by_length": True},
        {"seed": [1, 2]},
        {"seed": [1, 2, 3, -1]},
        {"callbacks": [gc.CsvLog(tmp_path / "run.csv")]},
        {"callbacks": [gc.EarlyStopping(patience=1)]},
    ]
    for named in mistakes:
        with pytest.raises(gc.GraphError):
            gc.fit(population, (X, Y), **named)
    with pytest.raises(gc.GraphError, match="arrays only"):
        gc.fit(population, lambda epoch: iter([(X[:8], Y[:8])]), bootstrap=True)
    for named in ({"folds": 2}, {"bootstrap": True}):
        with pytest.raises(gc.GraphError, match="not for one executor"):
            gc.fit(gc.Executor(plan), (X, Y), **named)
    after = population.snapshot()
    assert all(after[name].tobytes() == array.tobytes() for name, array in before.items())


def numbers(histories: gc.Histories) -> list[Any]:
    return [(h.epochs, h.loss, h.val_loss, h.metrics, h.stopped) for h in histories]


KINDS: list[dict[str, Any]] = [
    {"validation": HELD, "callbacks": [gc.EarlyStopping(patience=2)]},
    {"folds": 2, "seed": [5, 6, 5, 8]},
    {"bootstrap": True},
]


@pytest.mark.parametrize("options", KINDS)
def test_a_run_goes_on_from_its_checkpoint(
    plan: gc.Plan, options: dict[str, Any], tmp_path: Path
) -> None:
    straight, population = population_of(plan), population_of(plan)
    histories = gc.fit(straight, (X, Y), epochs=8, **options)
    run = gc.Checkpoints(tmp_path / "run")
    gc.fit(population, (X, Y), epochs=3, checkpoint=run, **options)
    assert run.last is not None and gc.load(run.last).seeds == SEEDS
    for _ in range(2):  # the second time nothing is left to do
        population = population_of(plan)
        again = gc.fit(population, (X, Y), epochs=8, checkpoint=run, resume=True, **options)
        assert numbers(again) == numbers(histories)
        for name, array in straight.state.items():
            assert population.state[name].tobytes() == array.tobytes(), name


def test_a_stopped_member_stays_stopped(plan: gc.Plan, tmp_path: Path) -> None:
    found = []
    for epochs in (2, 4):
        population = gc.Population(plan, seeds=SEEDS, hyper={"lr": [0.01, 0.01, 1e38, 0.01]})
        options = {"checkpoint": tmp_path / "run", "resume": True, "epochs": epochs}
        found.append(gc.fit(population, (X, Y), **options))
    for histories, epochs in zip(found, (2, 4), strict=True):
        assert [len(h.epochs) for h in histories] == [
            epochs,
            epochs,
            len(found[0][2].epochs),
            epochs,
        ]
    assert found[0][2].stopped and found[1][2].stopped == found[0][2].stopped


def test_another_run_is_not_continued(plan: gc.Plan, tmp_path: Path) -> None:
    run = tmp_path / "run"
    gc.fit(population_of(plan), (X, Y), epochs=2, checkpoint=run)

    def refused(told: str, ex: gc.Population | gc.Executor, **options: Any) -> None:
        with pytest.raises(gc.GraphError, match=told):
            gc.fit(ex, (X, Y), **{"epochs": 3, "checkpoint": run, "resume": True, **options})

    refused("holds checkpoints of an earlier run", population_of(plan), resume=False)
    refused("already has 2 epochs", population_of(plan), epochs=1)
    refused("had bootstrap False", population_of(plan), bootstrap=True)
    refused(r"had members with the seeds \[3, 1", gc.Population(plan, seeds=[3, 1]))
    other = population_of(plan)
    other.hyper["lr"] = [*RATES[:3], 0.5]
    refused("had members with other hyper-parameters", other)
    other.hyper["lr"] = 0.5
    refused("had members with other hyper-parameters", other)
    refused("trained a population", gc.Executor(plan))
    gc.fit(gc.Executor(plan), (X, Y), checkpoint=tmp_path / "alone")
    refused("trained an executor", population_of(plan), checkpoint=tmp_path / "alone")
