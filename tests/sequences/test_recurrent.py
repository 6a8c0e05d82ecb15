"""Recurrent layers are PyTorch's, on both backends; their variants are what is written of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from tests.sequences.by_torch import TOLERANCE, TORCH, Array, wave

BACKENDS = ("numpy", "native")
X = wave(2, 3, 2, a=0.83)
STATES = {"h0": wave(1, 2, 3, a=1.1)[0], "c0": wave(1, 2, 3, a=0.4)[0]}
GATES = {"rnn": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
LAYERS = {"rnn": gc.rnn, "rnn_relu": gc.rnn, "lstm": gc.lstm, "gru": gc.gru}


def options_of(kind: str) -> dict[str, Any]:
    return {"activation": "relu"} if kind == "rnn_relu" else {}


def parameters_of(kind: str, both: bool) -> dict[str, tuple[str, Array]]:
    """PyTorch's name of each of graphc's parameters, and what it holds to begin with."""
    size = 3 * GATES[kind]
    shapes = {
        "weight_ih": (size, 2),
        "weight_hh": (size, 3),
        "bias_ih": (size,),
        "bias_hh": (size,),
    }
    found: dict[str, tuple[str, Array]] = {}
    for way in ("", "_reverse") if both else ("",):
        for role, shape in shapes.items():
            name = f"layer{way.replace('_', '.')}.{role}"
            found[name] = f"{role}_l0{way}", wave(*shape, a=0.29 + 0.1 * len(found))
    return found


@pytest.mark.one_in(7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("both", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("kind", GATES)
def test_layers(kind: str, both: bool, backend: str) -> None:
    expected = TORCH[f"{kind}_both" if both else kind]
    net = gc.Net("recurrent", dtype="float64")
    x = net.input("x", (gc.N, 3, 2))
    starts = {} if both else {name: net.input(name, (gc.N, 3)) for name in STATES}
    initial: Any = None
    if not both:
        initial = tuple(starts.values()) if kind == "lstm" else starts["h0"]
    more = {"bidirectional": True} if both else {"initial": initial}
    y, last = LAYERS[kind](x, 3, name="layer", **options_of(kind), **more)
    lasts = list(last) if isinstance(last, tuple) else [last]
    total = gc.sum(y * net.input("c", y.shape))
    of_last = net.input("of_last", lasts[0].shape)
    for i, state in enumerate(lasts):
        net.output(f"last{i}", state)
        total = total + gc.sum(state * of_last)
    net.output("y", y)
    net.loss("total", total)
    parameters = parameters_of(kind, both)
    used = ["h0", "c0"] if kind == "lstm" else ["h0"]
    wrt = ["x", "layer*", *([] if both else used)]
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, wrt=wrt))
    for name, (_, value) in parameters.items():
        ex.parameters[name] = value.T
    c, ways = wave(*np.shape(expected["y"]), a=0.9), wave(1 + both, 2, 3, a=0.2)
    feeds = {"x": X, "c": c, "of_last": np.concatenate(list(ways), axis=1), **STATES}
    feeds = {name: value for name, value in feeds.items() if name in ex.plan.input_names}
    found = dict(ex.forward(feeds, train=True))
    found |= ex.backward()
    for name, (theirs, _) in parameters.items():
        np.testing.assert_allclose(
            found[name], np.transpose(expected[theirs]), err_msg=name, **TOLERANCE
        )
    for name in ("y", "x"):
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **TOLERANCE)
    for i in range(len(lasts)):
        wanted = np.concatenate(list(np.array(expected[f"last{i}"])), axis=1)
        np.testing.assert_allclose(found[f"last{i}"], wanted, **TOLERANCE)
    for name in () if both else used:
        np.testing.assert_allclose(found[name], np.array(expected[name])[0], **TOLERANCE)


def test_a_reset_gate_before_the_product() -> None:
    """ONNX's GRU with linear_before_reset = 0, in plain NumPy."""
    x, h = wave(2, 3, a=0.3), wave(2, 4, a=0.7)
    w, r = wave(3, 12, a=0.41), wave(4, 12, a=0.57)
    b, c = wave(12, a=0.9), wave(12, a=1.3)
    net = gc.Net("gru", dtype="float64")
    names = {"w": w, "r": r, "b": b, "c": c}
    weights = [net.constant(value) for value in names.values()]
    fed = net.input("x", (gc.N, 3)), net.input("h", (gc.N, 4))
    net.output("y", gc.gru_cell(*fed, *weights, reset_after=False))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))

    def gate(k: int, state: Array) -> Array:
        own = slice(4 * k, 4 * k + 4)
        return x @ w[:, own] + b[own] + state @ r[:, own] + c[own]

    reset, update = (1 / (1 + np.exp(-gate(k, h))) for k in (0, 1))
    new = np.tanh(gate(2, reset * h))
    np.testing.assert_allclose(ex.forward(x=x, h=h)["y"], (1 - update) * new + update * h)


def test_a_sequence_in_reverse() -> None:
    net = gc.Net("reverse", dtype="float64")
    x, turned = net.input("x", (gc.N, 3, 2)), net.input("turned", (gc.N, 3, 2))
    y, last = gc.gru(x, 4, reverse=True, name="one", init=gc.Constant(0.3))
    other, final = gc.gru(turned, 4, name="other", init=gc.Constant(0.3))
    for name, value in (("y", y), ("last", last), ("other_y", other), ("final", final)):
        net.output(name, value)
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    found = ex.forward(x=X, turned=X[:, ::-1])
    np.testing.assert_allclose(found["y"], found["other_y"][:, ::-1])
    np.testing.assert_allclose(found["last"], found["final"])


def test_gradients_of_steps_are_joined_and_not_filled_up() -> None:
    """What x adds in all steps is one value; its gradient is put together once."""
    net = gc.Net("joined")
    y, _ = gc.lstm(net.input("x", (gc.N, 6, 2)), 3)
    net.loss("loss", gc.mean(y * y))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="native")
    graph = plan.programs["step"].graph
    assert not [node.name for node in graph if node.op.name == "slice_grad"]


def test_what_is_refused() -> None:
    net = gc.Net("wrong")
    x = net.input("x", (gc.N, 3, 2))
    with pytest.raises(GraphError, match="lstm: x is"):
        gc.lstm(net.input("flat", (gc.N, 2)), 3)
    with pytest.raises(GraphError, match="width is 0"):
        gc.gru(x, 0)
    with pytest.raises(GraphError, match=r"it must be \(N, 3\)"):
        gc.rnn(x, 3, initial=net.input("h", (gc.N, 4)))
    with pytest.raises(GraphError, match="takes neither initial nor reverse"):
        gc.rnn(x, 3, reverse=True, bidirectional=True)
    with pytest.raises(GraphError, match="activation 'gelu' is not one of tanh, relu"):
        gc.rnn(x, 3, activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="does not fit a weight"):
        weights = net.parameter("w", (5, 3)), net.parameter("u", (3, 3))
        gc.rnn_cell(x[:, 0], net.input("state", (gc.N, 3)), *weights)
    assert "rnn_1" not in net.builder.nodes
