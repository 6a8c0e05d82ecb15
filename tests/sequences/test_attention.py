"""Attention, alone and in several heads, is PyTorch's, on both backends."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from tests.sequences.by_torch import TOLERANCE, TORCH, Array, wave

BACKENDS = ("numpy", "native")
Q, K, V = wave(2, 2, 3, 4, a=0.7), wave(2, 2, 5, 4, a=0.31), wave(2, 2, 5, 2, a=0.53)
MASK = wave(3, 5, a=1.7)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["plain", "causal", "scaled", "mask", "seen"])
def test_attention(case: str, backend: str) -> None:
    expected = TORCH[f"attention_{case}"]
    net = gc.Net("attention", dtype="float64")
    values = {name: net.parameter(name, x.shape) for name, x in zip("qkv", (Q, K, V), strict=True)}
    options = {
        "plain": {},
        "causal": {"causal": True},
        "scaled": {"scale": 0.3},
        "mask": {"mask": net.constant(MASK)},
        "seen": {"mask": net.constant(MASK > -0.4)},
    }[case]
    n = net.input("n", (gc.N,))
    y = gc.attention(*values.values(), **options)
    net.output("y", y)
    net.loss("total", gc.sum(y * net.constant(wave(2, 2, 3, 2, a=0.9))) + gc.mean(n) * 0)
    ex = gc.Executor(gc.compile(net, batch=1, backend=backend))
    for name, x in zip("qkv", (Q, K, V), strict=True):
        ex.parameters[name] = x
    found = {"y": ex.forward(n=np.zeros(1), train=True)["y"], **ex.backward()}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, **TOLERANCE)


def weights_of(case: str, kind: str) -> dict[str, Array]:
    """PyTorch's packed projections of queries, keys and values, as the three of graphc."""
    if kind == "start":
        packed = {
            "in_proj_weight": wave(12, 4, a=0.29),
            "in_proj_bias": wave(12, a=0.77),
            "out_weight": wave(4, 4, a=0.43),
            "out_bias": wave(4, a=0.91),
        }
    else:
        packed = {name: np.array(value) for name, value in TORCH[case].items()}
    found = {"heads.weight": packed["out_weight"].T, "heads.bias": packed["out_bias"]}
    for i, role in enumerate("qkv"):
        rows = slice(4 * i, 4 * i + 4)
        found[f"heads.{role}.weight"] = packed["in_proj_weight"][rows].T
        found[f"heads.{role}.bias"] = packed["in_proj_bias"][rows]
    return found


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_heads(causal: bool, backend: str) -> None:
    case = "heads_causal" if causal else "heads_plain"
    x = wave(2, 3, 4, a=0.83)
    net = gc.Net("heads", dtype="float64")
    fed, c = net.input("x", (gc.N, 3, 4)), net.input("c", (gc.N, 3, 4))
    y = gc.multi_head_attention(fed, 2, causal=causal, name="heads")
    net.output("y", y)
    net.loss("total", gc.sum(y * c))
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, wrt=["x", "heads*"]))
    for name, value in weights_of(case, "start").items():
        ex.parameters[name] = value
    feeds = {"x": x, "c": wave(2, 3, 4, a=0.9)}
    found = {"y": ex.forward(feeds, train=True)["y"], **ex.backward()}
    wanted = {"y": TORCH[case]["y"], "x": TORCH[case]["x"], **weights_of(case, "gradient")}
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, err_msg=name, **TOLERANCE)


def test_nothing_of_it_is_left_to_numpy() -> None:
    """Heads are read and written where they lie: no copy, no call."""
    net = gc.Net("heads")
    h = gc.multi_head_attention(gc.layernorm(net.input("x", (gc.N, 6, 8))), 2, causal=True)
    net.loss("loss", gc.mean(h * h))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="native")
    for program in plan.programs.values():
        kinds = {instr.kind for instr in program.instrs}
        assert kinds <= {"kernel", "barrier"}, str(program)


def test_attention_to_another_sequence_drops_weights_in_training_alone() -> None:
    net = gc.Net("cross")
    x, context = net.input("x", (gc.N, 3, 4)), net.input("context", (gc.N, 5, 4))
    net.output("y", gc.multi_head_attention(x, 2, context=context, dropout=0.5))
    net.loss("loss", gc.mean(net["multi_head_attention_1"]))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    feeds = {"x": wave(2, 3, 4, a=0.3), "context": wave(2, 5, 4, a=0.7)}
    infer = ex.forward(feeds)["y"].copy()
    assert np.array_equal(infer, ex.forward(feeds)["y"])
    assert not np.allclose(infer, ex.forward(feeds, train=True)["y"])


def test_rotated_products_depend_on_the_distance_alone() -> None:
    net = gc.Net("rotary", dtype="float64")
    row = wave(1, 1, 6, a=0.7)
    x = net.input("x", (gc.N, 8, 6))
    net.output("y", gc.rotary_positions(x))
    ex = gc.Executor(gc.compile(net, batch=1, backend="numpy"))
    y = ex.forward(x=np.repeat(row, 8, axis=1))["y"][0]
    products = y @ y.T
    for distance in range(8):
        along = np.diagonal(products, distance)
        np.testing.assert_allclose(along, along[0], rtol=1e-12)
    assert not np.allclose(products[0, 1], products[0, 3])


def test_sinusoids_are_those_of_the_paper() -> None:
    net = gc.Net("sinusoids", dtype="float64")
    net.output("y", gc.sinusoidal_positions(net.input("x", (gc.N, 5, 6))))
    ex = gc.Executor(gc.compile(net, batch=1, backend="numpy"))
    y = ex.forward(x=np.zeros((1, 5, 6)))["y"][0]
    for t in range(5):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert y[t, 2 * i] == pytest.approx(np.sin(angle))
            assert y[t, 2 * i + 1] == pytest.approx(np.cos(angle))


def test_what_is_refused() -> None:
    net = gc.Net("wrong")
    x = net.input("x", (gc.N, 3, 6))
    with pytest.raises(GraphError, match="and C a multiple of heads"):
        gc.multi_head_attention(x, 4)
    with pytest.raises(GraphError, match=r"they must be \(..., T, D\)"):
        gc.attention(x, x, net.input("v", (gc.N, 4, 6)))
    nothing = gc.Net("net").input("nothing", (gc.N, 4, 0))
    with pytest.raises(GraphError, match="with D above 0"):
        gc.attention(nothing, nothing, nothing)
    with pytest.raises(GraphError, match="with an even C"):
        gc.rotary_positions(net.input("odd", (gc.N, 3, 5)))
    with pytest.raises(GraphError, match="sinusoidal_positions: x is"):
        gc.sinusoidal_positions(net.input("flat", (gc.N, 5)))


@pytest.mark.parametrize("causal", [False, True])
def test_second_derivatives(causal: bool) -> None:
    """The gradient of a gradient, against finite differences."""
    net = gc.Net("second", dtype="float64")
    n = net.input("n", (gc.N,))
    values = [net.parameter(name, x.shape) for name, x in zip("qkv", (Q, K, V), strict=True)]
    y = gc.attention(*values, causal=causal)
    (slope,) = [gc.grad(gc.sum(y * y), values[0])]
    net.loss("loss", gc.sum(slope * slope) + gc.mean(n) * 0)
    report = gc.grad_check(net, {"n": np.zeros(1)})
    assert report.ok, str(report)
