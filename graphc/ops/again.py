"""What the pass that recomputes values needs: to say when a value is read."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.graph import Node
from graphc.op import Array
from graphc.ops.fused import Fused
from graphc.plan import Emitter
from graphc.tensor_type import TensorType


class After(Fused):
    """x itself, for readers that must not run before `event` is there; no work.

    This keeps recomputed nodes late: they read other names than the nodes that they repeat, so
    that they are not merged with them, and no order can put them before the event.
    """

    name = "after"
    roles = ("x", "event")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0]

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        em.alias(ins[0], out)


def is_clone(name: str) -> bool:
    """Whether a node of the backward part has the name of a clone."""
    return name.rpartition(".")[2].rstrip("_") in ("again", "late")


def is_event_of(name: str, reader: Node) -> bool:
    """Whether a node only waits for that value, and reads none of its bytes."""
    return isinstance(reader.op, After) and reader.inputs[0] != name
