"""Nets of several calls, and what their outputs and slopes are by the formulas in plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from types import CodeType
from typing import NamedTuple

import numpy as np

import graphc as gc
from graphc.cli.installation.calls import ARGUMENTS, NAMES, Argument, Call
from graphc.cli.installation.plain import Array
from graphc.ir.tensor_type import shape_at

Arrays = Mapping[str, Array]
SHARE = 0.7
"""The share in the loss of results without rows."""
H = 1e-5


class Part(NamedTuple):
    """A call in a net: its output, the sources that its arguments are sums of, and its share."""

    call: str
    right: CodeType
    output: str
    sources: Mapping[str, tuple[str, ...]]
    share: str | None
    """The input that weighs it in the loss; "" without rows, and None without slopes."""


class Bundle:
    """A net with an output for each call, and a loss of all that have slopes."""

    def __init__(self, chosen: Mapping[str, Call], dtype: str = "float32") -> None:
        self.net, self.dtype = gc.Net("calls", dtype=dtype), dtype
        self.kinds = {"anchor": Argument((2,), rows=False)}
        """The kind of each input and parameter."""
        anchor = self.net.parameter("anchor", (2,), init="ones")
        self.losses = [gc.sum(anchor * anchor)]
        self.parts = [self._declared(i, *each) for i, each in enumerate(chosen.items())]
        self.net.loss("loss", reduce(add, self.losses))

    def _declared(self, number: int, name: str, call: Call) -> Part:
        given = {a: self._value(f"{a}{number}", ARGUMENTS[a]) for a in call.arguments}
        out = eval(call.left, {**NAMES, **{a: value for a, (value, _) in given.items()}})
        self.net.output(f"out{number}", out)
        found = (node for node in self.net.graph() if node.op.is_parameter)
        shapes = {node.name: shape_at(node.type.shape, 1) for node in found}
        new = [n for n in shapes if n not in self.kinds]
        self.kinds |= {n: Argument(shapes[n], -0.8, 0.8, False) for n in new}
        ends = {a: f".{a.replace('__', '.')}" for a in call.declared}
        own = {a: (next(n for n in new if n.endswith(end)),) for a, end in ends.items()}
        sources = {a: names for a, (_, names) in given.items()}
        return Part(name, call.right, f"out{number}", {**sources, **own}, self._share(number, out))

    def _value(self, name: str, kind: Argument) -> tuple[gc.Value, tuple[str, ...]]:
        """Return an argument, and the names of its sources."""
        self.kinds[name] = kind
        if not kind.rows:
            return self.net.parameter(name, kind.shape, init="zeros"), (name,)
        fed = self.net.input(name, (gc.N, *kind.shape), dtype=kind.dtype or self.dtype)
        if kind.dtype:
            return fed, (name,)
        self.kinds[f"{name}_part"] = Argument(kind.shape, -0.01, 0.01, False)
        part = self.net.parameter(f"{name}_part", kind.shape, init="zeros")
        return gc.add(fed, part), (name, f"{name}_part")

    def _share(self, number: int, out: gc.Value) -> str | None:
        """Add a result to the loss; return the input that weighs it."""
        if out.dtype != self.dtype:
            return None
        if not out.type.batched:
            self.losses.append(gc.sum(out * SHARE))
            return ""
        name = f"share{number}"
        self.kinds[name] = Argument(shape_at(out.shape[1:], 1))
        self.losses.append(gc.sum(out * self.net.input(name, out.shape, dtype=out.dtype)))
        return name

    def drawn(self, rng: np.random.Generator, rows: int, far: float = 1.0) -> dict[str, Array]:
        """Return arrays for all inputs and parameters; those of inputs may be far numbers."""
        return {name: _array(rng, kind, rows, self.dtype, far) for name, kind in self.kinds.items()}

    def outputs(self, arrays: Arrays, train: bool) -> Iterator[tuple[Part, Array]]:
        """Yield the result of each call by its formula, in float64."""
        for part in self.parts:
            yield part, formula(part, arrays, train)

    def slopes(self, arrays: Arrays) -> Iterator[tuple[Part, str, Array]]:
        """Yield the gradient of the loss by each parameter, by central differences of formulas."""
        for part in self.parts:
            for name in (name for sources in part.sources.values() for name in sources):
                if part.share is not None and not self.kinds[name].rows:
                    yield part, name, _slope(part, arrays, name)


def _array(rng: np.random.Generator, kind: Argument, rows: int, dtype: str, far: float) -> Array:
    shape = (rows, *kind.shape) if kind.rows else kind.shape
    if kind.dtype:
        return rng.integers(int(kind.low), int(kind.high), shape).astype(kind.dtype)
    middle, half = (kind.low + kind.high) / 2, (kind.high - kind.low) / 2
    far = far if kind == Argument(kind.shape) else 1.0  # others have a range
    return (middle + half * rng.uniform(-1, 1, shape) * far).astype(dtype)


def formula(part: Part, arrays: Arrays, train: bool) -> Array:
    """Return the result of a call in plain NumPy."""
    given = {
        a: reduce(add, (arrays[name].astype(_wide(arrays[name])) for name in sources))
        for a, sources in part.sources.items()
    }
    with np.errstate(all="ignore"):
        return np.asarray(eval(part.right, {**NAMES, **given, "train": train}))


def _wide(x: Array) -> str:
    return "float64" if x.dtype.kind == "f" else str(x.dtype)


def _slope(part: Part, arrays: Arrays, name: str) -> Array:
    """Return how the share of a call in the loss grows with each number of a parameter."""
    wide = {n: x.astype(_wide(x)) for n, x in arrays.items()}
    share = wide[part.share] if part.share else SHARE
    found = np.zeros(wide[name].shape)
    for at in np.ndindex(found.shape):
        ends = []
        for step in (H, -H):
            moved = wide[name].copy()
            moved[at] += step
            ends.append((formula(part, {**wide, name: moved}, True) * share).sum())
        found[at] = (ends[0] - ends[1]) / (2 * H)
    return found
