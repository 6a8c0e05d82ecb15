"""The shards that a step is cut into, and the ranks that share them."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.base.arguments import checked_whole, is_power_of_two
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc


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
