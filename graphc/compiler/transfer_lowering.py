"""Lowering of transfers: the values of a bucket are sent, and arrive, by one instruction.

d.sent, e.sent = send(d), send(e)            d.sent, e.sent <- send d, e
d.sum = receive(d.sent)              ->      d.sum, e.sum <- receive d.sent, e.sent
e.sum = receive(e.sent)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from graphc.compiler.lowering import Lowering
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.kernels.program import Instr
from graphc.ops.exchange import Receive, Send


class TransferLowering:
    """Lowers the nodes of a graph that send or receive."""

    def __init__(self, low: Lowering) -> None:
        self._low = low
        self._sent: dict[int, dict[str, str]] = {}

    def __call__(self, node: Node) -> None:
        """Add one instruction for a bucket, at its last value to send or first to receive."""
        (source,), out, op, low = node.inputs, node.name, node.op, self._low
        if isinstance(op, Send):
            source = self._sendable(source, node)
            low.flat.update({source: op.offset, out: op.offset})
            members = self._sent.setdefault(op.bucket, {})
            members[out] = source
            if len(members) == op.members:
                self._transferred("send", op, members)
        elif out not in low.flat:
            assert isinstance(op, Receive), "the other end"
            arriving = {
                user: name for name in self._sent[op.bucket] for user in low.graph.users[name]
            }
            low.flat.update({user: low.flat[name] for user, name in arriving.items()})
            self._transferred("receive", op, arriving)

    def _transferred(
        self, kind: Literal["send", "receive"], op: Op, members: Mapping[str, str]
    ) -> None:
        """Add the instruction for a bucket; `members` maps each result to its operand."""
        outs = tuple(sorted(members, key=self._low.flat.__getitem__))
        ins = tuple(members[out] for out in outs)
        self._low.instrs.append(Instr(kind, kind, op, ins, outs, outs[-1]))

    def _sendable(self, name: str, node: Node) -> str:
        """Return the value, or a copy of it if its place in memory is fixed already."""
        low = self._low
        own = low.graph[name].op.is_source or name in low.given
        alone = low.graph.feeds_only(name, node.name) and low.root(name) == name
        if alone and not own:
            return name
        copy = f"{node.name}.copy"
        low.copy(name, copy, low.type(name), node.name)
        return copy
