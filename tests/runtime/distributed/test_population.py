"""Populations whose members are shared by ranks: each has the bits of its net trained alone."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.distributed.loopback import Loopback, run_ranks
from tests.runtime.distributed.launched import MPIEXEC, environment, graphc
from tests.runtime.distributed.nets import classes, table

SEEDS, RATES = (3, 1, 4, 15, 9), (0.1, 0.05, 0.2, 0.01, 0.3)
X, Y = table(40)


@pytest.fixture(scope="module")
def plan() -> gc.Plan:
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    return gc.compile(classes(), batch=8, optimizer=optimizer, backend="numpy")


def population_of(plan: gc.Plan, ranks: Communicator | None = None) -> gc.Population:
    return gc.Population(plan, seeds=SEEDS, hyper={"lr": RATES}, communicator=ranks)


def stepped(population: gc.Population, steps: int = 2) -> gc.Population:
    rng = np.random.default_rng(len(population))
    for _ in range(steps):
        rows = [rng.integers(0, 40, rng.integers(1, 9)) for _ in range(len(population))]
        population.step(x=X, y=Y, rows=rows)
    return population


def bits(state: Any) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.items()}


def plain(found: Any) -> Any:
    """Arrays in lists and dictionaries as their bytes."""
    if isinstance(found, np.ndarray):
        return found.shape, found.dtype.name, found.tobytes()
    if isinstance(found, dict):
        return {name: plain(one) for name, one in found.items()}
    return [plain(one) for one in found] if isinstance(found, list) else found


def as_alone(plan: gc.Plan, work: Callable[[gc.Population], Any], size: int = 2) -> None:
    """Assert that each of some ranks gets what a population without ranks gives."""
    expected = plain(work(population_of(plan)))
    for found in run_ranks(size, lambda ranks: work(population_of(plan, ranks))):
        assert plain(found) == expected


@pytest.mark.parametrize("size", [2, 3])
def test_members_have_the_bits_of_their_nets_alone(plan: gc.Plan, size: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, (6, len(SEEDS), 8))
    executors = [gc.Executor(plan, seed=seed) for seed in SEEDS]
    losses = []
    for ex, rate in zip(executors, RATES, strict=True):
        ex.hyper["lr"] = rate
    for step in rows:
        pairs = zip(executors, step, strict=True)
        losses.append([ex.step(x=X[own], y=Y[own]) for ex, own in pairs])

    def main(ranks: Loopback) -> tuple[list[int], list[Any], dict[str, Array]]:
        population, found = population_of(plan, ranks), []
        for number, step in enumerate(rows):
            feeds = {"x": X[step], "y": Y[step]} if number % 2 else {"x": X, "y": Y, "rows": step}
            found.append(population.step(**feeds).tolist())
        assert population.nbytes == plan.memory.population(len(population.own))
        return list(population.own), found, population.snapshot()

    whole = run_ranks(size, main)
    assert [number for own, *_ in whole for number in own] == list(range(5))
    assert max(len(own) for own, *_ in whole) - min(len(own) for own, *_ in whole) == 1
    for _, found, state in whole:
        assert found == losses
        for i, ex in enumerate(executors):
            assert {name: array[i].tobytes() for name, array in state.items()} == bits(ex.state)


@pytest.mark.parametrize("size", [2, 3])
def test_members_are_in_the_order_asked_for(plan: gc.Plan, size: int) -> None:
    """Whatever the order of the ranks that hold them, in results and in losses."""

    def work(population: gc.Population) -> list[Any]:
        orders = ([4, 0, 1, 3], [2, 4, 0], [3, 1, 4, 0, 2])
        found: list[Any] = [population.forward(x=X[:3], members=order) for order in orders]
        return [*found, *(population.step(x=X[:8], y=Y[:8], members=order) for order in orders)]

    as_alone(plan, work, size)


def test_every_rank_reads_the_numbers_of_all_members(plan: gc.Plan) -> None:
    def work(population: gc.Population) -> list[Any]:
        population.step(x=X[:8], y=Y[:8])
        population.step(x=X[:8], y=Y[:8], members=[4, 0])
        population.hyper["lr"] = population.hyper["lr"] / 2
        return [
            population.seeds,
            dict(population.hyper),
            dict(population.parameters),
            population.forward(x=X[:8], y=Y[:8]),
            population.forward(x=X[:3], members=[4, 1])["scores"],
            population.predict(X, members=[3]),
            population.predict(X, combine="mean"),
            population.predict(X, combine="vote"),
            population.evaluate(X, Y),
            population.evaluate(x=X, y=Y, rows=[range(i, 40) for i in range(5)]),
            population.steps(x=X, y=Y, rows=[range(5 * i, 40) for i in range(5)], batch=8),
            dict(population.parameters),
        ]

    as_alone(plan, work)


@pytest.mark.parametrize("kept", [[4, 0, 3, 1], [3, 4, 2], [4], [1, 0]])
def test_kept_and_copied_members_continue_on_other_ranks(plan: gc.Plan, kept: list[int]) -> None:
    def work(population: gc.Population) -> list[Any]:
        stepped(population)
        population.copy(4, 0)
        population.copy(1, 2)
        population.keep(kept)
        stepped(population)
        population.keep(range(len(population))[::-1])
        found = stepped(population).snapshot()
        return [found, population.seeds, population.predict(X)]

    as_alone(plan, work, 3)


def test_a_kept_member_is_on_the_first_rank(plan: gc.Plan) -> None:
    def main(ranks: Loopback) -> tuple[list[int], int]:
        population = population_of(plan, ranks)
        before = [population[i] for i in population.own]
        population.keep([0, 4])
        if ranks.rank == 0:
            assert population[0] is before[0]
        assert [ex.state.seed for ex in population.local] == [[3], [9]][ranks.rank]
        population.keep([1])
        return list(population.own), len(population)

    assert run_ranks(2, main) == [([0], 1), ([], 1)]


def test_the_members_of_a_rank_are_a_population(plan: gc.Plan) -> None:
    alone = population_of(plan)
    alone.step(x=X[:8], y=Y[:8])

    def main(ranks: Loopback) -> dict[str, bytes]:
        population = population_of(plan, ranks)
        local = population.local
        assert local.seeds == tuple(SEEDS[i] for i in population.own)
        local.step(x=X[:8], y=Y[:8])
        assert population[population.own[-1]] is local[-1]
        with pytest.raises(gc.StateError, match=rf"is on rank \d, this is rank {ranks.rank}"):
            population[4 - 4 * ranks.rank]
        return bits(population.snapshot())

    assert run_ranks(2, main) == [bits(alone.snapshot())] * 2


def test_a_file_is_the_same_on_any_number_of_ranks(plan: gc.Plan, tmp_path: Path) -> None:
    alone = stepped(population_of(plan))
    expected = gc.save(tmp_path / "alone.gc", alone).read_bytes()
    stepped(alone)
    for size in (2, 3):
        path = tmp_path / f"on-{size}.gc"

        def main(ranks: Loopback, path: Path = path) -> dict[str, bytes]:
            assert gc.save(path, stepped(population_of(plan, ranks))).read_bytes() == expected
            loaded = gc.load(tmp_path / "alone.gc", communicator=ranks)
            assert loaded.seeds == SEEDS
            twin = copy.deepcopy(loaded)
            assert pickle.loads(pickle.dumps(twin)).seeds == SEEDS
            return bits(stepped(twin).snapshot())

        assert run_ranks(size, main) == [bits(alone.snapshot())] * size


def test_a_mistake_on_one_rank_changes_no_member(plan: gc.Plan) -> None:
    wrong = np.array([Y[:8]] * 5)
    wrong[4, 2] = 5

    def main(ranks: Loopback) -> str:
        population = population_of(plan, ranks)
        before = bits(population.snapshot())
        with pytest.raises(gc.FeedError if ranks.rank else gc.RankError) as caught:
            population.step(x=X[:8], y=wrong)
        with pytest.raises(gc.FeedError):
            population.step(x=X[:8, :3], y=Y[:8])
        for name, value in (("lr", np.ones(2)), ("lr", "fast")):
            with pytest.raises(gc.StateError):
                population.hyper[name] = value
        with pytest.raises(gc.StateError):
            population.state = {"scores.bias": np.zeros((2, 5))}
        assert bits(population.snapshot()) == before
        return caught.value.sentence

    told = run_ranks(2, main)
    assert told[0] == f"rank 1: {told[1]}" and "'y'" in told[1]


def test_a_failure_half_way_on_one_rank_breaks_all(
    plan: gc.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(ranks: Loopback) -> bool:
        population = population_of(plan, ranks)
        saved = population.snapshot()
        if ranks.rank:
            monkeypatch.setattr(population._runs, "step", lambda feeds: 1 / 0)
        with pytest.raises(ZeroDivisionError if ranks.rank else gc.RankError):
            population.step(x=X[:8], y=Y[:8])
        with pytest.raises(gc.StateError, match="half-way"):
            population.step(x=X[:8], y=Y[:8])
        population.state = saved
        return bits(population.snapshot()) == bits(saved)

    assert run_ranks(2, main) == [True, True]


def test_populations_that_ranks_cannot_share(plan: gc.Plan, tmp_path: Path) -> None:
    def refused(told: str, error: type[Exception], make: Callable[[Loopback], Any]) -> None:
        def main(ranks: Loopback) -> None:
            with pytest.raises(error, match=told):
                make(ranks)

        run_ranks(3, main)

    def of(members: int, plan: gc.Plan = plan) -> Callable[[Loopback], gc.Population]:
        return lambda ranks: gc.Population(plan, members=members, communicator=ranks)

    def differing(ranks: Loopback) -> gc.Population:
        return of(5 if ranks.rank == 2 else 6)(ranks)

    refused("there are 2 members for 3 ranks", gc.RankError, of(2))
    path = gc.save(tmp_path / "two.gc", gc.Population(plan, members=2))
    refused("for 3 ranks", gc.RankError, lambda ranks: gc.load(path, communicator=ranks))
    refused(r"rank 2 differs from rank 0 in members \(5, not 6\)", gc.RankError, differing)
    with pytest.raises(gc.StateError, match="communicator is object, not one of graphc's"):
        gc.Population(plan, members=2, communicator=object())  # type: ignore[arg-type]
    sharded = gc.compile(classes(), batch=8, optimizer=gc.SGD(lr=0.1), shards=2, backend="numpy")
    refused("the plan cuts a batch", gc.StateError, of(6, sharded))


LABELS = {"folds": 5, "seed": [5, 6, 5, 8, 5]}
STOPPING = {"validation": table(20, seed=1), "callbacks": [gc.EarlyStopping(patience=1)]}


@pytest.mark.parametrize("options", [{}, LABELS, {"bootstrap": True}, STOPPING])
def test_a_fit_on_ranks_has_the_histories_of_one_without(
    plan: gc.Plan, options: dict[str, Any]
) -> None:
    def work(population: gc.Population) -> list[Any]:
        histories = gc.fit(population, (X, Y), epochs=6, progress=False, **options)
        numbers = [(h.loss, h.val_loss, h.metrics, h.stopped) for h in histories]
        return [numbers, population.snapshot()]

    as_alone(plan, work, 3)


def test_a_member_whose_loss_is_not_finite_stops_alone(plan: gc.Plan) -> None:
    def work(population: gc.Population) -> list[Any]:
        population.hyper["lr"] = [0.1, 0.1, 0.1, 0.1, 1e38]
        histories = gc.fit(population, (X, Y), epochs=3, progress=False)
        assert [len(history.epochs) for history in histories] == [3, 3, 3, 3, 0]
        return [[history.stopped for history in histories]]

    as_alone(plan, work)


def test_ranks_that_would_train_in_another_way_are_named(plan: gc.Plan) -> None:
    def main(ranks: Loopback) -> None:
        population = population_of(plan, ranks)
        before = bits(population.snapshot())
        mistakes: dict[str, tuple[Any, dict[str, Any]]] = {
            r"epochs \(2, not 1\)": ((X, Y), {"epochs": 1 + ranks.rank}),
            "orders": ((X, Y), {"seed": ranks.rank}),
            "numbers of data": ((X + ranks.rank, Y), {}),
        }
        for told, (data, options) in mistakes.items():
            with pytest.raises(gc.RankError, match=f"rank 1 differs from rank 0 in {told}"):
                gc.fit(population, data, **options)
        assert bits(population.snapshot()) == before
        population.keep([0])
        with pytest.raises(gc.GraphError, match="there are 1 members for 2 ranks"):
            gc.fit(population, (X, Y))

    run_ranks(2, main)


def test_an_error_on_one_rank_ends_all(plan: gc.Plan) -> None:
    """A callback fails on the member of the second rank."""

    def main(ranks: Loopback) -> str:
        def callback(epoch: gc.Epoch) -> None:
            if epoch.ex.state.seed == SEEDS[4]:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError if ranks.rank else gc.RankError) as caught:
            gc.fit(population_of(plan, ranks), (X, Y), callbacks=[callback])
        return str(caught.value)

    assert "rank 1: ZeroDivisionError()" in run_ranks(2, main)[0]


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_goes_on_with_fewer_ranks(plan: gc.Plan, after: int, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def trained(population: gc.Population, epochs: int, **options: Any) -> list[Any]:
        options = {**options, **STOPPING, "progress": False}
        histories = gc.fit(population, (X, Y), epochs=epochs, **options)
        return [[(h.loss, h.val_loss, h.stopped) for h in histories], population.snapshot()]

    straight = plain(trained(population_of(plan), 6))
    run_ranks(3, lambda ranks: trained(population_of(plan, ranks), 2, checkpoint=run))

    def main(ranks: Loopback) -> list[Any]:
        return trained(population_of(plan, ranks), 6, checkpoint=run, resume=True)

    for found in run_ranks(after, main):
        assert plain(found) == straight


SCRIPT = """
import sys

import graphc as gc
from graphc.runtime.distributed.mpi import joined
from tests.runtime.distributed.test_population import after_a_hundred_steps

gc.save(sys.argv[1], after_a_hundred_steps(int(sys.argv[2]), joined()))
"""


def rows_of(member: int) -> Array:
    return np.random.default_rng(member).integers(0, 40, (100, 8))


def compiled(threads: int) -> gc.Plan:
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    return gc.compile(classes(), batch=8, optimizer=optimizer, threads=threads)


def after_a_hundred_steps(threads: int, ranks: Communicator | None = None) -> gc.Population:
    population = population_of(compiled(threads), ranks)
    for rows in zip(*map(rows_of, range(len(SEEDS))), strict=True):
        population.step(x=X, y=Y, rows=rows)
    return population


@pytest.mark.slow
@pytest.mark.needs("MPI")
def test_ranks_that_are_processes_have_the_bits_of_the_nets_alone(tmp_path: Path) -> None:
    expected = []
    for member, (seed, rate) in enumerate(zip(SEEDS, RATES, strict=True)):
        ex = gc.Executor(compiled(1), seed=seed)
        ex.hyper["lr"] = rate
        for rows in rows_of(member):
            ex.step(x=X[rows], y=Y[rows])
        expected.append(bits(ex.state))
    (tmp_path / "main.py").write_text(SCRIPT)
    assert MPIEXEC is not None
    files = set()
    for size, threads in ((2, 1), (3, 2)):
        name = f"on-{size}-{threads}.gc"
        words = [sys.executable, "-m", "mpi4py", "main.py", name, str(threads)]
        command = [MPIEXEC, "-n", str(size), *words]
        subprocess.run(command, cwd=tmp_path, env=environment(), check=True, timeout=100)
        found = gc.load(tmp_path / name).state
        for i, alone in enumerate(expected):
            assert {k: array[i].tobytes() for k, array in found.items()} == alone
        files.add((threads, (tmp_path / name).read_bytes()))
    assert len(files) == 2


FIT = """
import os
import signal
from pathlib import Path

import graphc as gc
from graphc.runtime.distributed.mpi import joined
from tests.runtime.distributed.test_population import X, Y, compiled, population_of

ranks = joined()


def kill(epoch):
    killed = os.environ.get("KILLED") == str(ranks.rank) and epoch.number == 4
    if killed and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


population = population_of(compiled(1), ranks)
options = {"epochs": 6, "seed": [5, 6, 5, 8, 7], "progress": False, "callbacks": [kill]}
gc.fit(population, (X, Y), checkpoint="run", resume=True, **options)
gc.save("end.gc", population)
"""


def fit_alone() -> dict[str, bytes]:
    population = population_of(compiled(1))
    gc.fit(population, (X, Y), epochs=6, seed=[5, 6, 5, 8, 7], progress=False)
    return bits(population.snapshot())


@pytest.mark.slow
@pytest.mark.needs("MPI")
def test_members_of_a_dead_rank_continue_on_fewer_ranks(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(FIT)
    assert graphc(tmp_path, "launch", "-n", "3", "main.py", KILLED="2").status == 1
    last = gc.Checkpoints(tmp_path / "run").last
    assert last is not None and last.name == f"step-{3 * 5 * 5:09}.gc"  # epochs, steps, members
    assert not (tmp_path / "end.gc").exists()
    assert graphc(tmp_path, "launch", "-n", "2", "main.py").status == 0
    assert bits(gc.load(tmp_path / "end.gc").state) == fit_alone()


@pytest.mark.slow
@pytest.mark.needs("MPI")
def test_ranks_of_a_script_start_again_after_a_fault(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(FIT)
    words = ("launch", "-n", "2", "--max-restarts", "1", "main.py")
    ended = graphc(tmp_path, *words, KILLED="0")
    assert ended.status == 0 and "restart 1 of 1" in ended.out, ended
    assert (tmp_path / "killed").exists()
    assert bits(gc.load(tmp_path / "end.gc").state) == fit_alone()
