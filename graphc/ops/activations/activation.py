"""The base of activations: layers that become ops on each element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import TensorType


class Activation(Layer):
    """A function of each element of floats of any shape."""

    roles: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x = ins[0]
        if not x.is_float:
            raise ValueError(
                f"x is {x.dtype}, {self.name} takes floats\ncast it: gc.cast(x, 'float32')"
            )
        return x

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        return np.asarray(self.of(ins[0].astype(np.float64))).astype(ins[0].dtype)

    def of(self, x: Array) -> Array:
        """Compute the function in plain NumPy."""
        raise NotImplementedError

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        return self.build(ins[0], name)

    def build(self, x: Value, name: str) -> Value:
        """Build the function from ops."""
        raise NotImplementedError


def above_zero(function: str, role: str, given: float) -> float:
    """Return the number; raise GraphError unless it is above 0."""
    if not given > 0:
        raise GraphError(f"{function}: {role} is {given!r}, it must be above 0", loc=caller_loc())
    return float(given)
