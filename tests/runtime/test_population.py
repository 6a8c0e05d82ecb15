"""Populations: each member has the bits of the same net trained alone."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.runtime.columns import Columns
from graphc.runtime.members.feeds import MemberFeeds
from graphc.runtime.members.population import MemberRuns
from tests.backends.native.shared_runs import shared_runs

ROWS, WIDTH, CLASSES = 60, 12, 4
SEEDS = (3, 1, 4, 15, 9)
RATES = (0.1, 0.05, 0.2, 0.01, 0.3)


def net_of(*, batchnorm: bool = True, dropout: bool = True) -> gc.Net:
    net = gc.Net("classes")
    x, y = net.input("x", (gc.N, WIDTH)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 16))
    h = gc.batchnorm(h) if batchnorm else h
    h = gc.dropout(h, keep_prob=0.8) if dropout else h
    scores = net.output("scores", gc.affine(h, CLASSES))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def plan_of(threads: int | None = None, batch: int = 8, **options: Any) -> gc.Plan:
    optimizer = gc.AdamW(lr=0.01, weight_decay=0.01)
    return gc.compile(net_of(), batch=batch, optimizer=optimizer, threads=threads, **options)


@pytest.fixture(scope="module", params=["native", "numpy"])
def plan(request: pytest.FixtureRequest) -> gc.Plan:
    return plan_of(backend=request.param)


def data(rows: int = ROWS) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, WIDTH), np.float32), rng.integers(0, CLASSES, rows)


def population_of(plan: gc.Plan) -> gc.Population:
    return gc.Population(plan, members=len(SEEDS), seeds=SEEDS, hyper={"lr": RATES})


def alone(plan: gc.Plan) -> list[gc.Executor]:
    """Return the executors that members are to equal."""
    found = [gc.Executor(plan, seed=seed) for seed in SEEDS]
    for ex, rate in zip(found, RATES, strict=True):
        ex.hyper["lr"] = rate
    return found


def assert_equal(population: gc.Population, executors: list[gc.Executor]) -> None:
    """Assert that members and executors have the same bits."""
    state = population.state
    for i, ex in enumerate(executors):
        for name, array in ex.state.items():
            assert state[name][i].tobytes() == array.tobytes(), (i, name)
            assert population[i].state[name].tobytes() == array.tobytes(), (i, name)


def batches(steps: int, size: int = 8) -> Iterator[tuple[Array, Array]]:
    x, y = data()
    rng = np.random.default_rng(1)
    for _ in range(steps):
        rows = rng.integers(0, ROWS, size)
        yield x[rows], y[rows]


def test_members_share_a_batch(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    for x, y in batches(6):
        losses = population.step(x=x, y=y)
        assert losses.tolist() == [ex.step(x=x, y=y) for ex in executors]
    assert_equal(population, executors)


def test_members_have_batches_of_their_own(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    rng = np.random.default_rng(2)
    x, y = data()
    for n in (8, 3, 8, 1):
        rows = rng.integers(0, ROWS, (len(SEEDS), n))
        losses = population.step(x=x[rows], y=y[rows])
        assert losses.tolist() == [
            ex.step(x=x[own], y=y[own]) for ex, own in zip(executors, rows, strict=True)
        ]
    assert_equal(population, executors)


def test_members_take_rows_of_one_array(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    rng = np.random.default_rng(2)
    x, y = data()
    for _ in range(4):
        rows = [rng.integers(0, ROWS, rng.integers(1, 9)) for _ in SEEDS]
        losses = population.step(x=x, y=y, rows=rows)
        assert losses.tolist() == [
            ex.step(x=x[own], y=y[own]) for ex, own in zip(executors, rows, strict=True)
        ]
    assert_equal(population, executors)


@pytest.mark.needs("native")
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_take_whole_members(threads: int) -> None:
    with shared_runs(threads):
        plan = plan_of(threads, backend="native")
        population, executors = population_of(plan), alone(plan)
        x, y = data()
        for _ in range(4):
            rows = [np.arange(i, 2 * i + 1) for i in range(len(SEEDS))]
            with pytest.MonkeyPatch.context() as patch:
                patch.delattr(MemberRuns, "run")  # in which members take turns
                losses = population.step(x=x, y=y, rows=rows)
                scores = population.forward(x=x[:8], members=[3, 1])["scores"]
                predicted = population.predict(x, members=[3, 1])
                evaluated = population.evaluate(x, y, members=[3, 1])["loss"]
            assert losses.tolist() == [
                ex.step(x=x[own], y=y[own]) for ex, own in zip(executors, rows, strict=True)
            ]
            for found, i in zip(scores, (3, 1), strict=True):
                assert found.tobytes() == executors[i].forward(x=x[:8])["scores"].tobytes()
            assert evaluated.tolist() == [executors[i].evaluate(x, y)["loss"] for i in (3, 1)]
            for found, i in zip(predicted, (3, 1), strict=True):
                assert found.tobytes() == executors[i].predict(x).tobytes()
        assert_equal(population, executors)


def test_steps_are_those_of_one_call_each(plan: gc.Plan) -> None:
    """Members with fewer rows make fewer steps, and the last one takes the rest."""
    x, y = data()
    population, executors = population_of(plan), alone(plan)
    rng = np.random.default_rng(2)
    for lengths in ((16, 21, 3, 8, 24), (17, 18, 1, 8, 23), (5, 5, 5, 5, 5), (5, 5, 5, 5, 1)):
        rows = [rng.integers(0, ROWS, n) for n in lengths]
        found = population.steps(x=x, y=y, rows=rows, batch=6)
        for ex, own, losses in zip(executors, rows, found, strict=True):
            pieces = [own[i : i + 6] for i in range(0, len(own), 6)]
            assert losses.tolist() == [ex.step(x=x[piece], y=y[piece]) for piece in pieces]
    found = population.steps(x=x, y=y, rows=[range(20), range(9)], batch=8, members=[3, 1])
    assert list(map(len, found)) == [3, 2]
    for number, most in ((3, 20), (1, 9)):
        for start in range(0, most, 8):
            stop = min(start + 8, most)
            executors[number].step(x=x[start:stop], y=y[start:stop])
    assert_equal(population, executors)


@pytest.mark.parametrize(
    ("rows", "batch", "error", "words"),
    [
        ([range(ROWS - 8, ROWS + 1)] * 5, 8, gc.FeedError, f"row {ROWS}"),
        ([range(9)] * 5, 9, gc.FeedError, "9 rows"),
        ([range(8)] * 5, 0, gc.GraphError, "batch is 0"),
        ([range(8)] * 4, 8, gc.FeedError, "4 lists for 5 members"),
    ],
)
def test_mistakes_in_the_rows_of_steps(
    plan: gc.Plan, rows: Any, batch: int, error: type[Exception], words: str
) -> None:
    x, y = data()
    with pytest.raises(error, match=words):
        population_of(plan).steps(x=x, y=y, rows=rows, batch=batch)


def test_a_member_that_does_not_run_does_not_change(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    (x, y), *_ = batches(1)
    losses = population.step(x=x, y=y, members=[3, 0])
    assert losses.tolist() == [executors[i].step(x=x, y=y) for i in (3, 0)]
    assert_equal(population, executors)
    own = np.stack([x, x[::-1]])
    losses = population.step(x=own, y=np.stack([y, y[::-1]]), members=[1, -1])
    assert losses.tolist() == [executors[1].step(x=x, y=y), executors[4].step(x=x[::-1], y=y[::-1])]
    assert_equal(population, executors)


def test_inference_is_that_of_each(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    x, y = data()
    for found in (population.forward(x=x[:8], y=y[:8]), population.forward(x=x[:5])):
        n = found["scores"].shape[1]
        feeds = {"x": x[:n]} if n == 5 else {"x": x[:n], "y": y[:n]}
        for i, ex in enumerate(executors):
            for name, array in ex.forward(feeds).items():
                assert found[name][i].tobytes() == array.tobytes()
    rows = [[0, 1], [7, 7], [59, 2], [4, 4], [5, 6]]
    scores = population.forward(x=x, rows=rows)["scores"]
    for i, ex in enumerate(executors):
        assert scores[i].tobytes() == ex.forward(x=x[rows[i]])["scores"].tobytes()


def test_inference_of_one_kind_is_prepared_once(
    plan: gc.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reads feeds of its own, converted where they have another dtype, into new arrays."""
    population, executors = population_of(plan), alone(plan)
    (x, y), spread, prepared = data(), MemberFeeds.spread, []
    monkeypatch.setattr(MemberFeeds, "spread", lambda *a: prepared.append(1) or spread(*a))
    found = []
    for t, dtype in enumerate([np.float32, np.float64, np.float32, np.float64]):
        own = np.stack([x[t + i : t + i + 8] for i in range(len(SEEDS))]).astype(dtype)
        labels = np.stack([y[:8]] * len(SEEDS))
        found.append(population.forward(x=own, y=labels.astype(np.int32)))
        for i, ex in enumerate(executors):
            expected = {name: a.tobytes() for name, a in ex.forward(x=own[i], y=y[:8]).items()}
            assert {name: a[i].tobytes() for name, a in found[t].items()} == expected
        if t == 1:
            population.step(x=x[:8], y=y[:8])
            for ex in executors:
                ex.step(x=x[:8], y=y[:8])
    assert len(prepared) == (5 if plan.backend == "numpy" else 2)
    outputs = [each["scores"] for each in found]
    assert not any(np.array_equal(a, b) for a, b in combinations(outputs, 2))
    with pytest.raises(gc.FeedError, match="label"):
        population.forward(x=own, y=labels + CLASSES)
    with pytest.raises(gc.FeedError, match="float"):
        population.forward(x=own, y=labels + 0.5)


def test_a_mistake_in_a_later_step_changes_nothing(plan: gc.Plan) -> None:
    population, (x, y) = population_of(plan), data()
    before = population.snapshot()
    rows, wrong = [range(24)] * len(SEEDS), np.where(np.arange(ROWS) == 20, CLASSES, y)
    with pytest.raises(gc.FeedError, match="label"):
        population.steps(x=x, y=wrong, rows=rows, batch=8)
    with pytest.raises(gc.FeedError, match="row 60"):
        population.steps(x=x, y=y, rows=[range(45, 61)] * len(SEEDS), batch=8)
    with pytest.raises(gc.FeedError, match="0 lists for 5 members"):
        population.steps(x=x, y=y, rows=None, batch=8)  # type: ignore[arg-type]
    assert all(before[name].tobytes() == a.tobytes() for name, a in population.snapshot().items())


def test_steps_on_few_rows_of_long_arrays_are_prepared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels are gathered before they are checked, and so are features of another dtype."""
    plan = plan_of(backend="native")
    population, executors = population_of(plan), alone(plan)
    x, y = (np.concatenate([part] * 200) for part in data())
    spread, prepared = MemberFeeds.spread, []
    monkeypatch.setattr(MemberFeeds, "spread", lambda *a: prepared.append(1) or spread(*a))
    rng = np.random.default_rng(2)
    for dtype in (np.float32, np.float64):
        feeds = {"x": x.astype(dtype), "y": y}
        for _ in range(3):
            rows = rng.integers(0, len(x), (len(SEEDS), 8))
            losses = population.step(feeds, rows=rows)
            own = [ex.step(x=x[few], y=y[few]) for ex, few in zip(executors, rows, strict=True)]
            assert losses.tolist() == own
    assert len(prepared) == 2
    before = population.snapshot()
    for wrong, message in ((-1, "row -1"), (len(x), f"row {len(x)}")):
        with pytest.raises(gc.FeedError, match=message):
            population.step(feeds, rows=np.full((len(SEEDS), 8), wrong))
    feeds["y"] = y + CLASSES
    with pytest.raises(gc.FeedError, match="label"):
        population.step(feeds, rows=rows)
    with pytest.raises(gc.FeedError, match="y"):
        population.step(x=x, y=y[: len(y) // 2], rows=rows)
    assert all(before[name].tobytes() == a.tobytes() for name, a in population.snapshot().items())


def test_predictions_of_any_number_of_rows(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    x, _ = data()
    each = population.predict(x)
    assert each.tobytes() == np.stack([ex.predict(x) for ex in executors]).tobytes()
    np.testing.assert_allclose(population.predict(x, combine="mean"), each.mean(0), rtol=1e-6)
    votes = population.predict(x, combine="vote")
    for row, vote in enumerate(votes):
        classes = [int(scores[row].argmax()) for scores in each]
        assert classes.count(vote) == max(map(classes.count, classes))
    some = population.predict(x, members=[2, 1])
    assert some.tobytes() == each[[2, 1]].tobytes()
    assert population.predict(x[:0]).shape == (len(SEEDS), 0, CLASSES)


def test_predictions_of_two_outputs_and_of_rows_in_the_last_axis() -> None:
    net = net_of()
    net.output("columns", gc.transpose(net["affine_2"]))
    plan = gc.compile(net, batch=8, backend="numpy")
    population = gc.Population(plan, seeds=SEEDS)
    x, _ = data()
    found = population.predict(x)
    assert found["columns"].shape == (len(SEEDS), CLASSES, ROWS)
    for i, seed in enumerate(SEEDS):
        for name, array in gc.Executor(plan, seed=seed).predict(x).items():
            assert found[name][i].tobytes() == array.tobytes()


def test_losses_of_any_number_of_rows(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    x, y = data()
    assert population.evaluate(x, y)["loss"].tolist() == [
        ex.evaluate(x, y)["loss"] for ex in executors
    ]
    rows = [range(0, 20), range(20, 60), [1], [2, 3], range(9)]
    assert population.evaluate(x=x, y=y, rows=rows)["loss"].tolist() == [
        ex.evaluate(x[list(own)], y[list(own)])["loss"]
        for ex, own in zip(executors, rows, strict=True)
    ]


def test_losses_of_rows_of_their_own(plan: gc.Plan) -> None:
    """A member's rows are cut into batches of its own, the last of which has the rest."""
    x, y = data()
    population, executors = population_of(plan), alone(plan)
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, ROWS, n) for n in (16, 21, 3, 8, 24)]
    members = [4, 0, 2]
    for asked in (range(len(SEEDS)), members):
        own = [rows[i] for i in asked]
        found = population.evaluate(x=x, y=y, rows=own, members=list(asked))
        for number, i in enumerate(asked):
            expected = executors[i].evaluate(x[rows[i]], y[rows[i]])
            assert {name: array[number] for name, array in found.items()} == expected


def test_an_executor_shares_the_state_of_its_member(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    for x, y in batches(2):
        assert population[1].step(x=x, y=y) == executors[1].step(x=x, y=y)
        assert population.step(x=x, y=y).tolist() == [ex.step(x=x, y=y) for ex in executors]
    assert_equal(population, executors)
    assert population[1] is population[1 - len(SEEDS)]
    assert [ex.state.seed for ex in population] == list(SEEDS)


def test_kept_members_keep_their_executors(plan: gc.Plan) -> None:
    population, executors = population_of(plan), alone(plan)
    fourth = population[4]
    population.keep([4, 1])
    assert len(population) == 2 and population[0] is fourth
    (x, y), *_ = batches(1)
    population.step(x=x, y=y)
    for ex in executors:
        ex.step(x=x, y=y)
    assert_equal(population, [executors[4], executors[1]])
    assert population.seeds == (SEEDS[4], SEEDS[1])


def test_a_copy_continues_as_its_source(plan: gc.Plan) -> None:
    population = population_of(plan)
    (x, y), *more = batches(3)
    population.step(x=x, y=y)
    population.copy(0, 3)
    for x, y in more:
        losses = population.step(x=x, y=y)
        assert losses[0] == losses[3] != losses[1]
    assert all((array[0] == array[3]).all() for array in population.state.values())


def test_hyper_parameters_of_members(plan: gc.Plan) -> None:
    population = population_of(plan)
    np.testing.assert_array_equal(population.hyper["lr"], np.array(RATES, np.float32))
    population.hyper["lr"] = population.hyper["lr"] / 2
    population[2].hyper["lr"] = 1.0
    found = [0.05, 0.025, 1.0, 0.005, 0.15]
    np.testing.assert_allclose(population.hyper["lr"], found, rtol=1e-6)
    for wrong in ([0.1], [0.1] * 4 + [np.nan], "fast"):
        with pytest.raises(gc.StateError):
            population.hyper["lr"] = wrong
    np.testing.assert_allclose(population.hyper["lr"], found, rtol=1e-6)
    population.hyper["lr"] = 0.5
    assert population.hyper["lr"].tolist() == [0.5] * len(SEEDS)


def test_a_saved_population_continues(plan: gc.Plan, tmp_path: Path) -> None:
    population = population_of(plan)
    steps = list(batches(4))
    for x, y in steps[:2]:
        population.step(x=x, y=y)
    loaded = gc.load(gc.save(tmp_path / "many.graphc", population))
    assert isinstance(loaded, gc.Population) and loaded.seeds == population.seeds
    for x, y in steps[2:]:
        assert loaded.step(x=x, y=y).tolist() == population.step(x=x, y=y).tolist()
    assert same(loaded.state, population.state)


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return one.keys() == other.keys() and all((one[k] == other[k]).all() for k in one)


def test_a_mistake_changes_no_member(plan: gc.Plan) -> None:
    population = population_of(plan)
    x, y = data()
    before = population.snapshot()
    wrong = np.array([y[:8]] * len(SEEDS))
    wrong[3, 2] = CLASSES
    mistakes: list[dict[str, Any]] = [
        {"x": x[:8], "y": wrong},
        {"x": x[:8], "y": wrong[:2]},
        {"x": x[:8]},
        {"x": x, "y": y},
        {"x": x, "y": y, "rows": [[0]] * 4 + [[ROWS]]},
        {"x": x, "y": y, "rows": [[0]] * 4 + [[-1]]},
        {"x": x, "y": y, "rows": [[0]] * 4 + [[]]},
        {"x": x, "y": y, "rows": [[0]] * 4 + [[0.5]]},
        {"x": x, "y": y, "rows": [[0]] * 4},
        {"x": x, "y": y, "rows": [range(9)] * 5},
        {"x": x[:8], "y": y[:8], "z": 1},
        {"x": x[:8, :3], "y": y[:8]},
    ]
    for feeds in mistakes:
        with pytest.raises(gc.FeedError):
            population.step(**feeds)
    for members in ([0, 0], [5], [-6]):
        with pytest.raises(gc.StateError):
            population.step(x=x[:8], y=y[:8], members=members)
    assert same(population.state, before)


def test_mistakes_in_the_making(plan: gc.Plan) -> None:
    for options in ({}, {"members": 0}, {"members": 3, "seeds": [1, 2]}, {"members": "all"}):
        with pytest.raises(gc.StateError):
            gc.Population(plan, **options)
    with pytest.raises(gc.StateError):
        gc.Population(plan, members=2, hyper={"lr": [1, 2, 3]})
    with pytest.raises(gc.StateError, match="Population takes a plan"):
        gc.Population("plan", members=2)  # type: ignore[arg-type]


def test_saved_states_are_restored(plan: gc.Plan) -> None:
    population = population_of(plan)
    saved = population.snapshot()
    (x, y), *_ = batches(1)
    losses = population.step(x=x, y=y)
    population.state = saved
    assert population.step(x=x, y=y).tolist() == losses.tolist()
    with pytest.raises(gc.StateError):
        population.state = {"draws": [1, 2, 3]}


class Fragile(gc.Op):
    """An identity whose rule fails at a negative number."""

    name = "fragile"

    def infer(self, types: Any) -> Any:
        return types[0]

    def reference(self, inputs: Any) -> Any:
        if inputs[0].min() < 0:
            raise ArithmeticError("negative")
        return inputs[0].copy()

    def grad(self, b: Any, inputs: Any, output: Any, cotangent: Any) -> Any:
        return [cotangent]


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_a_failure_half_way_breaks_the_population(backend: str) -> None:
    net = gc.Net("fragile")
    x = net.input("x", (gc.N, 2))
    net.loss("loss", gc.mean(gc.affine(gc.apply(Fragile(), x), 1) ** 2))
    plan = gc.compile(net, batch=2, optimizer=gc.SGD(lr=0.1), backend=backend)
    population = gc.Population(plan, members=3)
    good = np.ones((3, 2, 2), np.float32)
    bad = good.copy()
    bad[1] = -1
    saved = population.snapshot()
    with pytest.raises(ArithmeticError):
        population.step(x=bad)
    reads = population.step, population.forward, population.evaluate
    for work in (*reads, lambda x: population.evaluate(x=x[0]), lambda x: population.snapshot()):
        with pytest.raises(gc.StateError, match="half-way"):
            work(x=good)
    population.state = saved
    ex = gc.Executor(plan, seed=2)
    assert population.step(x=good)[2] == ex.step(x=good[2])


def test_a_thousand_members() -> None:
    net = gc.Net("line")
    x, y = net.input("x", (gc.N, 2)), net.input("y", (gc.N, 1))
    net.loss("loss", gc.mse_loss(gc.affine(x, 1), y))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1))
    population = gc.Population(plan, members=1000)
    assert population.nbytes == plan.memory.population(1000)
    feeds = {"x": np.eye(4, 2, dtype=np.float32), "y": np.ones((4, 1), np.float32)}
    some = [0, 499, 999]
    executors = [gc.Executor(plan, seed=i) for i in some]
    for _ in range(2):
        losses = population.step(feeds)
        assert losses[some].tolist() == [ex.step(feeds) for ex in executors]
    population.keep(some)
    assert_equal(population, executors)


def test_steps_of_one_kind_and_of_others_take_turns(plan: gc.Plan) -> None:
    """A step that is made again must read its own feeds, rows and members."""
    population, executors = population_of(plan), alone(plan)
    x, y = data()
    rng = np.random.default_rng(5)

    def check(numbers: list[int], feeds: dict[str, Array], **options: Any) -> None:
        rows = options.get("rows")
        losses = population.step(**feeds, **options)
        expected = []
        for k, i in enumerate(numbers):
            own = feeds if rows is None else {name: a[rows[k]] for name, a in feeds.items()}
            own = own if own["x"].ndim == 2 else {name: a[k] for name, a in own.items()}
            expected.append(executors[i].step(own))
        assert losses.tolist() == expected

    everyone = list(range(len(SEEDS)))
    for size in (8, 8, 5):
        rows = rng.integers(0, ROWS, (len(SEEDS), size))
        own = {"x": x[rows], "y": y[rows]}
        for _ in range(2):
            check(everyone, {"x": x[:size], "y": y[:size]})
            check(everyone, own)
            check(everyone, {"x": x, "y": y}, rows=list(rows))
            check(everyone, {"x": x, "y": y}, rows=[row[: 1 + i] for i, row in enumerate(rows)])
            check([2, 0], {"x": x, "y": y}, rows=[rows[0], rows[1][:3]], members=[2, 0])
        check(everyone, {"x": np.asfortranarray(own["x"]), "y": own["y"].astype(np.int32)})
    many = np.concatenate([x] * 200), np.concatenate([y] * 200)
    for _ in range(2):
        check(everyone, dict(zip("xy", many, strict=True)), rows=list(rows))
    population.keep([3, 1])
    executors = [executors[3], executors[1]]
    check([0, 1], {"x": x[:8], "y": y[:8]})
    assert_equal(population, executors)


def test_the_memory_is_known_before(plan: gc.Plan) -> None:
    for members in (1, 5, 33):
        assert gc.Population(plan, members=members).nbytes == plan.memory.population(members)


@pytest.mark.needs("native")
def test_a_loss_keeps_the_sign_of_zero() -> None:
    net = gc.Net("zero")
    w = net.parameter("w", (3,), init="zeros")
    net.loss("loss", -gc.mean((net.input("x", (gc.N, 3)) * w) ** 2))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="native")
    population, ex = gc.Population(plan, members=2), gc.Executor(plan)
    x = np.ones((4, 3), np.float32)
    losses = [ex.step(x=x), *population.step(x=x).tolist()]
    assert list(map(str, losses)) == ["-0.0"] * 3


def test_another_number_of_chosen_rows_is_another_run(plan: gc.Plan) -> None:
    population, (x, y) = population_of(plan), data()
    for rows in (5, 5, 8, 3):
        chosen = np.arange(rows * len(SEEDS)).reshape(len(SEEDS), rows) % ROWS
        found = population.forward(x=x, y=y, rows=chosen)
        for i, member in enumerate(population):
            wanted = member.forward(x=x[chosen[i]], y=y[chosen[i]])
            assert found["scores"][i].tobytes() == wanted["scores"].tobytes()


def test_every_member_has_the_columns(plan: gc.Plan, tmp_path: Path) -> None:
    population = population_of(plan)
    population.columns = columns = Columns(tuple(f"c{i}" for i in range(WIDTH)))
    assert [member.state.columns for member in population] == [columns] * len(SEEDS)
    population.keep([2, 4])
    assert gc.load(gc.save(tmp_path / "m.gc", population[1])).state.columns == columns


@pytest.mark.parametrize("backend", ["native", "numpy"])
def test_losses_by_weights_that_members_have(backend: str) -> None:
    """Weights depend on a parameter, or are all 0 in a batch, or in every one."""
    net = gc.Net("weighted")
    x, y = net.input("x", (gc.N, WIDTH)), net.input("y", (gc.N,), dtype="int64")
    w, scale = net.input("w", (gc.N,)), net.parameter("scale", (WIDTH,), init="normal")
    scores = gc.affine(x, CLASSES)
    own = gc.sum(x * scale, axis=1) ** 2
    for name, weight in (("own", own), ("given", w), ("both", own * w)):
        net.loss(name, gc.softmax_loss(scores, y, weight=weight))
    net.loss("total", gc.sum(scores))
    net.output("mean", gc.mean(scores))
    plan = gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1), backend=backend)
    population = gc.Population(plan, seeds=SEEDS)
    executors = [gc.Executor(plan, seed=seed) for seed in SEEDS]
    x_, y_ = data()
    for zeros in (slice(8, 16), slice(None)):
        w_ = np.random.default_rng(1).uniform(0, 1, ROWS).astype(np.float32)
        w_[zeros] = 0
        for members in (None, [2]):
            found = population.evaluate(x_, y_, w_, members=members)
            for i, member in enumerate(range(len(SEEDS)) if members is None else members):
                expected = executors[member].evaluate(x_, y_, w_)
                assert {name: str(array[i]) for name, array in found.items()} == {
                    name: str(np.float64(number)) for name, number in expected.items()
                }
