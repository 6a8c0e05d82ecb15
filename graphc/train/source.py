"""Where batches come from, whatever holds the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Batch = tuple[int, dict[str, Any]]
"""The number of rows, and the feeds by name of input; the next batch may overwrite them."""


class Source(Protocol):
    """Batches of each epoch, in an order that depends on nothing but the epoch's number."""

    @property
    def names(self) -> frozenset[str] | None:
        """The inputs that are fed; None where only the batches say."""

    @property
    def rows(self) -> int | None:
        """The rows of an epoch; None where that shows when it ends."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""

    def release(self, epoch: int, start: int) -> None:
        """No batch before this one will be asked for again."""

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """The place in the data of a row of a batch; None where there is no such number."""
