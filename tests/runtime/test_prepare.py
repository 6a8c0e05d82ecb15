"""Values that inference keeps of the state: never of one that has been written since."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from threading import Thread
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation.explain import ValidationError
from graphc.check.validation.plans import validate_plan
from graphc.compiler import prepare
from graphc.compiler.prepare import prepared
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.kernels.program import PREPARE
from graphc.runtime.entry import StateLock

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 6, 6)).astype("float32")
Y = np.array([0, 1, 2, 0])
FEEDS = {"x": X, "y": Y}
OPTIMIZER = gc.SGD(lr=0.5, momentum=0.9)


def classifier() -> gc.Net:
    """A convolution, whose scale is computed of running statistics, and two matrices."""
    net = gc.Net("net")
    h = gc.conv2d(net.input("x", (gc.N, 3, 6, 6)), 8, 3, padding=1, name="conv")
    h = gc.relu(gc.batchnorm(h, name="bn"))
    h = gc.relu(gc.affine(gc.mean(h, axis=(2, 3)), 16, name="hidden"))
    scores = net.output("scores", gc.affine(h, 3, name="last"))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def compiled(backend: str = "native", batch: int = 4, **options: Any) -> gc.Plan:
    return gc.compile(classifier(), batch=batch, optimizer=OPTIMIZER, backend=backend, **options)


@pytest.fixture(scope="module", autouse=True)
def small_parameters_count_as_large() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "LARGE", 0)
        yield


@pytest.fixture(scope="module")
def plan() -> gc.Plan:
    return compiled()


@pytest.fixture(scope="module")
def reading() -> gc.Plan:
    """A plan that does not train: it keeps all weights in panels."""
    return gc.compile(classifier(), batch=4, backend="native")


def fresh(ex: gc.Executor) -> bytes:
    """The scores of an executor that has kept nothing, of the same state."""
    other = gc.Executor(ex.plan)
    other.state = dict(ex.state)
    return scores(other)


def scores(ex: gc.Executor) -> bytes:
    return ex.forward(x=X)["scores"].tobytes()


# ------------------------------------------------------------------ every write counts


def other(ex: gc.Executor) -> gc.Executor:
    return gc.Executor(ex.plan, seed=9)


def by_gradients(ex: gc.Executor) -> None:
    ex.update({name: np.ones_like(array) for name, array in ex.parameters.items()})


def by_hand(ex: gc.Executor) -> None:
    ex.forward(FEEDS, train=True)
    ex.backward()
    ex.update()


def half_way(ex: gc.Executor) -> None:
    """A write that fails half-way, and the state that is assigned after it."""
    with pytest.raises(ZeroDivisionError):
        ex.state.lock(ex.state.write, [partial(divmod, 1, 0)])
    ex.state = {name: array + array.dtype.type(1) for name, array in ex.state.items()}


WRITES: dict[str, Callable[[gc.Executor], object]] = {
    "a step": lambda ex: ex.step(FEEDS),
    "two steps": lambda ex: [ex.step(FEEDS) for _ in range(2)],
    "running statistics": lambda ex: ex.forward(FEEDS, train=True),
    "an update by hand": by_hand,
    "an update by gradients": by_gradients,
    "fit": lambda ex: gc.fit(ex, (X, Y), epochs=1),
    "fit with validation": lambda ex: gc.fit(ex, (X, Y), validation=(X, Y), epochs=2),
    "a parameter": lambda ex: ex.parameters.update({"conv.weight": np.ones((8, 3, 3, 3))}),
    "load_flat": lambda ex: ex.parameters.load_flat(ex.parameters.flat() * 2),
    "copy_from": lambda ex: ex.parameters.copy_from(other(ex).parameters),
    "copy_from mixes": lambda ex: ex.parameters.copy_from(other(ex).parameters, mix=0.5),
    "copy_from some": lambda ex: ex.parameters.copy_from(other(ex).parameters, names="hidden*"),
    "copy_from arrays": lambda ex: ex.parameters.copy_from({"last.bias": np.ones(3)}),
    "copy_from mixes arrays": lambda ex: ex.parameters.copy_from({"last.bias": np.ones(3)}, 0.5),
    "the state": lambda ex: setattr(ex, "state", dict(other(ex).state)),
    "a part of the state": lambda ex: setattr(ex, "state", {"bn.running_var": np.full(8, 3.0)}),
    "assign": lambda ex: ex.state.assign({"bn.running_mean": np.ones(8)}),
    "PyTorch's state": lambda ex: gc.load_torch_state(ex, {"last.bias": np.ones(3)}, strict=False),
    "another executor": lambda ex: gc.Executor(ex.plan, state=ex.state).step(FEEDS),
    "another plan": lambda ex: gc.Executor(compiled("numpy"), state=ex.state).step(FEEDS),
    "after a failure": half_way,
}


@pytest.mark.parametrize("name", WRITES)
def test_no_write_leaves_what_was_kept(plan: gc.Plan, reading: gc.Plan, name: str) -> None:
    ex = gc.Executor(plan, seed=1)
    reader = gc.Executor(reading, state=ex.state)
    before = scores(ex)
    assert scores(ex) == scores(reader) == before == fresh(ex)
    WRITES[name](ex)
    assert scores(ex) == scores(reader) == fresh(ex) != before
    assert ex.predict(X).tobytes() == fresh(ex)


def test_copies_keep_values_of_their_own(plan: gc.Plan) -> None:
    ex = gc.Executor(plan)
    before = scores(ex)
    for twin in (deepcopy(ex), pickle.loads(pickle.dumps(ex))):
        assert scores(twin) == before
        twin.step(FEEDS)
        assert scores(twin) == fresh(twin) != before
        assert scores(ex) == before


@pytest.mark.parametrize("place", (0, 2))
def test_members_of_a_population(plan: gc.Plan, place: int) -> None:
    population = gc.Population(plan, members=3)
    member = population[place]
    for _ in range(2):
        shown = population.predict(X)
        assert shown[place].tobytes() == scores(member) == fresh(member)
        population.step(FEEDS)
    population.copy(1, place)
    assert scores(member) == scores(population[1]) == fresh(member)
    population.keep([2, 0, 1])
    population.parameters["last.bias"] = np.ones((3, 3))
    for one, shown in zip(population, population.predict(X), strict=True):
        assert scores(one) == fresh(one) == shown.tobytes()


def test_threads_that_share_a_state(plan: gc.Plan) -> None:
    ex = gc.Executor(plan)
    readers = [gc.Executor(plan, state=ex.state) for _ in range(2)]
    found: list[set[bytes]] = [set(), set()]
    steps = [scores(ex)]

    def read(reader: gc.Executor, seen: set[bytes]) -> None:
        for _ in range(40):
            seen.add(scores(reader))

    threads = [Thread(target=read, args=pair) for pair in zip(readers, found, strict=True)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        ex.step(FEEDS)
        steps.append(fresh(ex))
    for thread in threads:
        thread.join()
    assert found[0] | found[1] <= set(steps)
    assert {scores(reader) for reader in readers} == {steps[-1]}


# ------------------------------------------------------------------ what is kept


def test_a_second_run_prepares_nothing(plan: gc.Plan) -> None:
    ex, runs = gc.Executor(plan), list[int]()
    ex.__dict__["_preparation"] = [partial(runs.append, 1), *ex._preparation]
    for _ in range(3):
        scores(ex)
        ex.predict(np.concatenate([X] * 3))
        ex.evaluate(X, Y)
    assert len(runs) == 1
    ex.step(FEEDS)
    ex.hyper["lr"] = 0.25
    for _ in range(3):
        scores(ex)
    assert len(runs) == 2


def test_weights_are_copied_straight_to_where_inference_reads_them(
    plan: gc.Plan, reading: gc.Plan
) -> None:
    assert plan.programs["infer"].kept == {"conv.kernel"}
    assert reading.programs["infer"].kept == {"conv.kernel", "hidden.weight", "last.weight"}
    for made in (plan, reading):
        assert PREPARE not in made.programs
        assert all(of_input(made))


def test_what_is_computed_of_parameters_alone_is_computed_by_a_program_of_its_own() -> None:
    net = gc.Net("net")
    net.output("y", tied(net))
    plan = gc.compile(net, batch=2, backend="numpy")
    assert set(plan.programs[PREPARE].outputs) == {"div_1"}
    assert plan.programs["infer"].kept == {"div_1", "transpose_1"}
    assert "words.weight" not in plan.programs[PREPARE].graph
    assert all(of_input(plan))
    assert not all(of_input(plan.without_kept))


def of_input(plan: gc.Plan) -> list[bool]:
    """Whether each kernel of inference computes something of the input."""
    program = plan.programs["infer"]
    varies = program.graph.downstream(program.feeds)
    return [instr.node in varies for instr in program.instrs if instr.kind != "barrier"]


def test_what_is_larger_than_its_operands_is_computed_at_every_run() -> None:
    net = gc.Net("net")
    row = net.parameter("row", (1, 4000))
    h = net.input("x", (gc.N, 3)) @ gc.tanh(gc.broadcast_to(row, (3, 4000)))
    net.output("y", h + gc.exp(row))
    graph = gc.compile(net, batch=2, backend="numpy").programs["infer"].graph
    assert [graph[name].op.name for name in prepared(graph)] == ["exp"]


def test_small_parameters_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "LARGE", 16 * 8 * 4)
    plan = gc.compile(classifier(), batch=4, backend="native")
    assert plan.programs["infer"].kept == {"conv.kernel"}
    monkeypatch.setattr(prepare, "LARGE", 16 * 8 * 4 - 1)
    plan = gc.compile(classifier(), batch=4, backend="native")
    assert plan.programs["infer"].kept == {"conv.kernel", "hidden.weight"}


@pytest.mark.parametrize("backend", ("numpy", "native"))
def test_memory_is_reported_to_the_byte(backend: str) -> None:
    plan = compiled(backend, batch=7)
    ex = gc.Executor(plan)
    ex.forward(FEEDS, train=True)
    assert ex.nbytes == plan.memory.total
    assert plan.memory.constants > plan.without_kept.memory.constants
    assert plan.verify().ok
    assert plan.without_kept.verify().ok
    population = gc.Population(plan, members=5)
    assert population.nbytes == plan.memory.population(5)


def test_a_budget_that_has_no_room_for_it_is_kept(plan: gc.Plan) -> None:
    lean = plan.without_kept
    budget = lean.memory.total + (plan.memory.total - lean.memory.total) // 2
    made = compiled(budget=budget)
    assert made.memory.total <= budget < plan.memory.total
    assert str(made) == str(lean)
    one, two = gc.Executor(made, seed=3), gc.Executor(plan, seed=3)
    assert scores(one) == scores(two)


# ------------------------------------------------------------------ the same bits


def grouped(net: gc.Net) -> gc.Value:
    x = net.input("x", (gc.N, 4, 7, 7))
    h = gc.relu(gc.conv2d(x, 72, 3, padding=1, groups=2, bias=False))
    h = gc.conv2d(h, 72, 3, groups=72, padding=1)
    return gc.conv_transpose2d(gc.relu(gc.batchnorm(h)), 5, 3, stride=2)


def tied(net: gc.Net) -> gc.Value:
    """A table that is read by rows and as a matrix, and a weight that is computed of another."""
    ids = net.input("ids", (gc.N, 5), dtype="int64")
    h = gc.embedding(ids, 11, 16, name="words")
    v = net.parameter("v", (16, 16), init="he")
    h = gc.tanh(h @ (v / gc.sqrt(gc.sum(v * v, axis=0, keepdims=True))))
    return h @ gc.transpose(net["words.weight"], (1, 0))


def loops(net: gc.Net) -> gc.Value:
    return gc.lstm(gc.gru(net.input("x", (gc.N, 5, 6)), 8)[0], 7)[0]


def matrices(net: gc.Net) -> gc.Value:
    h = gc.relu(gc.affine(net.input("x", (gc.N, 40)), 70))
    return gc.affine(gc.layernorm(gc.affine(h, 33)), 1)


NETS = {f.__name__: f for f in (grouped, tied, loops, matrices)}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("precision", ("float32", "bf16"))
@pytest.mark.parametrize("batch", (1, 2, 9))
@pytest.mark.parametrize("backend", ("numpy", "native"))
@pytest.mark.parametrize("name", NETS)
def test_bits_are_those_of_a_plan_that_keeps_nothing(
    name: str, backend: str, batch: int, precision: Any
) -> None:
    net = gc.Net(name)
    net.output("y", NETS[name](net))
    plan = gc.compile(net, batch=batch, backend=backend, precision={"*": precision})
    assert plan.programs["infer"].kept or name == "loops" or backend == "numpy" or batch < 4
    ex = gc.Executor(plan)
    lean = gc.Executor(plan.without_kept, state=ex.state)
    for rows in {1, batch}:
        feeds = {
            node.name: drawn(shape_at(node.type.shape, rows), node.type.dtype)
            for node in plan.declared
            if node.op.is_input
        }
        for _ in range(2):
            assert ex.forward(feeds)["y"].tobytes() == lean.forward(feeds)["y"].tobytes()
            ex.parameters.load_flat(ex.parameters.flat() * np.float32(0.75))


def drawn(shape: tuple[int, ...], dtype: str) -> Array:
    rng = np.random.default_rng(len(shape))
    return rng.integers(0, 11, shape) if dtype == "int64" else rng.normal(size=shape).astype(dtype)


# ------------------------------------------------------------------ validation sees it


@pytest.mark.parametrize("backend", ("numpy", "native"))
def test_validation_sees_values_of_an_earlier_state(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    plan = compiled(backend)
    validate_plan(plan)
    monkeypatch.setattr(StateLock, "version", property(lambda lock: 1, lambda lock, value: None))
    with pytest.raises(ValidationError, match="infer"):
        validate_plan(plan)
