"""Recurrent layers as PyTorch writes them, with the steps in front, for batches in front."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load
from tests.onnx.models import model, node
from tests.onnx.test_load import numbers

STEPS, FEATURES, UNITS = 5, 3, 4


def lstm(weights: dict[str, Array]) -> gc.Net:
    """The last state of an LSTM over a batch of sequences."""
    nodes = [
        node("Transpose", "x", "steps", perm=[1, 0, 2]),
        node("LSTM", "steps w r b", "states", hidden_size=UNITS),
        node("Constant", "", "directions", value_ints=[1]),
        node("Squeeze", "states directions", "flat"),
        node("Transpose", "flat", "batch", perm=[1, 0, 2]),
        node("Constant", "", "last", value_int=-1),
        node("Gather", "batch last", "y", axis=1),
    ]
    return load(model(nodes, {"x": ("N", STEPS, FEATURES)}, ["y"], weights))


def test_steps_are_multiplied_at_once_and_nothing_is_copied() -> None:
    shapes = {"w": (1, 4 * UNITS, FEATURES), "r": (1, 4 * UNITS, UNITS), "b": (1, 8 * UNITS)}
    weights = {name: numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    plan = gc.compile(lstm(weights), batch=6)
    frozen = gc.freeze(gc.Executor(plan), batch=6)
    instrs = frozen.plan.programs["infer"].instrs
    loops = [instr.inside for instr in instrs if instr.inside is not None]
    products = {
        loop.at_once: sum(instr.kernel.startswith("gemm") for instr in loop.program.instrs)
        for loop in loops
    }
    assert products == {True: 1, False: 1}
    assert "concat" not in [instr.kernel for instr in instrs]
    x = numbers(6, STEPS, FEATURES, seed=9)
    np.testing.assert_allclose(frozen.forward(x=x)["y"], by_steps(x, weights), atol=1e-6)


def test_gates_look_at_the_cell_before_and_after() -> None:
    """Input and forget gates see the cell of the step before, the output gate that of its own."""
    shapes = {"w": (1, 4 * UNITS, FEATURES), "r": (1, 4 * UNITS, UNITS), "b": (1, 8 * UNITS)}
    shapes |= {"holes": (1, 3 * UNITS), "h0": (1, 1, UNITS), "c0": (1, 1, UNITS)}
    weights = {name: numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    one = node("LSTM", "x w r b  h0 c0 holes", "y h c", hidden_size=UNITS)
    one.input[:] = ["x", "w", "r", "b", "", "h0", "c0", "holes"]
    x = numbers(STEPS, 1, FEATURES, seed=9)
    net = load(model([one], {"x": (STEPS, 1, FEATURES)}, ["h", "c"], weights))
    found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward(x=x)
    wide = {name: array[0].astype(np.float64) for name, array in weights.items()}
    h, c, bias = wide["h0"], wide["c0"], wide["b"].reshape(2, -1).sum(axis=0)
    of_i, of_o, of_f = np.split(wide["holes"], 3)
    for step in x.astype(np.float64):
        total = step @ wide["w"].T + h @ wide["r"].T + bias
        i, o, f, g = np.split(total, 4, axis=1)
        kept = c / (1 + np.exp(-(f + of_f * c)))
        c = kept + np.tanh(g) / (1 + np.exp(-(i + of_i * c)))
        h = np.tanh(c) / (1 + np.exp(-(o + of_o * c)))
    np.testing.assert_allclose(found["h"][0], h, atol=1e-5)
    np.testing.assert_allclose(found["c"][0], c, atol=1e-5)


@pytest.mark.parametrize("fed", [True, False], ids=["input", "initializer"])
def test_rows_have_lengths(fed: bool) -> None:
    """A row that ends early is the row alone, and 0 behind its end; one of them is whole."""
    shapes = {"w": (2, 3 * UNITS, FEATURES), "r": (2, 3 * UNITS, UNITS), "b": (2, 6 * UNITS)}
    weights = {name: numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}

    def results(steps: int, **feeds: Array) -> list[Array]:
        given = {"lengths": feeds.pop("lengths")} if not fed and "lengths" in feeds else {}
        operands = "x w r b lengths" if "lengths" in feeds or given else "x w r b"
        options = {"hidden_size": UNITS, "direction": "bidirectional", "layout": 1}
        gru = node("GRU", operands, "y h", **options)
        lengths = {"lengths": ("N", "int32")} if "lengths" in feeds else {}
        inputs = {"x": ("N" if fed else len(feeds["x"]), steps, FEATURES), **lengths}
        net = load(model([gru], inputs, ["y", "h"], weights | given))
        found = gc.Executor(gc.compile(net, batch=3, backend="numpy")).forward(feeds)
        return [found["y"], found["h"]]

    x, lengths = numbers(3, STEPS, FEATURES, seed=9), np.array([5, 2, 3], np.int32)
    y, h = results(STEPS, x=x, lengths=lengths)
    for row, length in enumerate(lengths):
        states, last = results(int(length), x=x[row : row + 1, :length])
        np.testing.assert_allclose(y[row, :length], states[0], atol=1e-6)
        np.testing.assert_allclose(h[row], last[0], atol=1e-6)
        assert not y[row, length:].any()


@pytest.mark.parametrize("layout", [0, 1])
def test_each_direction_begins_with_its_own_state(layout: int) -> None:
    """Both are those of a layer in one direction."""
    shapes = {"w": (2, UNITS, FEATURES), "r": (2, UNITS, UNITS), "b": (2, 2 * UNITS)}
    weights = {name: numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    start, x = numbers(2, 3, UNITS, seed=7), numbers(STEPS, 3, FEATURES, seed=9)

    def last(held: dict[str, Array], start: Array, way: str) -> Array:
        x_, start_ = (np.moveaxis(a, 0, 1) if layout else a for a in (x, start))
        rnn = node("RNN", "x w r b - h", "y last", direction=way, hidden_size=UNITS, layout=layout)
        net = load(model([rnn], {"x": x_.shape}, ["last"], held | {"h": start_}, opset=21))
        found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward(x=x_)["last"]
        return np.moveaxis(found, 1, 0) if layout else found

    both = last(weights, start, "bidirectional")
    for i, way in enumerate(("forward", "reverse")):
        own = {name: array[i : i + 1] for name, array in weights.items()}
        np.testing.assert_allclose(both[i], last(own, start[i : i + 1], way)[0], rtol=1e-5)


def by_steps(x: Array, weights: dict[str, Array]) -> Array:
    """The last state by the formulas of ONNX; gates: input, output, forget, cell."""
    w, r, b = (weights[name][0].astype(np.float64) for name in "wrb")
    h = c = np.zeros((len(x), UNITS))
    for step in np.moveaxis(x, 1, 0):
        total = step @ w.T + h @ r.T + b[: 4 * UNITS] + b[4 * UNITS :]
        i, o, f = (1 / (1 + np.exp(-total[:, k * UNITS : (k + 1) * UNITS])) for k in range(3))
        c = f * c + i * np.tanh(total[:, 3 * UNITS :])
        h = o * np.tanh(c)
    return np.asarray(h)
