"""Optimizers against their published rules, written out again in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.lowering import Lowering
from graphc.compiler.schedule import schedule
from graphc.declare.optim import Optimizer
from graphc.ops import optim as ops
from graphc.runtime.reference import evaluate, initial_state, next_state
from passes.update import apply_graph
from tests.extras import needs
from tests.updates import Array, parameters, run, update

RNG = np.random.default_rng(7)
W = {"w": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(4)}
STEPS = [{k: RNG.standard_normal(v.shape) for k, v in W.items()} for _ in range(6)]


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
        w, buf = start.copy(), np.zeros_like(start)
        for gradients in STEPS:
            g = gradients[name] + decay * w
            buf = 0.9 * buf + g
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


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_rmsprop_as_torch_documents_it(momentum: float, decay: float) -> None:
    optimizer = gc.RMSprop(0.02, 0.9, 1e-3, momentum, weight_decay=decay, decay=("*",))
    after = run(optimizer, W, STEPS)
    for name, start in W.items():
        w, square, buf = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for gradients in STEPS:
            g = gradients[name] + decay * w
            square = 0.9 * square + 0.1 * g**2
            buf = momentum * buf + g / (np.sqrt(square) + 1e-3)
            w = w - 0.02 * buf
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.square"], square, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adagrad_as_torch_documents_it(decay: float) -> None:
    after = run(gc.Adagrad(0.02, 1e-3, weight_decay=decay, decay=("*",)), W, STEPS)
    for name, start in W.items():
        w, total = start.copy(), np.zeros_like(start)
        for gradients in STEPS:
            g = gradients[name] + decay * w
            total = total + g**2
            w = w - 0.02 * g / (np.sqrt(total) + 1e-3)
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.sum"], total, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_lion_as_published(decay: float) -> None:
    after = run(gc.Lion(0.02, 0.8, 0.95, weight_decay=decay, decay=("*",)), W, STEPS)
    for name, start in W.items():
        w, m = start.copy(), np.zeros_like(start)
        for gradients in STEPS:
            g = gradients[name]
            w = w - 0.02 * (np.sign(0.8 * m + 0.2 * g) + decay * w)
            m = 0.95 * m + 0.05 * g
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.mean"], m, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_nadam_as_torch_documents_it(decay: float) -> None:
    optimizer = gc.NAdam(0.02, 0.8, 0.95, 1e-3, 0.1, weight_decay=decay, decay=("*",))
    after = run(optimizer, W, STEPS)
    product = 1.0
    for name, start in W.items():
        w, m, v, product = start.copy(), np.zeros_like(start), np.zeros_like(start), 1.0
        for t, gradients in enumerate(STEPS, 1):
            g = gradients[name] + decay * w
            mu, ahead = (0.8 * (1 - 0.5 * 0.96 ** (s * 0.1)) for s in (t, t + 1))
            product *= mu
            m = 0.8 * m + 0.2 * g
            v = 0.95 * v + 0.05 * g**2
            mhat = ahead * m / (1 - product * ahead) + (1 - mu) * g / (1 - product)
            w = w - 0.02 * mhat / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.mean"], m, rtol=1e-12)
    np.testing.assert_allclose(after["momenta.float64"], product, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adamax_as_published(decay: float) -> None:
    after = run(gc.Adamax(0.02, 0.8, 0.95, 1e-3, weight_decay=decay, decay=("*",)), W, STEPS)
    for name, start in W.items():
        w, m, u = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for t, gradients in enumerate(STEPS, 1):
            g = gradients[name] + decay * w
            m = 0.8 * m + 0.2 * g
            u = np.maximum(0.95 * u, np.abs(g) + 1e-3)
            w = w - 0.02 / (1 - 0.8**t) * m / u
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.largest"], u, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_adadelta_as_published(decay: float) -> None:
    after = run(gc.Adadelta(0.5, 0.8, 1e-3, weight_decay=decay, decay=("*",)), W, STEPS)
    for name, start in W.items():
        w, square, delta = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for gradients in STEPS:
            g = gradients[name] + decay * w
            square = 0.8 * square + 0.2 * g**2
            change = np.sqrt(delta + 1e-3) / np.sqrt(square + 1e-3) * g
            delta = 0.8 * delta + 0.2 * change**2
            w = w - 0.5 * change
        np.testing.assert_allclose(after[name], w, rtol=1e-12)
        np.testing.assert_allclose(after[f"{name}.delta"], delta, rtol=1e-12)


TORCH: dict[str, tuple[Optimizer, dict[str, Any]]] = {
    "SGD": (gc.SGD(0.1, 0.9, True), {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (gc.Adam(0.01), {"lr": 0.01}),
    "AdamW": (gc.AdamW(0.01, weight_decay=0.1), {"lr": 0.01, "weight_decay": 0.1}),
    "NAdam": (gc.NAdam(0.01), {"lr": 0.01}),
    "Adamax": (gc.Adamax(0.01), {"lr": 0.01}),
    "RMSprop": (gc.RMSprop(0.01, momentum=0.5), {"lr": 0.01, "momentum": 0.5}),
    "Adagrad": (gc.Adagrad(0.1), {"lr": 0.1}),
    "Adadelta": (gc.Adadelta(0.5), {"lr": 0.5}),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_does_the_same(name: str) -> None:
    torch = needs("torch")
    optimizer, options = TORCH[name]
    after = run(optimizer, {"w": W["w"]}, STEPS)
    w = torch.tensor(W["w"], requires_grad=True)
    theirs = getattr(torch.optim, name)([w], **options)
    for gradients in STEPS:
        w.grad = torch.tensor(gradients["w"])
        theirs.step()
    close = 1e-6 if name == "NAdam" else 1e-9  # its product of momenta is a float32
    np.testing.assert_allclose(after["w"], w.detach().numpy(), rtol=close)


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
    state |= {"w.mean": table(0.6, 0.9), "w.square": table(0.7, 0.5), "updates": np.asarray(5)}
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


def test_clipping_limits_the_norm_over_all_parameters() -> None:
    gradients = {"w": np.full((3, 4), 3.0), "b": np.full(4, -2.0)}
    norm = np.sqrt(12 * 9 + 4 * 4)
    after = run(gc.SGD(1.0, clip_norm=2.0), W, [gradients])
    for name, g in gradients.items():
        np.testing.assert_allclose(W[name] - after[name], g * 2.0 / norm, rtol=1e-12)
    unclipped = run(gc.SGD(1.0, clip_norm=100.0), W, [gradients])
    for name, g in gradients.items():
        np.testing.assert_array_equal(unclipped[name], W[name] - g)


def test_clipping_by_value_comes_before_clipping_by_norm() -> None:
    gradients = {"w": np.full((3, 4), 3.0), "b": np.full(4, -0.2)}
    after = run(gc.SGD(1.0, clip_value=0.5), W, [gradients])
    np.testing.assert_allclose(W["w"] - after["w"], 0.5, rtol=1e-12)
    np.testing.assert_allclose(W["b"] - after["b"], -0.2, rtol=1e-12)
    both = run(gc.SGD(1.0, clip_value=0.5, clip_norm=1.0), W, [gradients])
    norm = np.sqrt(12 * 0.25 + 4 * 0.04)
    np.testing.assert_allclose(W["w"] - both["w"], 0.5 / norm, rtol=1e-12)


@pytest.mark.parametrize(
    ("total", "scale"), [(0.0, 1.0), (4.0, 0.5), (1.0, 1.0), (np.inf, 0.0), (np.nan, np.nan)]
)
def test_clip_scale(total: float, scale: float) -> None:
    operands = [np.asarray(total), np.asarray(1.0)]
    np.testing.assert_equal(float(ops.ClipScale().reference(operands)), scale)


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    "optimizer",
    [
        gc.SGD(0.1, 0.9),
        gc.SGD(0.1, 0.9, True, weight_decay=0.1, decay=("*",)),
        gc.Adam(0.01, weight_decay=0.1, clip_norm=0.5, schedule=gc.WarmUp(4, then=gc.Cosine(9))),
        gc.AdamW(0.01, decay=("*",), schedule=gc.Step(2, 0.5)),
        gc.NAdam(0.01, ema=0.9),
        gc.Adamax(0.01, clip_value=0.01),
        gc.Adadelta(groups=[gc.Group("affine_2.*", lr=0.5, weight_decay=0.1)]),
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
        order = schedule(graph)
        assert order.commits == ()
        instrs = Lowering(graph, order, 1).instrs
        assert {instr.kind for instr in instrs} == {"kernel"}, "a copy would be a node's"
        assert {out for instr in instrs for out in instr.outs} >= set(graph.updates.values())
