"""A call by graphc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gc
from tests.ops.opinfo.call import Call, Results
from tests.ops.opinfo.refused import refuse

KNOWN = ("float64", "float32", "int64", "int32", "int16", "int8", "uint8", "bool")


def ours(function: Callable[..., Any], call: Call, backend: str = "numpy") -> Results:
    """What graphc gives.  Refused or GraphError where it does not express the call."""
    net = declared(function, call)
    ex = gc.Executor(gc.compile(net, batch=1, backend=backend, threads=1))
    for name, number in (call.parameters or {}).items():
        ex.parameters[name] = call.arrays[number]
    fed = {name: call.arrays[int(name.removeprefix("in"))] for name in _inputs(net, "in")}
    for name in _inputs(net, "weights_"):
        fed[name] = call.weights(name, net[name].shape)
    found = ex.forward(fed, train=bool(net.graph().losses))
    return {key: np.asarray(value) for key, value in found.items() if key != "loss"}


def _inputs(net: gc.Net, prefix: str) -> list[str]:
    return [n.name for n in net.graph() if n.op.name == "input" and n.name.startswith(prefix)]


def declared(function: Callable[..., Any], call: Call) -> gc.Net:
    """The net of all results; with a loss, so that it is trained, where there are gradients."""
    net = gc.Net("sample", dtype="float64")
    made_inside = dict(call.parameters or {})
    values = {
        i: _input(net, i, array)
        for i, array in enumerate(call.arrays)
        if i not in made_inside.values()
    }
    refuse("there are numbers alone", not values)
    args, kwargs = call.filled(values | dict.fromkeys(made_inside.values()))
    made = function(*args[: len(args) - len(made_inside)], **kwargs)
    values |= {number: net[name] for name, number in made_inside.items()}
    outs = [made] if isinstance(made, gc.Value) else list(made)
    for i, y in enumerate(outs):
        net.output(f"y{i}", y)
    flows = {f"y{i}": y for i, y in enumerate(outs) if y.type.is_float}
    if flows and call.wrt:
        wrt = {f"{i}": values[i] for i in call.wrt}
        first = _gradients(net, flows, wrt, "d")
        wrt |= {f"_{key}": net[f"weights_{key}"] for key in flows}
        for key, gradient in (first | _gradients(net, first, wrt, "dd")).items():
            net.output(key, gradient)
        net.loss("loss", net.parameter("trained", (), 0.0))
    return net


def _input(net: gc.Net, number: int, array: Any) -> gc.Value:
    refuse(f"values are {array.dtype}", array.dtype.name not in KNOWN)
    return net.input(f"in{number}", array.shape, dtype=array.dtype.name)


def _gradients(
    net: gc.Net, values: dict[str, Any], wrt: dict[str, gc.Value], prefix: str
) -> dict[str, gc.Value]:
    total: Any = None
    for what, value in values.items():
        weights = net.input(f"weights_{what}", value.shape)
        part = gc.sum(gc.cast(value, "float64") * weights)
        total = part if total is None else total + part
    found: Any = gc.grad(total, list(wrt.values()))
    return {f"{prefix}{key}": gradient for key, gradient in zip(wrt, found, strict=True)}
