"""The losses and metrics of validation data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from graphc.runtime.distributed.communicator import Communicator, Solo
from graphc.runtime.executor import Executor
from graphc.runtime.many_rows import Piece
from graphc.runtime.means import Means, Numbers
from graphc.train.interrupts import StepBorder
from graphc.train.source import Source
from graphc.train.sources import cannot_compute, folder_source, missing_for_losses


def scalar_outputs(ex: Executor) -> list[str]:
    """Return the names of the outputs of inference that are one number per batch."""
    program = ex.plan.programs["infer"]
    return [name for name, buffer in program.outputs.items() if not _rank(ex, buffer)]


def validated(
    ex: Executor, held: Source, border: StepBorder, ranks: Communicator | None = None
) -> tuple[float, dict[str, float]]:
    """Return the sum of the losses, and the other scalar outputs, as means over all rows.

    Several ranks take the batches in turns, and add up all of them in their order.  Raise
    FeedError if the batches determine no loss.
    """
    ranks = ranks or Solo()
    totals, mine = Means(ex.plan, ex.state.arrays), list[Numbers]()
    for number, (rows, feeds) in enumerate(held.batches(0)):
        missing = None if number else missing_for_losses(ex, frozenset(feeds))
        if missing is not None:
            raise cannot_compute(missing)
        if number % ranks.size == ranks.rank:
            mine.append(totals.numbers(rows, feeds, ex.forward(feeds, copy=False)))
        border.check()
    for turn in zip_longest(*ranks.gather(mine)):
        for numbers in turn:
            if numbers is not None:
                totals.add_numbers(numbers)
    means = totals.found()
    return sum(means.pop(name, 0.0) for name in ex.plan.losses), means


def shard_batches(ex: Executor, folder: str | Path) -> Iterator[Piece]:
    """Return inference on a folder's part files; raise FeedError or DataError for a misfit."""
    source = folder_source(ex, folder)
    return ((n, feeds, ex.forward(feeds, copy=False)) for n, feeds in source.batches(0))


def _rank(ex: Executor, buffer: str) -> int:
    return ex.plan.programs["infer"].buffers[buffer].type.rank
