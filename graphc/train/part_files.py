"""Part files: a folder of `.npz` files with arrays for each input, read one at a time."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, FeedError
from graphc.files.disk import check_plain
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ops.loops.lengths import with_lengths
from graphc.runtime.executor import Executor
from graphc.runtime.row_axis import RowAxis
from graphc.train.source import Batch, Source, blank, check_choosable, check_layout, filled

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


class PartFileSource(Source):
    """The rows of all part files of a folder, in batches that continue from one file to the next.

    A part file is an `.npz` file with an array for each input, by name.  With a seed the files
    come in the order of seed and epoch, and so do the rows of each; rows of different files
    are not mixed, so one file should not hold similar rows.  All headers are read at once, to
    report what does not fit before anything is trained.
    """

    rows: int

    def __init__(
        self, ex: Executor, folder: Path, batch: int, seed: int | None, train: bool
    ) -> None:
        self.files = sorted(folder.glob("*.npz"))
        if not self.files:
            raise DataError(
                f"{folder} holds no part files",
                hint="write some: np.savez(folder / 'part-000.npz', x=x, y=y)",
            )
        headers = [_checked(ex, file, train) for file in self.files]
        self._counts = [count for _, count in headers]
        self.stored = headers[0][0]
        self.rows = sum(self._counts)
        self._check_names([names for names, _ in headers])
        check_choosable(ex, self.stored, shuffled=seed is not None)
        self._batch, self._seed = batch, seed
        self._lengths = {
            node.name: stored
            for node in ex.plan.declared
            for stored in self.stored.intersection(with_lengths(node))
            if node.name not in self.stored
        }
        """The inputs of lengths that files do not hold, and an input whose steps all rows have."""
        self.names = self.stored.union(self._lengths)
        types = {name: ex.plan.declared[name].type for name in self.names}
        axes = {name: RowAxis.of(type) for name, type in types.items()}
        self._axes = {name: axis for name, axis in axes.items() if axis is not None}

    def _check_names(self, found: list[frozenset[str]]) -> None:
        for file, names in zip(self.files, found, strict=True):
            if names != self.stored:
                raise DataError(
                    f"{file.name} holds {', '.join(sorted(names))}, "
                    f"{self.files[0].name} holds {', '.join(sorted(self.stored))}",
                    hint="all part files of a folder must have the same arrays",
                )

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches; skip part files before the first one."""
        skip, pieces, have = start * self._batch, list[dict[str, Array]](), 0
        for part in self._order(epoch):
            count = self._counts[part]
            if skip >= count:
                skip -= count
                continue
            arrays: dict[str, Array] = {}  # free the part file before this one first
            arrays = self._read(part)
            rows = self._rows_of(epoch, part)[skip:]
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
        for part in self._order(epoch):
            if position < self._counts[part]:
                return sum(self._counts[:part]) + int(self._rows_of(epoch, part)[position])
            position -= self._counts[part]
        return None

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """Return the order of the part files in an epoch."""
        return self._shuffled(f"epoch {epoch}", len(self.files))

    def _rows_of(self, epoch: int, part: int) -> NDArray[np.intp]:
        """Return the order of a part file's rows in an epoch."""
        # The name is a key of random numbers: another one would change the order of every run.
        return self._shuffled(f"epoch {epoch} shard {part}", self._counts[part])

    def _shuffled(self, name: str, count: int) -> NDArray[np.intp]:
        if self._seed is None:
            return np.arange(count)
        return generator(self._seed, name).permutation(count)

    def _read(self, part: int) -> dict[str, Array]:
        """Return a part file's arrays, with one entry of the batch axis for each row."""
        try:
            with np.load(self.files[part], allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name]) for name in self.stored}
        except _UNREADABLE as error:
            raise _unreadable(self.files[part], error) from error
        for name, of in self._lengths.items():
            arrays[name] = np.full(len(arrays[of]), arrays[of].shape[1], np.int32)
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
                parts[0] if len(parts) == 1 else _concatenated(parts, axis.axis)
            )
        return feeds


def _concatenated(parts: list[Array], axis: int) -> Array:
    """Return the arrays one after the other, with zeros where rows of one have fewer steps."""
    most = np.max([part.shape for part in parts], 0)
    for i, part in enumerate(parts):
        more = [(0, int(m) - s) for m, s in zip(most, part.shape, strict=True)]
        more[axis] = 0, 0
        parts[i] = np.pad(part, more) if any(after for _, after in more) else part
    return np.concatenate(parts, axis)


def _checked(ex: Executor, file: Path, train: bool) -> tuple[frozenset[str], int]:
    """Return a part file's arrays and rows, from its headers; raise FeedError for a misfit."""
    try:
        headers = _headers(ex, file)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    try:
        given = filled(ex, headers)
        _, rows = check_layout(ex, given, given, train)
    except FeedError as error:
        sentence = f"{file.name}: {error.sentence}"
        raise FeedError(sentence, loc=error.loc, hint=error.hint) from None
    return frozenset(headers), rows


def _headers(ex: Executor, file: Path) -> dict[str, Array]:
    """Return what has the shape and dtype of each array, and takes no memory."""
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
                name = entry.removesuffix(".npy")
                found[name] = blank(ex, name, shape, dtype)
    return found


def _unreadable(file: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return DataError(
        f"cannot read {file.name}: {reason}",
        hint="part files are written by np.savez(path, x=x, y=y)",
    )
