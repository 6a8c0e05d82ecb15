"""The protocol of sources of batches, whatever holds the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Batch = tuple[int, dict[str, Any]]
"""The number of rows, and the feeds by name of input; the next batch may overwrite them."""


class Source(Protocol):
    """Batches of each epoch, in an order that depends only on the epoch's number."""

    @property
    def names(self) -> frozenset[str] | None:
        """The inputs that are fed; None if only the batches show them."""

    @property
    def rows(self) -> int | None:
        """The number of rows of an epoch; None if it is known only at the end of the epoch."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""

    def release(self, epoch: int, start: int) -> None:
        """Free what only batches before this one need: none of those will be asked for."""

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index in the data of a row of a batch; None if it is unknown."""
