"""Optimizers and schedules against their published rules, written out again in plain NumPy."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from math import cos, pi
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.backends.numpy import KERNELS
from graphc.graph import Graph, Node
from graphc.lowering import Lowering
from graphc.op import Op
from graphc.ops import optim as ops
from graphc.optim import Optimizer
from graphc.reference import evaluate, initial_state, next_state
from graphc.schedule import schedule
from graphc.schedules import Schedule
from graphc.tensor_type import TensorType
from passes.apply_update import apply_graph

Array = Any
State = dict[str, Array]


def parameters(values: Mapping[str, Array]) -> list[Node]:
    net = gc.Net("net", dtype="float64")
    return [net.parameter(name, np.shape(v), init=np.asarray(v)).node for name, v in values.items()]


def run(
    optimizer: Optimizer, values: Mapping[str, Array], steps: Sequence[Mapping[str, Array]]
) -> State:
    """The state after updates by these gradients."""
    graph = apply_graph(parameters(values), optimizer)
    state = initial_state(graph, seed=0)
    for gradients in steps:
        state = update(graph, state, gradients)
    return state


def update(graph: Graph, state: State, gradients: Mapping[str, Array]) -> State:
    feeds = {f"gradient:{name}": gradient for name, gradient in gradients.items()}
    return next_state(graph, evaluate(graph, feeds, state, 1), state)


RNG = np.random.default_rng(7)
W = {"w": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(4)}
STEPS = [{k: RNG.standard_normal(v.shape) for k, v in W.items()} for _ in range(6)]


# ------------------------------------------------------------------ published rules


def test_sgd() -> None:
    after = run(gc.SGD(lr=0.1), W, STEPS)
    for name, w in W.items():
        np.testing.assert_allclose(after[name], w - 0.1 * sum(g[name] for g in STEPS), rtol=1e-13)
    assert after["updates"] == 6
    assert after["hyper.lr"] == 0.1


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_momentum_as_torch_documents_it(nesterov: bool, decay: float) -> None:
    optimizer = gc.SGD(0.1, 0.9, nesterov, weight_decay=decay, decay=("*",))
    after = run(optimizer, W, STEPS)
    for name, start in W.items():
        w, buf = start.copy(), None
        for gradients in STEPS:
            g = gradients[name] + decay * w
            buf = g if buf is None else 0.9 * buf + g
            w = w - 0.1 * (g + 0.9 * buf if nesterov else buf)
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.velocity"], buf, rtol=1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adam(decoupled: bool, decay: float) -> None:
    options: dict[str, Any] = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": decay}
    optimizer = (gc.AdamW if decoupled else gc.Adam)(0.02, **options, decay=("*",))
    after = run(optimizer, W, STEPS)
    for name, start in W.items():
        w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for t, gradients in enumerate(STEPS, 1):
            g = gradients[name]
            if decoupled:
                w = w - 0.02 * decay * w
            else:
                g = g + decay * w
            m = 0.8 * m + 0.2 * g
            v = 0.95 * v + 0.05 * g**2
            w = w - 0.02 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.mean"], m, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.square"], v, rtol=1e-12)


def table(low: float, high: float) -> Array:
    return np.linspace(low, high, 20).reshape(4, 5)


def test_the_course_s_momentum() -> None:
    # the course's velocity holds the rate: v = momentum*v - lr*dw; w += v
    graph = apply_graph(parameters({"w": table(-0.4, 0.6)}), gc.SGD(1e-3, 0.9))
    state = initial_state(graph, 0) | {"w.velocity": table(0.6, 0.9) / -1e-3}
    after = update(graph, state, {"w": table(-0.6, 0.4)})
    first = [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789]
    np.testing.assert_allclose(after["w"][0], first, atol=1e-8)
    assert after["w"][3, 4] == pytest.approx(1.4096)
    assert -1e-3 * after["w.velocity"][0, 0] == pytest.approx(0.5406)


def test_the_course_s_adam() -> None:
    graph = apply_graph(parameters({"w": table(-0.4, 0.6)}), gc.Adam(1e-2))
    state = initial_state(graph, 0)
    state |= {"w.mean": table(0.6, 0.9), "w.square": table(0.7, 0.5), "updates": np.int64(5)}
    after = update(graph, state, {"w": table(-0.6, 0.4)})
    first = [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977]
    np.testing.assert_allclose(after["w"][0], first, atol=1e-8)
    assert after["w.mean"][0, 0] == pytest.approx(0.48)
    assert after["w.square"][0, 0] == pytest.approx(0.69966)
    assert after["updates"] == 6


def test_a_float32_parameter_stays_float32() -> None:
    net = gc.Net("net")
    graph = apply_graph([net.parameter("w", (2, 2)).node], gc.AdamW(clip_norm=1.0))
    state = initial_state(graph, 0)
    after = update(graph, state, {"w": np.ones((2, 2), np.float32)})
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in state.items()}


# ------------------------------------------------------------------ which parameters decay


@pytest.mark.parametrize(
    ("patterns", "decayed"),
    [
        (None, {"a.weight", "norm/kernel"}),
        (("*.weight",), {"a.weight"}),
        (("norm/*", "a.bias"), {"norm/kernel", "norm/gamma", "a.bias"}),
        ("*", {"a.weight", "a.bias", "norm/gamma", "norm/kernel"}),
        ((), set()),
    ],
)
def test_decay_by_rank_or_by_pattern(patterns: Any, decayed: set[str]) -> None:
    shapes = {"a.weight": (2, 3), "a.bias": (3,), "norm/gamma": (3,), "norm/kernel": (1, 2, 2)}
    values = {name: np.ones(shape) for name, shape in shapes.items()}
    zeros = {name: np.zeros(shape) for name, shape in shapes.items()}
    for kind in (gc.SGD, gc.AdamW):
        after = run(kind(0.5, weight_decay=0.1, decay=patterns), values, [zeros])
        for name in shapes:
            expected = 0.95 if name in decayed else 1.0
            np.testing.assert_allclose(after[name], expected, rtol=1e-15)


# ------------------------------------------------------------------ clipping


def test_clipping_limits_the_norm_over_all_parameters() -> None:
    gradients = {"w": np.full((3, 4), 3.0), "b": np.full(4, -2.0)}
    norm = np.sqrt(12 * 9 + 4 * 4)
    after = run(gc.SGD(1.0, clip_norm=2.0), W, [gradients])
    for name, g in gradients.items():
        np.testing.assert_allclose(W[name] - after[name], g * 2.0 / norm, rtol=1e-12)
    unclipped = run(gc.SGD(1.0, clip_norm=100.0), W, [gradients])
    for name, g in gradients.items():
        np.testing.assert_array_equal(unclipped[name], W[name] - g)


@pytest.mark.parametrize(
    ("total", "scale"), [(0.0, 1.0), (4.0, 0.5), (1.0, 1.0), (np.inf, 0.0), (np.nan, np.nan)]
)
def test_clip_scale(total: float, scale: float) -> None:
    operands = [np.asarray(total), np.asarray(1.0)]
    np.testing.assert_equal(float(ops.ClipScale().reference(operands)), scale)


# ------------------------------------------------------------------ schedules


def factors(schedule: Schedule, at: Sequence[int]) -> list[float]:
    """How far a gradient of 1 moves a parameter at lr = 1."""
    graph = apply_graph(parameters({"w": np.zeros(())}), gc.SGD(1.0, schedule=schedule))
    state = initial_state(graph, 0)
    moved = []
    for u in at:
        after = update(graph, state | {"updates": np.int64(u)}, {"w": np.ones(())})
        moved.append(-float(after["w"]))
    return moved


def test_cosine() -> None:
    plain = factors(gc.Cosine(100, floor=0.2), [0, 25, 50, 100, 1000])
    assert plain == pytest.approx([1.0, 0.2 + 0.4 * (1 + cos(pi / 4)), 0.6, 0.2, 0.2])
    warm = factors(gc.Cosine(110, warmup=10), [0, 4, 9, 10, 60, 110, 1000])
    assert warm == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_step() -> None:
    assert factors(gc.Step(10, 0.5), [0, 9, 10, 19, 20, 45]) == [1, 1, 0.5, 0.5, 0.25, 0.0625]


def test_warm_up() -> None:
    assert factors(gc.WarmUp(4), [0, 1, 3, 4, 100]) == [0.25, 0.5, 1.0, 1.0, 1.0]
    then = factors(gc.WarmUp(4, then=gc.Step(2, 0.1)), [0, 3, 4, 5, 6, 8])
    assert then == pytest.approx([0.25, 1.0, 1.0, 1.0, 0.1, 0.01])
    nested = factors(gc.WarmUp(10, then=gc.Cosine(100)), [0, 4, 9, 10, 60, 110, 1000])
    assert nested == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_a_schedule_is_a_factor_on_the_rate_that_the_user_sets() -> None:
    graph = apply_graph(parameters({"w": np.zeros(())}), gc.SGD(1.0, schedule=gc.Step(1, 0.5)))
    state = initial_state(graph, 0) | {"hyper.lr": np.float64(8.0), "updates": np.int64(3)}
    assert update(graph, state, {"w": np.ones(())})["w"] == -1.0


# ------------------------------------------------------------------ kernels

UPDATES = [
    ops.Momentum(0.9),
    ops.Momentum(0.9, 0.1),
    ops.SgdStep(),
    ops.SgdStep(0.1),
    ops.NesterovStep(0.9),
    ops.NesterovStep(0.9, 0.1),
    ops.AdamMean(0.8),
    ops.AdamMean(0.8, 0.1),
    ops.AdamSquare(0.95),
    ops.AdamSquare(0.95, 0.1),
    ops.AdamStep(0.8, 0.95, 1e-3),
    ops.AdamStep(0.8, 0.95, 1e-3, 0.1),
    ops.Cleared(),
]


def operands_of(op: ops.UpdateOp, shape: tuple[int, ...], dtype: str) -> list[Array]:
    rng = np.random.default_rng(len(shape))
    arrays: list[Array] = []
    for i, role in enumerate(op.roles[: op.operands]):
        value = rng.uniform(0.1, 1.0, shape if i < op.arrays else ())
        arrays.append(np.asarray(value, dtype) if role != "updates" else np.asarray(3))
    return arrays


class Scratch:
    """The part of an Emitter that gives out scratch arrays."""

    def __init__(self, out: TensorType) -> None:
        self.out, self.arrays = out, []

    def type(self, name: str) -> TensorType:
        return self.out

    def scratch(self, type: TensorType) -> str:
        self.arrays.append(np.full(type.shape, np.nan, type.dtype))
        return ""

    def call(self, *ignored: object) -> None:
        pass


def kernel_result(op: Op, ins: list[Array], in_place: bool) -> Array:
    out = ins[0] if in_place else np.full_like(ins[0], np.nan)
    needed = Scratch(TensorType(out.shape, out.dtype.name))
    op.lower(needed, ["" for _ in ins], "")  # type: ignore[arg-type]
    for call in KERNELS[op.name](op, ins, out, needed.arrays):
        call()
    return out


@pytest.mark.parametrize("op", UPDATES, ids=repr)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2 * ops.CHUNK + 5,), (0, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_equal_their_reference(
    op: ops.UpdateOp, shape: tuple[int, ...], dtype: str
) -> None:
    types = [TensorType(a.shape, a.dtype.name) for a in operands_of(op, shape, dtype)]
    assert op.infer(types) == TensorType(shape, dtype)
    for in_place in (False, True):
        ins = operands_of(op, shape, dtype)
        expected = op.reference(ins)
        untouched = [array.copy() for array in ins[1:]]
        found = kernel_result(op, ins, in_place)
        assert found.dtype == expected.dtype == np.dtype(dtype)
        few = 8 * np.finfo(dtype).eps  # the numbers themselves are about 1
        np.testing.assert_allclose(found, expected, rtol=few, atol=few)
        for after, before in zip(ins[1:], untouched, strict=True):
            np.testing.assert_array_equal(after, before)


@given(st.integers(1, 300), st.sampled_from(["float32", "float64"]))
@settings(max_examples=20, deadline=None)
def test_square_sum_kernel(size: int, dtype: str) -> None:
    g = np.random.default_rng(size).standard_normal(size).astype(dtype)
    out = np.zeros((), dtype)
    for call in KERNELS["square_sum"](ops.SquareSum(), [g], out, []):
        call()
    np.testing.assert_allclose(out, np.sum(g.astype("float64") ** 2), rtol=1e-5)


def test_kernels_read_scalars_at_every_run() -> None:
    p, g, rate = np.zeros(3), np.ones(3), np.asarray(1.0)
    calls = KERNELS["sgd_step"](ops.SgdStep(), [p, g, rate], p, [np.empty(3)])
    for value in (1.0, 0.25):
        rate[...] = value
        for call in calls:
            call()
    np.testing.assert_array_equal(p, -1.25)


@pytest.mark.parametrize(
    "optimizer",
    [
        gc.SGD(0.1, 0.9),
        gc.SGD(0.1, 0.9, True, weight_decay=0.1, decay=("*",)),
        gc.Adam(0.01, weight_decay=0.1, clip_norm=0.5, schedule=gc.WarmUp(4, then=gc.Cosine(9))),
        gc.AdamW(0.01, decay=("*",), schedule=gc.Step(2, 0.5)),
    ],
    ids=repr,
)
def test_plans_step_as_the_reference_does(optimizer: Optimizer) -> None:
    """Small neighbours are updated by one call; the result is that of one call each."""
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 16))
    h = gc.affine(gc.relu(gc.affine(x, 8)), 8)
    net.loss("loss", gc.mean(gc.power(h, 2)))
    plan = gc.compile(net, batch=5, optimizer=optimizer)
    ex = gc.Executor(plan, seed=1)
    graph = plan.programs["step"].graph
    state = {node: np.array(ex.state[node]) for node in ex.state}
    feed = np.random.default_rng(0).standard_normal((5, 16))
    for _ in range(5):
        ex.step(x=feed)
        state = next_state(graph, evaluate(graph, {"x": feed}, state, 5), state)
    for name in plan.programs["step"].graph.updates:
        np.testing.assert_allclose(ex.state[name], state[name], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accumulating_is_a_step_on_the_whole_batch(dtype: str) -> None:
    def executor(batch: int, accumulate: int) -> gc.Executor:
        net = gc.Net("net", dtype=dtype)
        x = net.input("x", (gc.N, 3))
        net.loss("loss", gc.mean(gc.power(gc.affine(x, 2), 2)))
        optimizer = gc.SGD(0.1, 0.9, clip_norm=0.3, accumulate=accumulate)
        return gc.Executor(gc.compile(net, batch=batch, optimizer=optimizer), seed=3)

    whole, parts = executor(12, 1), executor(4, 3)
    x = np.random.default_rng(0).standard_normal((24, 3)).astype(dtype)
    for begin in range(0, 24, 12):
        loss = whole.step(x=x[begin : begin + 12])
        losses = [parts.step(x=x[i : i + 4]) for i in range(begin, begin + 12, 4)]
        assert np.mean(losses) == pytest.approx(loss, rel=1e-5)
    assert parts.state["updates"] == whole.state["updates"] == 2
    assert parts.state["accumulated"] == 0
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    for name in whole.parameters:
        np.testing.assert_allclose(parts.parameters[name], whole.parameters[name], tolerance)
        np.testing.assert_array_equal(parts.state[f"{name}.accumulated"], 0)


def test_every_update_is_written_in_place() -> None:
    for optimizer in (gc.SGD(0.1, 0.9, True), gc.AdamW(), gc.Adam(accumulate=2)):
        graph = apply_graph(parameters(W), optimizer)
        assert schedule(graph).commits == ()
        kinds = {instr.kind for instr in Lowering(graph, schedule(graph), 1, KERNELS).instrs}
        assert kinds == {"call"}


# ------------------------------------------------------------------ mistakes

MISTAKES: list[tuple[Callable[[], object], str, str]] = [
    (
        lambda: gc.SGD(lr=-0.1),
        "SGD: lr is -0.1, it must be 0 or more",
        "updates go against the gradient already",
    ),
    (
        lambda: gc.Adam(lr=float("nan")),
        "Adam: lr is nan, it must be 0 or more",
        "updates go against the gradient already",
    ),
    (
        lambda: gc.SGD("fast"),  # type: ignore[arg-type]
        "SGD: lr is 'fast', it must be 0 or more",
        "updates go against the gradient already",
    ),
    (
        lambda: gc.SGD(0.1, momentum=1.0),
        "SGD: momentum is 1.0, it must be from 0 to below 1",
        "0.9 is usual",
    ),
    (
        lambda: gc.SGD(0.1, nesterov=True),
        "SGD: nesterov without momentum",
        "SGD(lr=0.1, momentum=0.9, nesterov=True)",
    ),
    (
        lambda: gc.Adam(beta2=1.5),
        "Adam: beta2 is 1.5, it must be from 0 to below 1",
        "0.999 is usual",
    ),
    (lambda: gc.AdamW(eps=0), "AdamW: eps is 0, it must be above 0", "1e-8 is usual"),
    (
        lambda: gc.SGD(0.1, weight_decay=-1),
        "SGD: weight_decay is -1, it must be 0 or more",
        "0 is no decay",
    ),
    (
        lambda: gc.SGD(0.1, clip_norm=0),
        "SGD: clip_norm is 0, it must be above 0",
        "None is no clipping",
    ),
    (
        lambda: gc.SGD(0.1, accumulate=0),
        "SGD: accumulate is 0, it must be a whole number from 1 up",
        "1 is an update in each step",
    ),
    (
        lambda: gc.SGD(0.1, accumulate=1.5),  # type: ignore[arg-type]
        "SGD: accumulate is 1.5, it must be a whole number from 1 up",
        "1 is an update in each step",
    ),
    (
        lambda: gc.SGD(0.1, decay=3),  # type: ignore[arg-type]
        "SGD: decay is 3, it must be name patterns",
        'decay=("*.weight",)',
    ),
    (
        lambda: gc.SGD(0.1, schedule=0.5),  # type: ignore[arg-type]
        "SGD: schedule is 0.5, it must be a schedule",
        "gc.Cosine(total=10_000), gc.Step(1000, 0.5) or gc.WarmUp(500)",
    ),
    (
        lambda: gc.Cosine(0),
        "Cosine: total is 0, it must be a whole number from 1 up",
        "schedules count updates: with n batches an epoch, 10 epochs are 10*n updates",
    ),
    (
        lambda: gc.Cosine(10, warmup=10),
        "Cosine: warmup is 10, total is 10",
        "total counts the updates of the warm-up too, so it is the larger one",
    ),
    (
        lambda: gc.Cosine(10, floor=2.0),
        "Cosine: floor is 2.0, it must be from 0 to 1",
        "it is a factor on the learning rate, not a learning rate",
    ),
    (
        lambda: gc.Step(5, 0.0),
        "Step: factor is 0.0, it must be above 0",
        "Step(every=1000, factor=0.5) halves the rate each 1000 updates",
    ),
    (
        lambda: gc.WarmUp(5, then=0.1),  # type: ignore[arg-type]
        "WarmUp: then is 0.1, not a schedule",
        "WarmUp(500, then=Cosine(total=10_000))",
    ),
]


@pytest.mark.parametrize(("make", "sentence", "hint"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_mistakes(make: Callable[[], object], sentence: str, hint: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        make()
    assert caught.value.sentence == sentence
    assert caught.value.hint == hint
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__
    assert caught.value.loc.line == inspect.getsourcelines(make)[1]


def test_numbers_of_numpy_become_python_s() -> None:
    optimizer = gc.SGD(np.float64(0.5), accumulate=np.int64(2))  # type: ignore[arg-type]
    assert repr(optimizer) == repr(gc.SGD(0.5, accumulate=2))
    assert type(optimizer.lr) is float


def test_optimizers_are_values() -> None:
    first = gc.Adam(decay=["*.weight"], schedule=gc.WarmUp(3))  # type: ignore[arg-type]
    second = gc.Adam(decay=("*.weight",), schedule=gc.WarmUp(3))
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.lr = 1.0  # type: ignore[misc]


def test_an_update_is_not_differentiable() -> None:
    net = gc.Net("net", dtype="float64")
    p, g, rate = (net.parameter(n, s) for n, s in (("p", (2,)), ("g", (2,)), ("rate", ())))
    net.loss("loss", gc.sum(gc.apply(ops.SgdStep(), p, g, rate)))
    with pytest.raises(gc.GraphError, match=r"sgd_step .*: has no gradient rule"):
        gc.compile(net, batch=1)


def test_operands_that_do_not_fit_are_named() -> None:
    vector, matrix = TensorType((3,), "float32"), TensorType((3, 3), "float32")
    rate = vector.with_shape(())
    with pytest.raises(ValueError, match=r"gradient is float32\[3, 3\], it must be float32\[3\]"):
        ops.SgdStep().infer([vector, matrix, rate])
    with pytest.raises(ValueError, match="it takes velocity, gradient, parameter, not 2 operands"):
        ops.Momentum(0.9, 0.1).infer([vector, vector])
    with pytest.raises(ValueError, match=r"updates is float32\[\], it must be int64\[\]"):
        ops.AdamStep(0.9, 0.99, 1e-8).infer([vector, vector, vector, rate, rate])
    with pytest.raises(ValueError, match="only floats of a fixed shape"):
        ops.SgdStep().infer([TensorType((gc.N,), "float32")] * 2 + [rate])
