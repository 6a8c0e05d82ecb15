"""The op `after`, by which recomputed values wait until they are needed."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.fused import Fused


class After(Fused):
    """x itself, for users that must not run before `event`: a control dependency, without work.

    This keeps recomputed nodes late.  Their operands have other names than those of the original
    nodes, so the two are not merged, and no order can put them before the event.
    """

    name = "after"
    alias = True
    is_control = True
    roles = ("x", "event")
    only_moves = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0]


def is_clone(name: str) -> bool:
    """Return whether the name of a node of the backward part is that of a clone."""
    return name.rpartition(".")[2].rstrip("_") in ("again", "late")


def is_event_of(name: str, reader: Node) -> bool:
    """Return whether a node only waits for that value, and reads none of its bytes."""
    return reader.op.is_control and reader.inputs[0] != name
