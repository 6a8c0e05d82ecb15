"""Rewrite rules as data: how the left side is drawn, and the pass that makes the right side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.check.prove.symbols import AnyConstant, Traced, traced
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.init import Zeros
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.tensor_type import Dim, TensorType
from graphc.ops.source import Constant, Input, Parameter
from passes.pipeline import Pass

F64 = "float64"
EPS = 0.125


@dataclass
class Drawing:
    """The left side of a rule, as it is drawn: sizes are its attributes."""

    builder: Builder
    sizes: Mapping[str, int]

    def __getattr__(self, name: str) -> int:
        return self.sizes[name]

    def input(self, name: str, *shape: Dim, dtype: str = F64) -> Value:
        """Return an array of any numbers."""
        return self.builder.apply(Input(shape, dtype), name=name)

    def parameter(self, name: str, *shape: int) -> Value:
        """Return a trained array."""
        return self.builder.apply(Parameter(shape, F64, Zeros()), name=name)

    def any_constant(self, name: str, *shape: int) -> Value:
        """Return a constant of any numbers, as of frozen weights."""
        key = sum(map(ord, name))
        sizes = _plain(shape)
        array = np.random.Generator(np.random.Philox(key)).uniform(0.5, 2, sizes)
        return self.builder.apply(AnyConstant(shape, F64, array.tobytes(), name), name=name)

    def filled(self, number: float, *shape: int) -> Value:
        """Return a constant of one number everywhere."""
        array = np.full(_plain(shape), number)
        return self.builder.apply(Constant(shape, F64, array.tobytes()))

    def apply(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Return the result of an op."""
        return self.builder.apply(op, *operands, name=name)

    def output(self, value: Value, name: str = "y") -> None:
        """Make a value an output."""
        self.builder.outputs[name] = value.name


def _plain(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)


Draw = Callable[[Drawing], None]


def _itself(graph: Graph) -> Graph:
    return graph


@dataclass(frozen=True)
class Rule:
    """A rewrite rule: how its left side is drawn, and what makes the right side of it."""

    name: str
    place: str
    """The pass, or the gradient rule, that applies it."""
    left: str
    right: str
    forms: tuple[Draw, ...]
    sizes: Mapping[str, int]
    """The symbols of sizes, and those to begin with."""
    rewrite: Pass
    given: str = ""
    """The condition in words, besides what types say."""
    from_zero: tuple[str, ...] = ()
    """The sizes that may be 0; others are 1 and more."""
    before: Pass = _itself
    """The pass that makes the left side of the drawing, if that is only their common part."""
    train: bool = True
    """The meaning of layers."""
    shards: bool = False
    """True if the right side is the sum over two shards of the batch."""

    @property
    def least(self) -> dict[str, int]:
        """The least value of each size."""
        return {name: int(name not in self.from_zero) for name in self.sizes}

    def drawing(self, draw: Draw, sizes: Mapping[str, int]) -> Graph:
        """Return a form of the rule, drawn with these sizes."""
        b = Builder(self.name, F64)
        b.locs = ()
        draw(Drawing(b, sizes))
        return b.graph()


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
        known = [x for x in ins if isinstance(x, Traced)]
        if len(known) < len(ins):
            return found
        name = any_name(self.label, [x.function for x in known])
        return traced(found, name, sizes=known[0].sizes)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return for each operand any function of all that a gradient rule reads."""
        part = f"d{self.label}"
        return [b.apply(AnyOp(f"{part}{i}"), x, out, dout) for i, x in enumerate(ins)]


def any_name(label: str, operands: Sequence[str]) -> str:
    """Return the name of the array that an op of that label makes of these."""
    return f"{label}({', '.join(operands)})"


RULES: list[Rule] = []
"""All rules, in the order of the passes."""


def rule(place: str, left: str, right: str, step: Pass, **options: Any) -> Callable[[Any], Any]:
    """Return a decorator that adds a rule, drawn by the function or in several forms by several."""
    sizes = options.pop("sizes", {"a": 3, "b": 5})
    named = options.pop("name", None)

    def decorate(draw: Draw) -> Draw:
        forms = options.pop("forms", None)
        drawn = tuple(_with(draw, form) for form in forms) if forms else (draw,)
        name = named or draw.__name__
        RULES.append(Rule(name, place, left, right, drawn, sizes, step, **options))
        return draw

    return decorate


def _with(draw: Callable[..., None], form: Any) -> Draw:
    return lambda d: draw(d, *form)
