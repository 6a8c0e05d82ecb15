"""Declare recurrent layers: their parameters, and a loop for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError, counted
from graphc.ir.build import Value, as_value
from graphc.ir.init import Uniform
from graphc.ir.tensor_type import shape_text
from graphc.ops.arrange import stack
from graphc.ops.dropout import dropout
from graphc.ops.linalg import matmul
from graphc.ops.loops.layer import scan
from graphc.ops.loops.recurrent_cells import States, Step, product
from graphc.ops.slicing import concat
from graphc.ops.source import constant, parameter
from graphc.ops.sums import broadcast_to

MOST_LAYERS = 1000
"""The most layers: each has nodes and parameters of its own."""


@dataclass
class RecurrentLayer:
    """Layers to be declared: their step, and all arguments that both directions share."""

    kind: str
    step: Step
    gates: int
    x: Value
    width: Any
    bias: bool
    init: Any
    lengths: Value | None = None
    layers: Any = 1
    keep_prob: float | None = None
    drop_prob: float | None = None
    projection: Any = None

    def declared(
        self, initial: Sequence[Value | None], reverse: bool, bidirectional: bool, name: str | None
    ) -> tuple[Value, States]:
        """Declare the nodes of all layers; return the states of the last, and all last states."""
        x = as_value(self.kind, self.x)
        self._check(initial, reverse, bidirectional)
        node = x.builder.free_name(self.kind, name)
        with x.builder.all_or_nothing():
            given = [self._starts(i, state) for i, state in enumerate(initial)]
            if self.layers == 1:
                starts = [state[0] for state in given]
                return self._layer(x, node, node, starts, reverse, bidirectional)
            lasts: list[States] = []
            for i in range(self.layers):
                role, starts = f"{node}.layer{i + 1}", [state[i] for state in given]
                loop = role if i + 1 < self.layers else node
                x, last = self._layer(x, loop, role, starts, reverse, bidirectional)
                lasts.append(last)
                if i + 1 < self.layers and self._drops:
                    drop = f"{role}.dropout"
                    x = dropout(x, keep_prob=self.keep_prob, drop_prob=self.drop_prob, name=drop)
            return x, tuple(stack(states, axis=1) for states in zip(*lasts, strict=True))

    @property
    def _drops(self) -> bool:
        return self.keep_prob is not None or self.drop_prob is not None

    @property
    def _size(self) -> int:
        """The size of h."""
        return int(self.width if self.projection is None else self.projection)

    def _check(self, initial: Sequence[Value | None], reverse: bool, bidirectional: bool) -> None:
        """Check the arguments; raise GraphError if they do not fit together."""
        kind, x = self.kind, self.x
        if bidirectional and (reverse or any(state is not None for state in initial)):
            raise GraphError(
                f"{kind}: bidirectional takes neither initial nor reverse",
                hint="declare a layer each way, and join them: gc.concat([ahead, back], axis=2)",
            )
        if x.type.rank != 3 or not all(isinstance(n, int) and n for n in x.shape[1:]):
            raise GraphError(
                f"{kind}: x is {x.type}",
                operands=[x.node.described("x")],
                hint="it must be (N, T, I): T steps of I numbers each",
            )
        hint = f"it is the size of the state: gc.{kind}(x, 32)"
        self.width = checked_whole(f"{kind}: width", self.width, hint=hint)
        self.layers = checked_whole(f"{kind}: layers", self.layers)
        if self.layers > MOST_LAYERS:
            raise GraphError(f"{kind}: {counted(self.layers, 'layer')}, at most {MOST_LAYERS:,}")
        if self.projection is not None:
            hint = "it is the size of h: gc.lstm(x, 32, projection=8)"
            self.projection = checked_whole(f"{kind}: projection", self.projection, hint=hint)
        if self._drops and self.layers == 1:
            raise GraphError(
                f"{kind}: dropout is between layers, and there is one",
                hint="layers=2, or gc.dropout(states, drop_prob=0.5)",
            )

    def _starts(self, position: int, given: Value | None) -> Sequence[Value]:
        """Return the state of each layer before the first step: the given ones, or zeros."""
        rows, size = self.x.shape[0], self.width if position else self._size
        if given is None:
            zeros = broadcast_to(constant(self.x.builder, 0.0, self.x.dtype), (rows, size))
            return [zeros] * self.layers
        given = as_value(self.kind, given)
        wanted = (rows, size) if self.layers == 1 else (rows, self.layers, size)
        if given.shape != wanted:
            raise GraphError(
                f"{self.kind}: the initial state has shape {shape_text(given.shape)}",
                operands=[given.node.described("initial")],
                hint=f"it must be {shape_text(wanted)}",
            )
        return [given] if self.layers == 1 else [given[:, i] for i in range(self.layers)]

    def _layer(
        self,
        x: Value,
        loop: str,
        role: str,
        initial: Sequence[Value],
        reverse: bool,
        bidirectional: bool,
    ) -> tuple[Value, States]:
        """Declare a layer in one direction or both; return its states, and the last ones.

        `loop` names its nodes and `role` its parameters.
        """
        ahead, last = self._loop(x, loop, role, initial, reverse)
        if not bidirectional:
            return ahead, last
        back, first = self._loop(x, f"{loop}.reverse", f"{role}.reverse", initial, True)
        states = tuple(concat([a, z], axis=1) for a, z in zip(last, first, strict=True))
        return concat([ahead, back], axis=2), states

    def _loop(
        self, x: Value, loop: str, role: str, initial: Sequence[Value], reverse: bool
    ) -> tuple[Value, States]:
        """Add the weights, and the loop over the steps."""
        (w_in, w_back), (b_in, b_back), projected = self._parameters(role, x)

        def one(x: Value, states: States) -> tuple[Value, States]:
            h, *rest = self.step(product(self.kind, x, w_in, b_in), states, w_back, b_back)
            if projected is not None:
                h = matmul(h, projected)
            return h, (h, *rest)

        def of_h(x: Value, h: Value) -> tuple[Value, States]:
            return one(x, (h,))

        def of_h_and_c(x: Value, h: Value, c: Value) -> tuple[Value, States]:
            return one(x, (h, c))

        step = of_h if len(initial) == 1 else of_h_and_c  # they name the values in pictures
        states, last = scan(step, x, initial, lengths=self.lengths, reverse=reverse, name=loop)
        return states, last

    def _parameters(
        self, role: str, x: Value
    ) -> tuple[list[Value], list[Value | None], Value | None]:
        """Add the weights and the biases, of the input and of h, and the weight of h itself."""
        bound, size = 1 / sqrt(self.width), self.gates * self.width
        start = Uniform(-bound, bound) if self.init is None else self.init

        def added(name: str, *shape: Any) -> Value:
            return parameter(x.builder, f"{role}.{name}", shape, x.dtype, start)

        sides = {"ih": x.shape[2], "hh": self._size}
        weights = [added(f"weight_{side}", rows, size) for side, rows in sides.items()]
        biases = [added(f"bias_{side}", size) if self.bias else None for side in sides]
        if self.projection is None:
            return weights, biases, None
        return weights, biases, added("weight_hr", self.width, self._size)
