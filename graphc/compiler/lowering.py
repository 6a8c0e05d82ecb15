"""From nodes to instructions: each op lowers itself through the Emitter that is defined here."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Literal

from graphc.base.errors import GraphError
from graphc.compiler.schedule import Schedule
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Source
from graphc.ir.plan import Instr
from graphc.ir.tensor_type import TensorType
from graphc.kernels.views import View
from graphc.ops.exchange import Receive, Send


class Lowering:
    """The instructions of a scheduled graph, and the types of all values that they read or write.

    `kernels` are the names of the backend's kernels; an op that asks for another runs by its
    reference rule.
    """

    def __init__(
        self, graph: Graph, schedule: Schedule, capacity: int, kernels: Container[str]
    ) -> None:
        self.graph = graph
        self.capacity = capacity
        self.instrs: list[Instr] = []
        self.types: dict[str, TensorType] = {}
        """The types of the buffers that are not nodes."""
        self.roots: dict[str, str] = {}
        """From an alias to the buffer whose bytes it shares."""
        self.views: dict[str, View] = {}
        """From an alias that is only some columns of its root to those columns."""
        self.constants: dict[str, TensorType] = {}
        """The constant vectors that kernels asked for."""
        self.scratches: dict[str, int] = {}
        """From a scratch buffer to the instruction that it belongs to."""
        self.flat: dict[str, int] = {}
        """From an exchanged value to its offset in the buffer that holds all buckets."""
        self.given = schedule.in_place.keys()
        """The values that are written to states."""
        self.border = 0
        self._sent: dict[int, dict[str, str]] = {}
        self._kernels = kernels
        self._node: Node | None = None
        self._run(schedule)

    def _run(self, schedule: Schedule) -> None:
        for position, node in enumerate(schedule.order):
            if position == schedule.border:
                self._end_forward(schedule)
            if not isinstance(node.op, Source):
                self._lower(node)
        if schedule.border == len(schedule.order):
            self._end_forward(schedule)

    def _lower(self, node: Node) -> None:
        """Add the instructions of a node; raise GraphError if its scratch is no possible array."""
        self._node = node
        try:
            node.op.lower(self, node.inputs, node.name)
        except ValueError as error:
            sentence, _, hint = str(error).partition("\n")
            raise GraphError(
                f"{node.op.name} {node.name!r} cannot be computed: {sentence}",
                loc=node.locs[0] if node.locs else None,
                hint=hint,
            ) from None

    def _end_forward(self, schedule: Schedule) -> None:
        """Copy values that could not be written in place to their states; backward reads none."""
        for state, value in schedule.commits:
            self.copy(value, f"{state} <- {value}", self.graph[state].type, state)
        self.border = len(self.instrs)

    def root(self, name: str) -> str:
        """Return the buffer whose bytes `name` shares."""
        return self.roots.get(name, name)

    def copy(self, source: str, out: str, type: TensorType, node: str) -> None:
        """Add a copy of a buffer into a new one."""
        self.types[out] = type
        self.instrs.append(Instr("copy", "copy", None, (source,), (out,), (), node))

    def type(self, name: str) -> TensorType:
        """Return the type of an operand, the result, or a scratch buffer."""
        found = self.types.get(name)
        return self.graph[name].type if found is None else found

    def call(self, kernel: str, ins: Sequence[str], out: str, scratch: Sequence[str] = ()) -> None:
        """Add a call of the backend's kernel, or of the reference rule if there is no kernel."""
        if kernel not in self._kernels:
            self.reference(ins, out)
            return
        assert self._node is not None
        for name in scratch:
            if name in self.scratches:
                self.scratches[name] = len(self.instrs)
        self.instrs.append(
            Instr("call", kernel, self._node.op, tuple(ins), (out,), tuple(scratch), out)
        )

    def reference(self, ins: Sequence[str], out: str) -> None:
        """Add an instruction that runs the op's reference rule and copies its result."""
        assert self._node is not None
        op = self._node.op
        self.instrs.append(Instr("reference", op.name, op, tuple(ins), (out,), (), out))

    def exchange(self, source: str, out: str) -> None:
        """Add one instruction for a whole bucket: its last value sends it, its first awaits it."""
        assert self._node is not None
        op = self._node.op
        if isinstance(op, Send):
            source = self._sendable(source)
            self.flat.update({source: op.offset, out: op.offset})
            members = self._sent.setdefault(op.bucket, {})
            members[out] = source
            if len(members) == op.members:
                self._exchanged("send", op, members)
        elif isinstance(op, Receive) and out not in self.flat:
            arriving = {user: name for name in self._sent[op.bucket] for user in self._users(name)}
            self.flat.update({user: self.flat[name] for user, name in arriving.items()})
            self._exchanged("receive", op, arriving)

    def _exchanged(
        self, kind: Literal["send", "receive"], op: Op, members: Mapping[str, str]
    ) -> None:
        """Add the instruction for a bucket; `members` maps each result to its operand."""
        outs = tuple(sorted(members, key=self.flat.__getitem__))
        ins = tuple(members[out] for out in outs)
        self.instrs.append(Instr(kind, kind, op, ins, outs, (), outs[-1], len(outs)))

    def _users(self, name: str) -> tuple[str, ...]:
        return self.graph.users[name]

    def _sendable(self, name: str) -> str:
        """Return the value, or a copy of it if it already has a fixed place in memory."""
        assert self._node is not None
        own = isinstance(self.graph[name].op, Source) or name in self.given
        alone = self.graph.feeds_only(name, self._node.name) and self.root(name) == name
        if alone and not own:
            return name
        copy = f"{self._node.name}.copy"
        self.copy(name, copy, self.type(name), self._node.name)
        return copy

    def alias(self, source: str, out: str) -> None:
        """Let `out` be the same bytes as `source`."""
        self.roots[out] = self.root(source)

    def scratch(self, type: TensorType) -> str:
        """Return a new buffer that lives for the next instruction only."""
        assert self._node is not None
        name = f"{self._node.name}.scratch{len(self.scratches)}"
        self.types[name] = type
        self.scratches[name] = -1
        return name

    def ones(self, type: TensorType) -> str:
        """Return a constant vector of ones, as long as the type's first axis, of its dtype."""
        return self._constant("ones", TensorType(type.shape[:1], type.dtype))

    def row_numbers(self, type: TensorType) -> str:
        """Return a constant int64 vector 0, 1, 2, ... as long as the type's first axis."""
        return self._constant("rows", TensorType(type.shape[:1], "int64"))

    def _constant(self, kind: str, type: TensorType) -> str:
        name = f"%{kind}:{type}"
        self.constants[name] = self.types[name] = type
        return name
