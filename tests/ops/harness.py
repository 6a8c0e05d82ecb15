"""Compile one op on the numpy backend and run it, and differentiate numerically."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from graphc.backends.backend import backend
from graphc.compiler.program import build_program
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.kernels.program import Program
from graphc.ops.source import Input, State
from graphc.runtime.state import State as Arrays
from graphc.runtime.state import block
from graphc.runtime.workspace import Workspace


def program_of(
    op: Op, types: Sequence[TensorType], capacity: int, onto: int | None = None
) -> Program:
    """Return the program of one op; with `onto` it updates the state that is that operand."""
    names = tuple(f"in{i}" for i in range(len(types)))
    nodes = [
        Node(name, _source(type, i == onto), (), type)
        for i, (name, type) in enumerate(zip(names, types, strict=True))
    ]
    nodes.append(Node("out", op, names, op.infer(types)))
    if onto is None:
        graph = Graph("op", nodes, outputs={"out": "out"})
    else:
        graph = Graph("op", nodes, updates={names[onto]: "out"})
    return build_program("op", graph, capacity, "numpy")


def _source(type: TensorType, is_state: bool) -> Input | State:
    if is_state:
        return State(tuple(dim for dim in type.shape if isinstance(dim, int)), type.dtype)
    return Input(type.shape, type.dtype)


class Bound:
    """A program of one op on memory of its own; `onto` says which operand it overwrites."""

    def __init__(
        self, op: Op, types: Sequence[TensorType], n: int, onto: int | None = None, spare: int = 0
    ) -> None:
        self.program = program_of(op, types, n + spare, onto)
        state = Arrays({}, 0)
        if onto is not None:
            state.arrays[f"in{onto}"] = _empty(types[onto], n)
        self.memory = Workspace({"op": self.program}, n + spare, state)
        view = partial(self.memory.view, self.program, n=n)
        self.ins = [view(f"in{i}") for i in range(len(types))]
        self.out = view("out")
        runner = backend("numpy").bind(self.program, frozenset(), self.memory)
        self.calls = runner.calls(n, view)[0]

    def run(self, ins: Sequence[Array]) -> Array:
        """Return the result, from memory that is poisoned wherever the program may not look."""
        self.memory.poison()
        for mine, given in zip(self.ins, ins, strict=True):
            mine[...] = given
        with np.errstate(all="ignore"):
            for call in self.calls:
                call()
        return self.out


def _empty(type: TensorType, n: int) -> Array:
    """Return an array at an address that is a multiple of 64, as in a state."""
    return block(type.nbytes(n)).view(type.dtype).reshape(shape_at(type.shape, n))


def slope(f: Callable[[Array], Array], x: Array, weight: Array, h: float = 1e-3) -> Array:
    """The gradient of sum(f(x) * weight) by central differences of fourth order."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        values = []
        for steps in (-2, -1, 1, 2):
            moved = x.copy()
            moved[index] += steps * h
            values.append(f(moved))
        outer, inner = values[3] - values[0], values[2] - values[1]
        found[index] = ((8 * inner - outer) * weight).sum() / (12 * h)
    return found


def worst_error(a: Any, b: Any) -> float:
    """max|a-b|/max(1e-8, |a|+|b|); entries below 1e-7 in magnitude count absolutely."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not a.size:
        return 0.0
    difference, size = np.abs(a - b), np.abs(a) + np.abs(b)
    tiny = np.maximum(np.abs(a), np.abs(b)) < 1e-7
    return float(np.where(tiny, difference, difference / np.maximum(1e-8, size)).max())
