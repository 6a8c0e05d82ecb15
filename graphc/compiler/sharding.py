"""The shards that a step is cut into, the ranks that share them, and the memory of their sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.base.arguments import checked_whole, is_power_of_two
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.program import Instr
from graphc.ops.exchange import Receive, Send

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan


@dataclass(frozen=True, slots=True)
class Sharding:
    """The number of shards of each batch, and of the ranks that share them."""

    shards: int
    ranks: int = 1
    sync_batchnorm: bool = False
    """Whether batch normalisation takes the statistics of the whole batch, not of a shard."""

    @property
    def lanes(self) -> int:
        """The number of shards of each rank."""
        return self.shards // self.ranks

    def rows(self, batch: int) -> int:
        """Return the largest number of rows of a shard."""
        return -(-batch // self.shards)

    @property
    def alone(self) -> Sharding | None:
        """The same shards on one process, or None if one process cannot run all of them."""
        whole = is_power_of_two(self.shards)
        return Sharding(self.shards, 1, self.sync_batchnorm) if whole else None


def sharding(
    shards: int | None, ranks: int, sync_batchnorm: bool, batch: int, budget: int | None = None
) -> Sharding | None:
    """Return the sharding that these options of `compile` ask for, or None if a step is not cut.

    Raise GraphError if the batch cannot be cut so, or if the ranks cannot share the shards.
    """
    for name, number in (("shards", 1 if shards is None else shards), ("ranks", ranks)):
        checked_whole(name, number)
    if shards is None and ranks == 1:
        return None
    found = Sharding(ranks if shards is None else shards, ranks, sync_batchnorm)
    why, hint = _problem(found, batch, budget)
    if why:
        raise GraphError(why, loc=caller_loc(), hint=hint)
    return found


def _problem(found: Sharding, batch: int, budget: int | None) -> tuple[str, str]:
    """Return why the sharding is impossible and what would help; both empty if it is possible."""
    shards, ranks = found.shards, found.ranks
    if batch < shards:
        return f"a batch of {batch} rows is too small to be cut into {shards} shards", ""
    if shards != ranks and not (is_power_of_two(shards) and is_power_of_two(ranks)):
        hint = "sums are added in pairs, so that their order is the same on any number of ranks"
        return f"{shards} shards on {ranks} ranks: both must be powers of two, or equal", hint
    if shards < ranks:
        return f"{ranks} ranks cannot share {shards} shards", "take as many shards as ranks"
    if budget is not None:
        return "a plan with shards takes no budget yet", "compile without budget="
    return "", ""


# ------------------------------------------------------------------ memory


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
