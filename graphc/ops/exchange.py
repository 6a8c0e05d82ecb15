"""Sums over the shards of a batch: the ops that send, receive, and feed a shard.

The shards of a batch run one after another, or on several ranks.  Each shard sends a value, and
receives the sum over all shards in its place.  Values that are sent together form a bucket, which
is one contiguous buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array, Cotangents, Op, Role
from graphc.ir.tensor_type import ALIGNMENT, TensorType
from graphc.ops.fused import Fused
from graphc.ops.source import Input

FIRST_ROW = "shard.first_row"
SHARE = "shard.share."
"""The name of the index of a shard's first row, and the beginning of those of its shares."""


class ShardInput(Input):
    """A number that the executor feeds for each shard, such as the index of its first row."""

    is_of_shard = True

    def named(self, name: str) -> ShardInput:
        """Return the input with the role that its name says; divisors have other names."""
        if name == FIRST_ROW:
            return replace(self, role=Role("first_row"))
        if name.startswith(SHARE):
            kind = name.removeprefix(SHARE).rpartition(".")[0]
            return replace(self, role=Role("share", part=kind))
        return replace(self, role=Role("divisor"))


class Total(Op):
    """The sum of x over all shards, for nodes of each shard that read the sum.

    The pass `data_parallel` replaces it by a send and a receive.
    """

    roles = ("x",)
    gradient_text = ("d_out",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of x."""
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return x itself, which is the sum if there is only one shard."""
        return ins[0].copy()

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the total of the cotangents, since each shard reads a sum that contains x."""
        return (b.apply(Total(), dout),)


@dataclass(frozen=True)
class Send(Fused):
    """x, sent to all shards; only `receive` may read it.

    It is one of the `members` values of a bucket, at `offset` bytes in the buffer of all buckets.
    """

    roles = ("x",)
    inplace = (0,)
    lowering = "lower transfers"
    bucket: int
    members: int
    offset: int

    @property
    def transfer(self) -> tuple[Literal["send"], int]:
        """The end that sends, and the bucket."""
        return "send", self.bucket

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of x; raise ValueError for whole numbers, rows or a misaligned offset."""
        (x,) = ins
        if not x.is_float or x.batched:
            raise ValueError(f"x is {x}; shards add up floats of a fixed shape")
        if self.offset % ALIGNMENT:
            raise ValueError(f"the offset {self.offset} is not a multiple of {ALIGNMENT}")
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return x, as a single shard sends it."""
        return ins[0].copy()


@dataclass(frozen=True)
class Receive(Fused):
    """The sum over all shards of the value that each of them sent."""

    roles = ("sent",)
    inplace = (0,)
    lowering = "lower transfers"
    bucket: int
    members: int

    @property
    def transfer(self) -> tuple[Literal["receive"], int]:
        """The end that receives, and the bucket."""
        return "receive", self.bucket

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the value sent."""
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the value sent, which is the sum if there is only one shard."""
        return ins[0].copy()
