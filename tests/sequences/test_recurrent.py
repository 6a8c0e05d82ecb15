"""Recurrent layers are PyTorch's, on both backends; their variants are what is written of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ops.loops.op import Scan
from tests.sequences.by_torch import TOLERANCE, TORCH, Array, wave

BACKENDS = ("numpy", "native")
SIDES = ("ih", "hh")
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loop_over_values_of_another_shape(backend: str) -> None:
    """A reshape is the memory of its operand, from which a loop reads steps and initial values."""
    net = gc.Net("reshaped", dtype="float64")
    flat, start = net.input("flat", (3 * gc.N, 2)), net.input("start", (gc.N, 1, 4))
    x, h = gc.reshape(flat, (gc.N, 3, 2)), gc.reshape(start, (gc.N, 4))
    plain, same = net.input("x", (gc.N, 3, 2)), net.input("h", (gc.N, 4))
    for name, given in (("ours", (x, h)), ("same", (plain, same))):
        y, last = gc.gru(given[0], 4, initial=given[1], name=f"{name}.gru", init=gc.Constant(0.3))
        net.output(name, y)
        net.output(f"{name}.last", last)
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend))
    state = wave(2, 4, a=0.7)
    found = ex.forward(flat=X.reshape(6, 2), start=state[:, None], x=X, h=state)
    np.testing.assert_array_equal(found["ours"], found["same"])
    np.testing.assert_array_equal(found["ours.last"], found["same.last"])


LENGTHS = np.array([3, 1, 5, 4], np.int32)
OPTIONS: list[dict[str, Any]] = [{}, {"reverse": True}, {"bidirectional": True}, {"layers": 2}]


@pytest.mark.one_in(11)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda given: "".join(given) or "plain")
@pytest.mark.parametrize("layer", [gc.rnn, gc.lstm, gc.gru])
def test_a_row_among_longer_ones_is_the_row_alone(layer: Any, options: Any, backend: str) -> None:
    x = wave(4, 5, 3, a=0.83)

    def results(steps: int, rows: int, feeds: dict[str, Any]) -> Any:
        net = gc.Net("lengths")
        given = net.input("x", (gc.N, steps, 3))
        more = dict(options)
        if "lengths" in feeds:
            more["lengths"] = net.input("lengths", (gc.N,), dtype="int32")
        y, last = layer(given, 4, name="layer", **more)
        net.output("y", y)
        net.output("last", last[0] if isinstance(last, tuple) else last)
        plan = gc.compile(net, batch=rows, backend=backend)
        found = gc.Executor(plan, seed=2).forward(feeds)
        return found["y"], found["last"]

    states, last = results(5, 4, {"x": x, "lengths": LENGTHS})
    for row, length in enumerate(LENGTHS):
        alone, end = results(int(length), 1, {"x": x[row : row + 1, :length]})
        np.testing.assert_allclose(states[row, :length], alone[0], atol=1e-6)
        np.testing.assert_allclose(last[row], end[0], atol=1e-6)
        assert not states[row, length:].any()


@pytest.mark.one_in(9)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [gc.N, 1, 2])
@pytest.mark.parametrize("sizes", [(1, 2, 3), (3, 1, 1), (1, 1, 1)])
def test_a_layer_is_its_cells(sizes: tuple[int, int, int], rows: Any, backend: str) -> None:
    """The difference of a layer and its cells, written one after the other, has no gradient."""
    steps, features, width = sizes
    net = gc.Net("cells", dtype="float64")
    x, c = net.input("x", (rows, steps, features)), net.input("c", (rows, steps, width))
    h0 = net.input("h0", (rows, width))
    for kind in ("rnn", "lstm", "gru"):
        start = (h0, h0) if kind == "lstm" else h0
        y, _ = getattr(gc, kind)(x, width, initial=start, name=kind)
        weights = [net[f"{kind}.{role}_{side}"] for role in ("weight", "bias") for side in SIDES]
        states, found = (h0, h0) if kind == "lstm" else (h0,), []
        for t in range(steps):
            after = getattr(gc, f"{kind}_cell")(x[:, t], *states, *weights)
            states = after if isinstance(after, tuple) else (after,)
            found.append(states[0])
        by_cells = gc.stack(found, 1)
        net.output(f"{kind}.layer", y)
        net.output(f"{kind}.cells", by_cells)
        net.loss(f"{kind}.loss", gc.sum(c * y) - gc.sum(c * by_cells))
    count = 2 if rows == gc.N else rows
    shapes = {"x": (steps, features), "c": (steps, width), "h0": (width,)}
    feeds = {name: wave(count, *shape, a=0.7) for name, shape in shapes.items()}
    plan = gc.compile(net, batch=count, backend=backend, wrt=["x", "h0", "rnn*", "lstm*", "gru*"])
    ex = gc.Executor(plan, seed=1)
    values = ex.forward(feeds, train=True)
    for kind in ("rnn", "lstm", "gru"):
        np.testing.assert_allclose(values[f"{kind}.layer"], values[f"{kind}.cells"], **TOLERANCE)
    for name, gradient in ex.backward().items():
        np.testing.assert_allclose(gradient, 0, atol=1e-12, err_msg=name)


def test_dropout_between_layers() -> None:
    """What the second layer reads has the mask of a dropout; the last states have none."""
    net = gc.Net("dropout", dtype="float64")
    x = net.input("x", (gc.N, 3, 2))
    y, last = gc.gru(x, 4, layers=2, drop_prob=0.5, name="layer")
    net.output("y", y)
    net.output("last", last)
    net.output("dropped", net["layer.layer1.dropout"])
    net.output("first", net["layer.layer1"])
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    plain, dropped = ex.forward(x=X), ex.forward(x=X, train=True)
    np.testing.assert_array_equal(plain["dropped"], plain["first"])
    share = dropped["dropped"] / dropped["first"]
    assert set(np.unique(share.round(9))) == {0.0, 2.0}
    np.testing.assert_array_equal(plain["last"][:, 0], dropped["last"][:, 0])
    assert (plain["y"] != dropped["y"]).any()
    assert dropped["y"].all(), "the last layer drops nothing"


def test_the_graph_does_not_grow_with_the_steps() -> None:
    def size(steps: int) -> int:
        net = gc.Net("steps")
        y, _ = gc.lstm(net.input("x", (gc.N, steps, 128)), 128)
        net.loss("loss", gc.mean(y * y))
        plan = gc.compile(net, batch=32, optimizer=gc.SGD(lr=0.1), backend="numpy")
        graph = plan.programs["step"].graph
        inside = {node.op.step: 0 for node in graph if isinstance(node.op, Scan)}
        return len(graph) + sum(len(step.nodes) for step in inside)

    assert size(512) == size(256) <= size(4) < 200


def test_products_of_the_inputs_are_one() -> None:
    """Only h is multiplied step by step; x, and what weights get, are products over all steps."""
    net = gc.Net("products")
    y, _ = gc.lstm(net.input("x", (gc.N, 6, 8)), 16)
    net.loss("loss", gc.mean(y * y))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
    loops = [instr.inside for instr in plan.programs["step"].instrs if instr.inside is not None]
    inside = {True: 0, False: 0}
    for loop in loops:
        inside[loop.at_once] += sum(i.kernel.startswith("gemm") for i in loop.program.instrs)
    assert inside == {True: 3, False: 2}


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
    with pytest.raises(GraphError, match=r"it must be \(N, 2, 3\)"):
        gc.rnn(x, 3, layers=2, initial=net.input("h2", (gc.N, 3)))
    with pytest.raises(GraphError, match="dropout is between layers, and there is one"):
        gc.gru(x, 3, drop_prob=0.5)
    with pytest.raises(GraphError, match="lstm: projection is 0"):
        gc.lstm(x, 3, projection=0)
    with pytest.raises(GraphError, match="lengths is"):
        gc.lstm(x, 3, lengths=net.input("lengths", (gc.N,)))
    with pytest.raises(GraphError, match="activation 'gelu' is not one of tanh, relu"):
        gc.rnn(x, 3, activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="does not fit a weight"):
        weights = net.parameter("w", (5, 3)), net.parameter("u", (3, 3))
        gc.rnn_cell(x[:, 0], net.input("state", (gc.N, 3)), *weights)
    assert "rnn_1" not in net.builder.nodes
