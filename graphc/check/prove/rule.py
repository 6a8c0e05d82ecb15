"""Rewrite rules: how the left side is drawn, and the pass that makes the right side of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, TypeVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.check.prove.constants import AnyConstant, Traced, traced
from graphc.check.prove.sizes import ROWS
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.init import Zeros
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.tensor_type import Dim, TensorType
from graphc.ops.source import Constant, Input, Parameter
from graphc.ops.window import MOST
from passes import Pass, name_of

F64 = "float64"
EPS = 0.125
D = TypeVar("D")


@dataclass
class Drawing:
    """The left side of a rule as drawn: sizes are its attributes; dimensions are such, or names."""

    builder: Builder
    sizes: Mapping[str, int]

    def __getattr__(self, name: str) -> int:
        return self.sizes[name]

    def input(self, name: str, *dims: Dim | str, dtype: str = F64) -> Value:
        """Return an array of any numbers."""
        return self.builder.apply(Input(self._shape(dims), dtype), name=name)

    def inputs(self, names: str, *dims: Dim | str) -> list[Value]:
        """Return several arrays of any numbers, of one letter each."""
        return [self.input(name, *dims) for name in names]

    def parameter(self, name: str, *dims: str) -> Value:
        """Return a trained array."""
        return self.builder.apply(Parameter(self._shape(dims), F64, Zeros()), name=name)

    def any_constant(self, name: str, *dims: int | str) -> Value:
        """Return a constant of any numbers, as of frozen weights; raise GraphError if it is huge.

        A proof asks for sizes beyond each bound that an op has, such as that of a window.
        """
        shape = self._shape(dims)
        if any(extent > MOST for extent in shape):
            raise GraphError(f"constants of a proof have at most {MOST:,} numbers along an axis")
        numbers = np.random.Generator(np.random.Philox(sum(map(ord, name))))
        data = numbers.uniform(0.5, 2, _plain(shape)).tobytes()
        return self.builder.apply(AnyConstant(shape, F64, data, name), name=name)

    def filled(self, number: float, *dims: str) -> Value:
        """Return a constant of one number everywhere."""
        shape = self._shape(dims)
        return self.builder.apply(Constant(shape, F64, np.full(_plain(shape), number).tobytes()))

    def apply(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Return the result of an op."""
        return self.builder.apply(op, *operands, name=name)

    def output(self, value: Value, name: str) -> None:
        """Make a value an output."""
        self.builder.outputs[name] = value.name

    def loss(self, value: Value) -> None:
        """Make a value the loss, which is an output, too."""
        self.output(value, "loss")
        self.builder.losses.append("loss")

    def _shape(self, dims: Sequence[D | str]) -> tuple[D | int, ...]:
        return tuple(self.sizes[dim] if isinstance(dim, str) else dim for dim in dims)


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(int, shape))


Draw = Callable[Concatenate[Drawing, ...], Value | None]
"""The function that draws the left side of a rule; a value that it returns is the output `y`."""


def _itself(graph: Graph) -> Graph:
    return graph


@dataclass(frozen=True)
class Rule:
    """A rewrite rule: how its left side is drawn, and the pass that makes the right side of it."""

    name: str
    left: str
    right: str
    """The two sides in words."""
    draw: Draw
    rewrite: Pass
    given: str = ""
    """The condition in words, besides what types say."""
    sizes: str = "a"
    """The symbols of sizes, which are 1 and more."""
    from_zero: str = ""
    """The symbols of further sizes, which may also be 0."""
    forms: Sequence[tuple[Any, ...]] = ((),)
    """The further arguments of `draw`, for each form of the left side."""
    by: str = ""
    """The names of the passes, or of what else applies the rule; empty for that of `rewrite`."""
    before: Pass = _itself
    """The pass that makes the left side of the drawing, if that is only their common part."""
    train: bool = True
    """The meaning of layers."""
    shards: bool = False
    """True if the right side is the sum over two shards of the batch."""

    @property
    def place(self) -> str:
        """The pass, or the gradient rule, that applies it."""
        return self.by or name_of(self.rewrite)

    @property
    def least(self) -> dict[str, int]:
        """The least value of each size."""
        return dict.fromkeys(self.sizes.split(), 1) | dict.fromkeys(self.from_zero.split(), 0)

    @property
    def first(self) -> dict[str, int]:
        """The sizes to begin with."""
        starts = ((2, self.sizes), (1, self.from_zero))
        return {n: i for start, names in starts for i, n in enumerate(names.split(), start)}

    @property
    def rows(self) -> tuple[str, ...]:
        """The symbols of the numbers of rows."""
        return ("N1", "N2") if self.shards else (ROWS,)

    def drawing(self, form: tuple[Any, ...], sizes: Mapping[str, int]) -> Graph:
        """Return a form of the rule, drawn with these sizes."""
        b = Builder(self.name, F64)
        b.locs = ()
        found = self.draw(Drawing(b, sizes), *form)
        if found is not None:
            b.outputs["y"] = found.name
        return b.graph()


def rule(rewrite: Pass, **options: Any) -> Callable[[Draw], Rule]:
    """Return a decorator that makes a rule of its drawing.

    The drawing's docstring says the two sides: "Rewrite `left` to `right`."
    """

    def decorate(draw: Draw) -> Rule:
        left, right = re.findall("`(.+?)`", draw.__doc__ or "") or ("", "")  # none with python -OO
        return Rule(draw.__name__, left, right, draw, rewrite, **options)

    return decorate


@dataclass(frozen=True)
class AnyOp(Op):
    """An op of which only its type is known, that of its first operand."""

    label: str

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the first operand."""
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return numbers that depend on all operands."""
        key = sum(map(ord, self.label))
        total = sum((i + 2) * np.sum(np.cos(key + np.asarray(x))) for i, x in enumerate(ins))
        found = np.asarray(np.cos(np.asarray(ins[0]) * key + total))
        known = [x for x in ins if isinstance(x, Traced) and not x.args]
        if len(known) < len(ins):
            return found
        name = any_name(self.label, [(x.function, x.sizes) for x in known])
        return traced(found, name, sizes=known[0].sizes)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return for each operand any function of all that a gradient rule reads."""
        part = f"d{self.label}"
        return [b.apply(AnyOp(f"{part}{i}"), x, out, dout) for i, x in enumerate(ins)]


def any_name(label: str, operands: Sequence[tuple[str, Sequence[object]]]) -> str:
    """Return the name of the array that an op of that label makes of arrays of names and sizes."""
    texts = (f"{name} {', '.join(map(str, sizes))}" for name, sizes in operands)
    return f"{label}({'; '.join(texts)})"
