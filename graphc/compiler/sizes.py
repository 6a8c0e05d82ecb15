"""The bytes that an executor of a plan allocates: state, feeds, constants, scratch, exchange."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.backends.table import backend
from graphc.base.arguments import is_power_of_two
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import ALIGNMENT, ITEMSIZE, TensorType, align
from graphc.kernels.program import Instr, Program
from graphc.ops.exchange import Receive, Send

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan


def block_bytes(nbytes: int) -> int:
    """Return the bytes that are allocated for a block, its alignment included."""
    return nbytes + ALIGNMENT if nbytes else 0


def state_nodes(graphs: Iterable[Graph]) -> dict[str, Node]:
    """Return the parameters and states that the graphs read or write, in layout order."""
    found: dict[str, Node] = {}
    for graph in graphs:
        for node in graph:
            if node.op.persistent:
                found.setdefault(node.name, node)
    place = {name: i for i, name in enumerate(found)}

    def rank(name: str) -> tuple[int, str, str, int]:
        op = found[name].op
        if op.is_parameter:
            return 0, "", "", place[name]
        if op.role.kind == "slot":
            return 1, op.role.part, op.role.optimizer, place[op.role.of]
        return 2, "", "", place[name]

    return {name: found[name] for name in sorted(found, key=rank)}


def layout(nodes: Mapping[str, Node]) -> tuple[dict[str, int], int]:
    """Return the offset of each state in its block, and the size of the block."""
    offsets: dict[str, int] = {}
    offset = 0
    for name, node in nodes.items():
        offsets[name] = offset
        offset += align(node.type.nbytes(1))
    return offsets, offset


@dataclass(frozen=True, slots=True)
class ScratchSize:
    """The memory that kernels need besides buffers: `thread` bytes for each thread."""

    thread: int
    threads: int

    @property
    def nbytes(self) -> int:
        """The number of bytes of all threads."""
        return self.thread * self.threads


def scratch_size(programs: Mapping[str, Program], threads: int | None) -> ScratchSize:
    """Return the scratch of programs, which run one at a time."""
    made = {program.backend: backend(program.backend) for program in programs.values()}
    needs = [max(made[p.backend].scratch(p), default=0) for p in programs.values()]
    counts = [one.threads(threads) for one in made.values()]
    return ScratchSize(align(max(needs, default=0)), max(counts, default=1))


def feed_types(programs: Mapping[str, Program]) -> dict[str, TensorType]:
    """Return the types of the inputs of all programs, without gradients given to the update."""
    found: dict[str, TensorType] = {}
    for program in programs.values():
        given = program.fed_gradients
        found.update({name: type for name, type in program.feeds.items() if name not in given})
    return found


def constant_types(programs: Mapping[str, Program]) -> dict[str, TensorType]:
    """Return the types of the constants of all programs; each program has its own."""
    found: dict[str, TensorType] = {}
    for program in programs.values():
        named = program.constants.items()
        found.update({f"{program.name}:{name}": buffer.type for name, buffer in named})
    return found


def region_bytes(types: Mapping[str, TensorType], n: int) -> int:
    """Return the bytes of named arrays in one block, for a batch of `n` rows."""
    return sum(align(type.nbytes(n)) for type in types.values())


@dataclass(frozen=True, slots=True)
class Bucket:
    """A buffer that is sent in one piece: `elements` elements, padding between values included."""

    number: int
    elements: int
    dtype: str

    @property
    def nbytes(self) -> int:
        """The number of bytes of the bucket."""
        return self.elements * ITEMSIZE[self.dtype]

    def held(self, lanes: int) -> int:
        """Return how many sums of shards are held back at a time."""
        return (lanes - 1).bit_length()

    def room(self, ranks: int) -> int:
        """Return how many elements of scratch the sum over ranks needs."""
        tree = ranks > 1 and is_power_of_two(ranks)
        return room(self.elements, ITEMSIZE[self.dtype]) if tree else 0


def buckets(plan: Plan) -> Iterator[Bucket]:
    """Yield the buckets of a plan's step, in the order in which they are sent."""
    programs = (plan.programs[name] for name in ("step", "accumulate") if name in plan.programs)
    for program in programs:
        for instr in program.instrs:
            if instr.kind == "send":
                first, last = (program.buffers[name] for name in (instr.outs[0], instr.outs[-1]))
                nbytes = last.offset + last.type.nbytes(1) - first.offset
                dtype = first.type.dtype
                yield Bucket(bucket_of(instr), nbytes // ITEMSIZE[dtype], dtype)


def workspaces(plan: Plan) -> int:
    """Return how many workspaces an executor needs: one per shard of a rank if they run in step."""
    cut = plan.recipe.sharding
    return 1 if cut is None or not cut.sync_batchnorm else cut.lanes


def exchange_bytes(plan: Plan) -> int:
    """Return how many bytes the exchange of a plan allocates."""
    if plan.shards is None:
        return 0
    lanes, ranks = plan.lanes, plan.ranks
    return sum(b.nbytes * b.held(lanes) + b.room(ranks) * ITEMSIZE[b.dtype] for b in buckets(plan))


def bucket_of(instr: Instr) -> int:
    """Return the number of the bucket that an instruction sends or receives."""
    assert isinstance(instr.op, (Send, Receive))
    return instr.op.bucket


SMALL = 4096
"""The most bytes of a buffer whose time depends on the number of messages, not on their size."""


def room(elements: int, itemsize: int) -> int:
    """Return how many elements of scratch the sum of a buffer needs."""
    return elements if elements * itemsize <= SMALL else elements - elements // 2
