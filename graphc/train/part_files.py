"""A folder of `.npz` part files, of which one at a time is in memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, FeedError
from graphc.files.paths import check_plain
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.rows import RowAxis
from graphc.train.arrays import check_layout
from graphc.train.source import Batch, Source, filled

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


class PartFileSource(Source):
    """The rows of all part files of a folder, in batches that continue from one file to the next.

    A part file is an `.npz` file with an array for each input, by name.  With a seed the files
    come in the order of seed and epoch, and so do the rows of each; rows of different files
    are not mixed, so one file should not hold similar rows.  All headers are read at once, to
    report what does not fit before anything is trained.
    """

    names: frozenset[str]

    def __init__(
        self, ex: Executor, folder: Path, batch: int, seed: int | None, train: bool
    ) -> None:
        self.files = sorted(folder.glob("*.npz"))
        if not self.files:
            raise DataError(
                f"{folder} holds no shards",
                hint="write some: np.savez(folder / 'part-000.npz', x=x, y=y)",
            )
        headers = [_checked(ex, file, train) for file in self.files]
        self._counts = [count for _, count in headers]
        self.names, self.rows = headers[0][0], sum(self._counts)
        self._check_names([names for names, _ in headers])
        self._batch, self._seed = batch, seed
        types = {name: ex.plan.declared[name].type for name in self.names}
        axes = {name: RowAxis.of(type) for name, type in types.items()}
        self._axes = {name: axis for name, axis in axes.items() if axis is not None}

    def _check_names(self, found: list[frozenset[str]]) -> None:
        for file, names in zip(self.files, found, strict=True):
            if names != self.names:
                raise DataError(
                    f"{file.name} holds {', '.join(sorted(names))}, "
                    f"{self.files[0].name} holds {', '.join(sorted(self.names))}",
                    hint="all shards of a folder must have the same arrays",
                )

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on; skip part files before it."""
        skip, pieces, have = start * self._batch, list[dict[str, Array]](), 0
        for shard in self._order(epoch):
            count = self._counts[shard]
            if skip >= count:
                skip -= count
                continue
            arrays: dict[str, Array] = {}  # free the part file before this one first
            arrays = self._read(shard)
            rows = self._rows_of(epoch, shard)[skip:]
            skip = 0
            while len(rows):
                taken, rows = rows[: self._batch - have], rows[self._batch - have :]
                pieces.append(self._taken(arrays, taken))
                have += len(taken)
                if have == self._batch:
                    yield have, self._joined(pieces)
                    pieces, have = [], 0
        if have:
            yield have, self._joined(pieces)

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the row's index over all part files in the order of their names."""
        position = step * self._batch + row
        for shard in self._order(epoch):
            if position < self._counts[shard]:
                before = sum(self._counts[:shard])
                return before + int(self._rows_of(epoch, shard)[position])
            position -= self._counts[shard]
        return None

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """Return the order of the part files in an epoch."""
        return self._shuffled(f"epoch {epoch}", len(self.files))

    def _rows_of(self, epoch: int, shard: int) -> NDArray[np.intp]:
        """Return the order of a part file's rows in an epoch."""
        return self._shuffled(f"epoch {epoch} shard {shard}", self._counts[shard])

    def _shuffled(self, name: str, count: int) -> NDArray[np.intp]:
        if self._seed is None:
            return np.arange(count)
        return generator(self._seed, name).permutation(count)

    def _read(self, shard: int) -> dict[str, Array]:
        """Return a part file's arrays, with one entry of the batch axis for each row."""
        try:
            with np.load(self.files[shard], allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name]) for name in self.names}
        except _UNREADABLE as error:
            raise _unreadable(self.files[shard], error) from error
        split = {name: axis.split(arrays[name]) for name, axis in self._axes.items()}
        return {**arrays, **split}

    def _taken(self, arrays: Mapping[str, Array], rows: Any) -> dict[str, Array]:
        taken = {name: np.take(arrays[name], rows, axis.axis) for name, axis in self._axes.items()}
        return {**arrays, **taken}

    def _joined(self, pieces: list[dict[str, Array]]) -> dict[str, Array]:
        feeds = dict(pieces[0])
        for name, axis in self._axes.items():
            parts = [piece[name] for piece in pieces]
            feeds[name] = axis.join(
                parts[0] if len(parts) == 1 else np.concatenate(parts, axis.axis)
            )
        return feeds


def _checked(ex: Executor, file: Path, train: bool) -> tuple[frozenset[str], int]:
    """Return a part file's arrays and rows, from its headers; raise FeedError for a misfit."""
    try:
        headers = _headers(file)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    try:
        given = filled(ex, headers)
        _, rows = check_layout(ex, given, given, train)
    except FeedError as error:
        sentence = f"{file.name}: {error.sentence}"
        raise FeedError(sentence, loc=error.loc, hint=error.hint) from None
    return frozenset(headers), rows


def _headers(file: Path) -> dict[str, Array]:
    """Return zeros of the shape and dtype of each array, which take no memory."""
    found = {}
    check_plain(file)
    with zipfile.ZipFile(file) as archive:
        for entry in archive.namelist():
            with archive.open(entry) as stream:
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(stream)
                found[entry.removesuffix(".npy")] = np.broadcast_to(np.zeros((), dtype), shape)
    return found


def _unreadable(file: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return DataError(
        f"cannot read {file.name}: {reason}", hint="shards are written by np.savez(path, x=x, y=y)"
    )
