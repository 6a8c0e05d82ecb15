"""The steps of optimizers: each makes the next value of one state or parameter.

The first operand is the old value, whose memory the result may take.  Where `decay` is not 0
the ops that read a gradient g read the parameter p as well, as their last operand, and take
g + decay*p instead.  None of them has a gradient rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import ClassVar

import numpy as np

from graphc.op import Array, Op
from graphc.plan import Emitter
from graphc.tensor_type import TensorType, shape_text

CHUNK = 32 * 1024
"""Elements that a kernel works on at a time, so that they stay in the cache."""


class Step(Op):
    """An elementwise op on arrays of one type, and scalars of theirs."""

    inplace = (0,)
    arrays: ClassVar[int]
    """How many operands, from the front, have the type of the result."""
    counted: ClassVar[bool] = False
    """Whether the last operand counts updates."""

    @property
    def scratches(self) -> int:
        """How many chunks of the result's type the kernel needs beside it."""
        return 1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        roles, first = self.roles, ins[0]
        if len(ins) != len(roles):
            raise ValueError(f"it takes {', '.join(roles)}, not {len(ins)} operands")
        if not first.is_float or first.batched:
            raise ValueError(f"{roles[0]} is {first}, only floats of a fixed shape are updated")
        for i in range(1, len(ins)):
            wanted = first if i < self.arrays else first.with_shape(())
            if self.counted and i == len(ins) - 1:
                wanted = TensorType((), "int64")
            if ins[i] != wanted:
                raise ValueError(f"{roles[i]} is {ins[i]}, it must be {wanted}")
        return first

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        result = em.type(out)
        size = prod(dim for dim in result.shape if isinstance(dim, int))
        chunk = result.with_shape((min(size, CHUNK),))
        em.call(self.name, ins, out, [em.scratch(chunk) for _ in range(self.scratches)])


class Decayed(Step):
    """A step that reads a gradient, which weight decay is added to."""

    decay: float

    def __post_init__(self) -> None:
        if self.decay:
            roles = (*type(self).roles, "parameter")
            object.__setattr__(self, "roles", roles)


class DecayedMean(Decayed):
    """A running mean of gradients: the old mean, the gradient, with decay the parameter."""

    @property
    def arrays(self) -> int:  # type: ignore[override]
        """All operands."""
        return len(self.roles)


def _decayed(gradient: Array, decay: float, parameter: Sequence[Array]) -> Array:
    return gradient + decay * parameter[0] if decay else gradient
