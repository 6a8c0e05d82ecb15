"""Rows of loops that end early, in any order of their lengths: as plain NumPy on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc

STEPS = 5
ENDS = ([4, 1, 2], [1, 4, 2], [2, 1, 4], [1, 1, 1], [5, 2, 5])
"""Lengths of three rows: the longest is the first, is in the middle, is the last, or is the whole
sequence."""
WEIGHTS = np.arange(10.0).reshape(STEPS, 2)
NATIVE = pytest.mark.needs("native")
BACKENDS = ["numpy", *(pytest.param(x, marks=pytest.mark.needs(x)) for x in ("native", "c"))]
WAYS = (("on", False), ("back", True))


COMPUTED = ([0, 2, -1], [9, 2, -3], [1, 6, 5], [0, -2, 0])
"""Lengths that a net computes may lie outside the sequence: then the steps are none, or all."""


def declared(length: str, mixes: bool) -> gc.Net:
    """Loops both ways, and the loss of all their results; a step may mix rows.

    They have the same operands.  Without a dtype of lengths all rows have all steps; those of
    int16 are computed.
    """
    net = gc.Net("ended", dtype="float64")
    x = net.input("x", (gc.N, STEPS, 2))
    ends = net.input("ends", (gc.N,), dtype=length) if length else None
    if ends is not None and length == "int16":
        ends = gc.cast(ends, "int64")
    u = net.parameter("u", (2, 2))

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(h @ u + x - gc.mean(h, axis=0) if mixes else h @ u + x)
        return h if mixes else h * h, h

    losses = []
    for name, reverse in WAYS:
        ys, last = gc.scan(step, x, x[:, 0] * 0.5, lengths=ends, reverse=reverse)
        net.output(f"{name}.ys", ys)
        net.output(f"{name}.last", last)
        losses.append(gc.sum(ys * net.constant(WEIGHTS)) + gc.sum(last * last))
    net.loss("loss", losses[0] + losses[1])
    return net


def by_numpy(x: Any, ends: Any, u: Any, mixes: bool) -> dict[str, Any]:
    """Return what it computes, step by step."""
    found: dict[str, Any] = {"loss": 0.0}
    for name, reverse in WAYS:
        ys, h = np.zeros(x.shape), x[:, 0] * 0.5
        for t in range(min(max(ends), STEPS))[:: -1 if reverse else 1]:
            going = (t < np.array(ends))[:, None]
            mean = h.mean(0) if mixes else 0.0
            h = np.where(going, np.tanh(h @ u + x[:, t] - mean), h)
            ys[:, t] = going * h * (1.0 if mixes else h)
        found |= {f"{name}.ys": ys, f"{name}.last": h}
        found["loss"] += (ys * WEIGHTS).sum() + (h * h).sum()
    return found


@pytest.mark.parametrize(
    ("backend", "length", "mixes"),
    [
        ("numpy", "int64", False),
        ("numpy", "int32", True),
        pytest.param("native", "int32", False, marks=NATIVE),
        pytest.param("native", "int64", True, marks=NATIVE),
        pytest.param("native", "", True, marks=NATIVE),
        ("numpy", "int16", False),
        pytest.param("native", "int16", False, marks=NATIVE),
        pytest.param("c", "int16", False, marks=pytest.mark.needs("c")),
        pytest.param("c", "int64", False, marks=pytest.mark.needs("c")),
    ],
)
def test_the_longest_row_may_be_any(backend: str, length: str, mixes: bool) -> None:
    ex = gc.Executor(
        gc.compile(
            declared(length, mixes), batch=3, backend=backend, threads=2, optimizer=gc.SGD(0.0)
        )
    )
    rng = np.random.default_rng(0)
    x, u = rng.standard_normal((3, STEPS, 2)), rng.standard_normal((2, 2))
    ex.parameters["u"] = u
    for ends in {"": [[STEPS] * 3], "int16": COMPUTED}.get(length, ENDS):
        feeds = {"x": x, "ends": np.array(ends)} if length else {"x": x}
        wanted = by_numpy(x, ends, u, mixes)
        found = ex.forward(feeds, train=True)
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, err_msg=f"{name} {ends}")
        slopes = np.zeros((2, 2))
        for place in np.ndindex(2, 2):
            moved = np.zeros((2, 2))
            moved[place] = 1e-6
            up, down = (by_numpy(x, ends, u + by, mixes)["loss"] for by in (moved, -moved))
            slopes[place] = (up - down) / 2e-6
        np.testing.assert_allclose(ex.backward()["u"], slopes, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_follows_from_the_steps_ends_with_their_row(backend: str) -> None:
    """It runs for all steps at once, and where a run before had more of them there are zeros."""
    net = gc.Net("at once")
    x, ends = net.input("x", (gc.N, STEPS, 3)), net.input("ends", (gc.N,), dtype="int64")
    v = net.parameter("v", (3, 2))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(h) + x
        return 1 + gc.tanh(h @ v), h

    net.output("ys", gc.scan(step, x, x[:, 0] * 0, lengths=ends)[0])
    plan = gc.compile(net, batch=3, backend=backend, threads=2)
    assert any(i.inside is not None and i.inside.at_once for i in plan.programs["infer"].instrs)
    ex = gc.Executor(plan, seed=0)
    x = np.random.default_rng(0).standard_normal((3, STEPS, 3)).astype("float32")
    for last in ([5, 5, 5], [1, 3, 2], [0, 0, 1], [0, 0, 0]):
        h, wanted = np.zeros((3, 3)), np.zeros((3, STEPS, 2))
        for t in range(STEPS):
            h = np.tanh(h) + x[:, t]
            going = t < np.array(last)[:, None]
            wanted[:, t] = going * (1 + np.tanh(h @ ex.parameters["v"]))
        found = ex.forward({"x": x, "ends": np.array(last)})["ys"]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=str(last))


def images() -> gc.Net:
    """A convolution and a product in the step of a loop, whose rows have lengths."""
    net = gc.Net("images")
    x, ends = net.input("x", (gc.N, 2, 3, 4, 4)), net.input("ends", (gc.N,), dtype="int64")
    w, u = net.parameter("w", (3, 3, 3, 3)), net.parameter("u", (48, 20))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.conv(h, w, padding=1) + x)
        return gc.reshape(h, (gc.N, 48)) @ u, h

    ys, last = gc.scan(step, x, x[:, 0], lengths=ends)
    net.loss("loss", gc.sum(ys * ys) + gc.sum(last * last))
    return net


@NATIVE
@pytest.mark.parametrize("precision", ["bf16", "bf16_blocks"])
def test_a_weight_of_no_steps_has_no_gradient(precision: str) -> None:
    """What the steps of the run before left behind is not added up again."""
    plan = gc.compile(images(), batch=2, backend="native", precision={"*": precision})
    ex, x = gc.Executor(plan, seed=0), np.ones((2, 2, 3, 4, 4), "float32")
    for ends in ([2, 1], [0, 0]):
        ex.forward({"x": x, "ends": np.array(ends)}, train=True)
        found = ex.backward()
        assert all(array.any() == (max(ends) > 0) for array in found.values()), ends
