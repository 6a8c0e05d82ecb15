"""Recurrent layers in float64 against PyTorch's modules, where PyTorch is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

torch = needs("torch")

ROWS, STEPS, FEATURES, WIDTH = 4, 6, 3, 5
LENGTHS = np.array([6, 1, 4, 3], np.int32)
KINDS: dict[str, tuple[Any, str, dict[str, Any], dict[str, Any]]] = {
    "rnn": (gc.rnn, "RNN", {}, {}),
    "relu": (gc.rnn, "RNN", {"activation": "relu"}, {"nonlinearity": "relu"}),
    "lstm": (gc.lstm, "LSTM", {}, {}),
    "projected": (gc.lstm, "LSTM", {"projection": 2}, {"proj_size": 2}),
    "gru": (gc.gru, "GRU", {}, {}),
}


def names_of(layers: int, both: bool, projected: bool) -> dict[str, str]:
    """PyTorch's name of each of graphc's parameters."""
    roles = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] + ["weight_hr"] * projected
    found = {}
    for i in range(layers):
        at = f"layer.layer{i + 1}" if layers > 1 else "layer"
        for way in ("", "reverse") if both else ("",):
            for role in roles:
                ours = ".".join(filter(None, (at, way, role)))
                found[ours] = "_".join(filter(None, (role, f"l{i}", way)))
    return found


def joined(states: Any, layers: int, both: bool) -> Any:
    """PyTorch's last states as graphc has them: (N, layers, ways * size), or (N, size)."""
    ways = 1 + both
    parts = states.reshape(layers, ways, states.shape[1], states.shape[2])
    whole = parts.permute(2, 0, 1, 3).reshape(states.shape[1], layers, -1)
    return whole if layers > 1 else whole[:, 0]


@pytest.mark.one_in(7)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("lengths", [False, True], ids=["all_steps", "lengths"])
@pytest.mark.parametrize(
    ("layers", "way"),
    [(1, "ahead"), (3, "ahead"), (1, "reverse"), (1, "both"), (3, "both")],  # PyTorch has no other
)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(
    kind: str, way: str, layers: int, lengths: bool, backend: str
) -> None:
    ours, theirs, options, named = KINDS[kind]
    both = way == "both"
    rng = np.random.default_rng(7)
    x = rng.normal(size=(ROWS, STEPS, FEATURES))
    net = gc.Net("recurrent", dtype="float64")
    given = net.input("x", (gc.N, STEPS, FEATURES))
    count = net.input("lengths", (gc.N,), dtype="int32") if lengths else None
    more: Any = {"bidirectional": both, "reverse": way == "reverse", "lengths": count}
    call: Any = ours
    y, last = call(given, WIDTH, layers=layers, name="layer", **options, **more)
    lasts = last if isinstance(last, tuple) else (last,)
    results = dict(zip(("y", "h", "c"), (y, *lasts), strict=False))
    factors = {name: rng.normal(size=(ROWS, *value.shape[1:])) for name, value in results.items()}
    for name, value in results.items():
        net.output(name, value)
        net.loss(f"of {name}", gc.sum(value * net.input(f"d_{name}", value.shape)))
    plan = gc.compile(net, batch=ROWS, backend=backend, wrt=["x", "layer*"])
    ex = gc.Executor(plan, seed=3)
    feeds = {"x": x, **{f"d_{name}": d for name, d in factors.items()}}
    found = dict(ex.forward(feeds | ({"lengths": LENGTHS} if lengths else {}), train=True))
    gradients = ex.backward()

    module: Any = getattr(torch.nn, theirs)
    module = module(FEATURES, WIDTH, layers, batch_first=True, bidirectional=both, **named).double()
    parameters = names_of(layers, both, kind == "projected")
    assert set(parameters) == set(ex.parameters)
    for name, same in parameters.items():
        value = torch.tensor(np.transpose(ex.parameters[name]))
        getattr(module, same).data.copy_(value)
    ends = LENGTHS if lengths else np.full(ROWS, STEPS)
    leaf = torch.tensor(x, requires_grad=True)
    sequence = _turned(leaf, ends) if way == "reverse" else leaf
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        sequence, torch.tensor(ends, dtype=torch.int64), batch_first=True, enforce_sorted=False
    )
    out, state = module(packed)
    out = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=STEPS)[0]
    out = _turned(out, ends) if way == "reverse" else out
    states = state if isinstance(state, tuple) else (state,)
    wanted = {"y": out}
    wanted |= dict(zip("hc", (joined(one, layers, both) for one in states), strict=False))
    sum((wanted[name] * torch.tensor(d)).sum() for name, d in factors.items()).backward()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value.detach(), atol=1e-12, err_msg=name)
    np.testing.assert_allclose(gradients["x"], leaf.grad, atol=1e-11)
    for name, same in parameters.items():
        grad = np.transpose(getattr(module, same).grad)
        np.testing.assert_allclose(gradients[name], grad, atol=1e-11, err_msg=name)


def _turned(x: Any, ends: Any) -> Any:
    """Each row with its steps in reverse; what is behind its end stays there."""
    rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, ends, strict=True)]
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_initial_states_of_several_layers(kind: str) -> None:
    ours, theirs, *_ = KINDS[kind]
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, STEPS, FEATURES))
    net = gc.Net("initial", dtype="float64")
    given = net.input("x", (gc.N, STEPS, FEATURES))
    starts = [net.input(name, (gc.N, 2, WIDTH)) for name in ("h0", "c0")]
    initial: Any = tuple(starts) if kind == "lstm" else starts[0]
    call: Any = ours
    y, last = call(given, WIDTH, layers=2, initial=initial, name="layer")
    lasts = last if isinstance(last, tuple) else (last,)
    net.output("y", y)
    for i, value in enumerate(lasts):
        net.output(f"last{i}", value)
    ex = gc.Executor(gc.compile(net, batch=ROWS, backend="numpy"))
    states = {f"{k}0": rng.normal(size=(ROWS, 2, WIDTH)) for k in ("hc" if kind == "lstm" else "h")}
    found = ex.forward({"x": x, **states})
    module: Any = getattr(torch.nn, theirs)(FEATURES, WIDTH, 2, batch_first=True).double()
    for name, same in names_of(2, False, False).items():
        getattr(module, same).data.copy_(torch.tensor(np.transpose(ex.parameters[name])))
    before = [torch.tensor(one).transpose(0, 1).contiguous() for one in states.values()]
    out, state = module(torch.tensor(x), tuple(before) if kind == "lstm" else before[0])
    np.testing.assert_allclose(found["y"], out.detach(), atol=1e-12)
    for i, one in enumerate(state if isinstance(state, tuple) else (state,)):
        np.testing.assert_allclose(found[f"last{i}"], one.detach().transpose(0, 1), atol=1e-12)
