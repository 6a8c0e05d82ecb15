"""One sample by both: values, gradients, and gradients of these."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

import graphc as gc
from graphc.op import Array
from tests.ops.opinfo.refused import refuse

Results = dict[str, Array]
KNOWN = ("float64", "float32", "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass
class Call:
    """A call of a function on tensors that are variables of their own."""

    args: Any
    kwargs: Any
    seed: int
    tensors: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, number: int, sample: Any) -> Call:
        """The call that a sample describes."""
        found = cls((), {}, zlib.crc32(f"{name} {number}".encode()))
        known: dict[int, Any] = {}

        def own(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if id(leaf) not in known:
                fresh = leaf.detach().clone().requires_grad_(leaf.requires_grad)
                known[id(leaf)] = fresh
                found.tensors.append(fresh)
            return known[id(leaf)]

        whole = ((sample.input, *sample.args), sample.kwargs)
        found.args, found.kwargs = tree_map(own, whole)
        return found

    @property
    def wrt(self) -> list[int]:
        """The numbers of the tensors that are differentiated by."""
        return [i for i, tensor in enumerate(self.tensors) if tensor.requires_grad]

    def weights(self, what: str, shape: Any) -> Array:
        """Random numbers, the same for both."""
        rng = np.random.default_rng([self.seed, zlib.crc32(what.encode())])
        return np.asarray(rng.standard_normal(tuple(shape)))


def theirs(function: Callable[..., Any], call: Call) -> Results:
    """What PyTorch gives: y0, y1, ...; of the sum of y * weights the gradients d0, d1, ... by each
    tensor; of the sum of these times weights again dd0, dd1, ..."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [leaf for leaf in tree_leaves(function(*call.args, **call.kwargs))]
    outs = [leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf) for leaf in made]
    found = {f"y{i}": y for i, y in enumerate(outs)}
    flows = {f"y{i}": y for i, y in enumerate(outs) if y.requires_grad}
    if flows and call.wrt:
        first = _differentiated(call, flows)
        found |= {f"d{i}": g for i, g in first.items()}
        again = {f"d{i}": g for i, g in first.items() if g.requires_grad}
        second = _second(call, again)
        found |= {f"dd{i}": g for i, g in second.items()}
    return {key: value.numpy(force=True) for key, value in found.items()}


def _differentiated(call: Call, values: dict[str, Any]) -> dict[int, Any]:
    total = sum(
        (value * torch.as_tensor(call.weights(what, value.shape))).sum()
        for what, value in values.items()
    )
    tensors = [call.tensors[i] for i in call.wrt]
    found = torch.autograd.grad(total, tensors, create_graph=True, allow_unused=True)
    return {
        i: torch.zeros_like(x) if g is None else g
        for i, g, x in zip(call.wrt, found, tensors, strict=True)
    }


def _second(call: Call, first: dict[str, Any]) -> dict[int, Any]:
    """Zeros where the gradients are constant; nothing where PyTorch has no second order."""
    if not first:
        return {i: torch.zeros_like(call.tensors[i]) for i in call.wrt}
    try:
        return _differentiated(call, first)
    except RuntimeError as error:
        if "not implemented" in str(error) or "not differentiable" in str(error):
            return {}
        raise


def ours(function: Callable[..., Any], call: Call, backend: str = "numpy") -> Results:
    """The same by graphc.  Refused or GraphError where it does not express the call."""
    net = gc.Net("sample", dtype="float64")
    values = {id(tensor): _input(net, i, tensor) for i, tensor in enumerate(call.tensors)}
    args, kwargs = tree_map(lambda leaf: values.get(id(leaf), leaf), (call.args, call.kwargs))
    refuse("there are numbers alone", not values)
    made = function(*args, **kwargs)
    outs = [made] if isinstance(made, gc.Value) else list(made)
    for i, y in enumerate(outs):
        net.output(f"y{i}", y)
    feeds = {f"in{i}": tensor.numpy(force=True) for i, tensor in enumerate(call.tensors)}
    flows = {f"y{i}": y for i, y in enumerate(outs) if y.type.is_float}
    wrt = {i: net[f"in{i}"] for i in call.wrt}
    if not flows or not wrt:
        return _run(net, feeds, backend, train=False)
    first = {f"d{i}": g for i, g in _gradients(net, call, flows, wrt, feeds).items()}
    second = {f"dd{i}": g for i, g in _gradients(net, call, first, wrt, feeds).items()}
    for key, value in (first | second).items():
        net.output(key, value)
    net.loss("loss", net.parameter("trained", (), 0.0))
    return _run(net, feeds, backend, train=True)


def _input(net: gc.Net, number: int, tensor: Any) -> gc.Value:
    dtype = str(tensor.dtype).removeprefix("torch.")
    refuse(f"values are {dtype}", dtype not in KNOWN)
    refuse("a dimension of 0", 0 in tensor.shape)
    return net.input(f"in{number}", tuple(tensor.shape), dtype=dtype)


def _gradients(
    net: gc.Net, call: Call, values: dict[str, Any], wrt: dict[int, Any], feeds: dict[str, Array]
) -> dict[int, Any]:
    total: Any = None
    for what, value in values.items():
        name = f"weights_{what}"
        feeds[name] = call.weights(what, value.shape)
        part = gc.sum(gc.cast(value, "float64") * net.input(name, value.shape))
        total = part if total is None else total + part
    return dict(zip(wrt, gc.grad(total, list(wrt.values())), strict=True))


def _run(net: gc.Net, feeds: dict[str, Array], backend: str, train: bool) -> Results:
    ex = gc.Executor(gc.compile(net, batch=1, backend=backend, threads=1))
    found = ex.forward(feeds, train=train)
    return {key: np.asarray(value) for key, value in found.items() if key != "loss"}


def difference(found: Results, wanted: Results) -> str | None:
    """The first result that is another; None where all are the same, up to rounding."""
    if sum(key.startswith("y") for key in found) != sum(key.startswith("y") for key in wanted):
        return "another number of results"
    for key, value in wanted.items():
        if key not in found:
            return f"no {key}"
        mine = found[key]
        if mine.shape != value.shape or mine.dtype != value.dtype:
            return f"{key} is {mine.dtype}{list(mine.shape)}, not {value.dtype}{list(value.shape)}"
        if not np.allclose(mine, value, rtol=1e-9, atol=1e-9 * _size(value), equal_nan=True):
            worst = np.abs(mine.astype(float) - value.astype(float))
            return f"{key} is off by {np.nanmax(worst):.3g}"
    return None


def _size(value: Array) -> float:
    """What rounding is measured by."""
    finite = np.abs(value[np.isfinite(value)].astype(float))
    return max(1.0, float(finite.max(initial=0.0)))
