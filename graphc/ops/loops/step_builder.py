"""The builder of one step of a loop: values from outside become inputs of the step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.source import Input


class StepBuilder(Builder):
    """A graph under construction, which a loop of `outer` runs at each step.

    Parameters, states and arrays belong to the outer graph, where their names start with that of
    the loop; the step holds only constants of one number.
    """

    def __init__(self, outer: Builder, loop: str) -> None:
        super().__init__(f"the step of {loop}", outer.dtype)
        self.outer, self.depth, self.loop, self.locs = outer, outer.depth + 1, loop, outer.locs
        self.path = f"{outer.path}{outer.prefix}{loop}."
        self.ended = False
        """True once the step is declared."""
        self.known: dict[str, str] = {}
        """The input for each value of the outer graph that the step reads."""

    def input(self, name: str, type: TensorType) -> Value:
        """Add an input of the step."""
        return self.insert(Node(self.unique(name), Input(type.shape, type.dtype), (), type))

    def captured(self, value: Value) -> Value:
        """Return the input for a value from outside, which is the same at each step."""
        outer = self.outer
        if value.builder is self or outer is None or not self.is_within(value.builder):
            return value
        value = outer.captured(value)
        if value.name not in self.known:
            self.known[value.name] = self.input(value.name, value.type).name
        return Value(self, self.known[value.name])

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Remove nodes made inside, here and in the outer graph, if an error leaves the block."""
        before, outer = dict(self.known), self.outer
        assert outer is not None, "set on creation"
        try:
            with outer.all_or_nothing(), super().all_or_nothing():
                yield
        except BaseException:
            self.known = before
            raise

    def apply(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Make a node of the step and return its value; a source becomes one of the outer graph."""
        if self.ended:
            raise GraphError(
                f"{op.name}: a value of {self.name} is only there in the step",
                operands=[one.node.described("operand") for one in operands if one.builder is self],
                hint="return it from the step: the loop gives it for all steps",
            )
        if self.outer is not None and op.is_source and not _is_number(op):
            named = None if name is None else f"{self.loop}.{self.prefix}{name}"
            return self.captured(self.outer.apply(op, name=named))
        inside = [self.captured(one) if isinstance(one, Value) else one for one in operands]
        return super().apply(op, *inside, name=name)


def _is_number(op: Op) -> bool:
    """Return whether an op is a constant of one number."""
    return op.is_constant and op.infer(()).rank == 0
