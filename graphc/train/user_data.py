"""The sources of batches for a user's data and for part files, and the weights of rows."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.arguments import whole
from graphc.base.errors import DataError, FeedError, GraphError
from graphc.compiler.loss_share import divisors
from graphc.files.disk import check_plain
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ops.lengths import with_lengths
from graphc.runtime.executor import Executor
from graphc.runtime.rows import (
    Piece,
    RowAxis,
    WeightInput,
    by_position,
    check_one_batch,
    lengths_of,
    scalars,
    weight_input,
)
from graphc.train.source import (
    ArraySource,
    Batch,
    FunctionSource,
    IteratorSource,
    Source,
    blank,
    check_layout,
    checked_arrays,
    filled,
)

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
        _check_choosable(ex, self.stored, shuffled=seed is not None)
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
                before = sum(self._counts[:part])
                return before + int(self._rows_of(epoch, part)[position])
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
    if len(parts) == 1:
        return parts[0]
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


def training_source(
    ex: Executor,
    data: Any,
    batch: int,
    seed: int | None,
    sample_weight: Any = None,
    class_weight: Any = None,
    by_length: bool = False,
) -> Source:
    """Return a source of batches to train on; raise FeedError for data that do not fit.

    With `seed` None rows stay in their order, or are sorted `by_length`.
    """
    if sample_weight is not None:
        data = _with_weights(ex, data, sample_weight)
    source = _source(ex, data, batch, seed, train=True)
    if by_length:
        _sort(ex, source)
    return _weighted(ex, source, class_weight)


def _sort(ex: Executor, source: Source) -> None:
    """Let batches have rows of like length; raise GraphError if rows do not have lengths."""
    if not isinstance(source, ArraySource):
        raise GraphError(
            "fit: by_length is given, but the data come in batches already, or in part files",
            hint="give arrays, or lists of the arrays of rows",
        )
    if not any(ex.plan.declared[name].op.role.kind == "lengths" for name in ex.plan.input_names):
        raise GraphError(
            "fit: by_length is given, but no input of the net has lengths",
            hint="n = gc.lengths(x), then gc.scan(step, x, h0, lengths=n)",
        )
    source.lengths = lengths_of(ex.plan, source.named)


def validation_source(ex: Executor, data: Any) -> Source:
    """Return a source of batches to evaluate on, in order; raise FeedError if a loss needs more."""
    if isinstance(data, Iterator):
        raise FeedError(
            "validation: a generator is used up after one epoch",
            hint="give arrays, a folder of part files, or a function of the epoch's number",
        )
    if isinstance(data, (int, float)):
        raise FeedError(
            f"validation is {data!r}, not data",
            hint="graphc.data.stratified_split(labels, 0.2, seed=0) cuts rows in two; then "
            "validation=(x[held], y[held])",
        )
    unsorted = _source(ex, data, ex.plan.batch, None, train=False)
    if isinstance(unsorted, ArraySource):
        unsorted.lengths = lengths_of(ex.plan, unsorted.named)
    source = _weighted(ex, unsorted)
    check_losses_fed(ex, source.names)
    return source


def check_losses_fed(ex: Executor, names: frozenset[str] | None) -> None:
    """Raise FeedError if an input that a loss needs is not fed; do nothing for unknown names."""
    if names is None:
        return
    program = ex.plan.programs["infer"]
    needed = program.graph.upstream([program.graph.outputs[name] for name in ex.plan.losses])
    missing = [name for name in program.feeds if name in needed and name not in names]
    if missing:
        raise FeedError(
            f"validation: input {missing[0]!r} is missing, which a loss needs",
            hint="validation=(x, y) holds the same inputs as the training data",
        )


def part_file_batches(ex: Executor, folder: str | Path) -> Iterator[Piece]:
    """Return inference on a folder's part files; raise FeedError or DataError for a misfit."""
    files = PartFileSource(ex, _folder(folder), ex.plan.batch, None, False)
    check_one_batch(ex, "evaluate", files.rows, files.stored, scalars(ex.plan))
    source = _weighted(ex, files)
    batches = ((n, dict(ex.padded(feeds))) for n, feeds in source.batches(0))
    return ((n, feeds, ex.forward(feeds, copy=False)) for n, feeds in batches)


def streamed(data: Any) -> bool:
    """Return whether the data are not arrays."""
    return callable(data) or isinstance(data, (Iterator, str, Path))


def _source(ex: Executor, data: Any, batch: int, seed: int | None, train: bool) -> Source:
    if isinstance(data, (str, Path)):
        return PartFileSource(ex, _folder(data), batch, seed, train)
    if isinstance(data, Iterator):
        return IteratorSource(ex, data, train)
    if callable(data):
        return FunctionSource(ex, data, train)
    arrays, rows = checked_arrays(ex, data, train=train)
    _check_choosable(ex, arrays, shuffled=seed is not None)
    types = {name: ex.plan.declared[name].type for name in arrays}
    source = ArraySource(arrays, types, rows, batch, seed)
    if train and ex.sharded is not None:
        source.rank_range = ex.sharded.rank_rows
        weighted = divisors(ex.plan.declared)
        source.counting = {name for divisor in weighted for name in divisor.inputs}
    return source


def _check_choosable(ex: Executor, names: Iterable[str], shuffled: bool) -> None:
    """Raise FeedError for an input of which the rows of a batch cannot be chosen.

    Pairs of rows cannot, nor, in another order, numbers of the rows of their batch.
    """
    bounds = ex.plan.programs["infer"].index_bounds
    for name in names:
        node = ex.plan.declared[name]
        if node.type.pairs_rows:
            raise FeedError(
                f"{name!r} has the batch on two axes, so a batch cannot be chosen from its rows",
                operands=[node.described("pairs of rows")],
                hint="ex.evaluate takes arrays of one batch, gc.fit a function: def "
                "batches(epoch): yield x, pairs",
            )
        if shuffled and not isinstance(bounds.get(name, 0), int):
            raise FeedError(
                f"{name!r} numbers the rows of a batch, so they cannot be shuffled",
                operands=[node.described("numbers of rows")],
                hint=f"shuffle=False, or yield the batches: def batches(epoch): yield x, {name}",
            )


def _folder(path: str | Path) -> Path:
    if not os.path.isdir(path):
        raise FeedError(
            f"data is {str(path)!r}, which is not a folder of part files",
            hint="a file: np.load(path, mmap_mode='r') gives an array; gc.fit(ex, (x, y))",
        )
    return Path(path)


def _with_weights(ex: Executor, data: Any, weights: Any) -> dict[str, Any]:
    name = _needed_input(ex, "sample_weight").name
    if streamed(data):
        raise GraphError(
            "fit: sample_weight is for arrays only",
            hint=f"part files and generators give the weights themselves, as {name!r}",
        )
    feeds = by_position(ex.plan.data_names, (data,), {})
    if name in feeds:
        raise GraphError(
            f"fit: sample_weight is given, and so is {name!r}, which takes it",
            hint="give one of them",
        )
    return {**feeds, name: weights}


def _weighted(ex: Executor, source: Source, class_weight: Any = None) -> Source:
    """Return the source, with weights of rows added if a loss takes them and they are needed.

    They are needed if the source does not have them, or if classes have weights.  A row's weight is
    what the source feeds, or 1, times that of its class.
    """
    factors = None if class_weight is None else _class_factors(ex, class_weight)
    takes = weight_input(ex.plan)
    if takes is None:
        return source
    name = takes.name
    # A source of unknown names, such as a function, fills the weights of its batches itself.
    if factors is None and (source.names is None or name in source.names):
        return source
    ones: NDArray[Any] = np.ones(ex.plan.rows, ex.plan.declared[name].type.dtype)

    def weigh(batch: Batch) -> Batch:
        n, feeds = batch
        weight = feeds.get(name, ones[:n])
        return n, {**feeds, name: weight if factors is None else weight * factors(feeds)}

    source.weigh = weigh
    source.names = None if source.names is None else source.names | {name}
    return source


def _class_factors(ex: Executor, given: Any) -> Callable[[Mapping[str, Any]], NDArray[Any]]:
    """Return the function from feeds to the weight of each row's class, 1 if none is given.

    Raise GraphError for weights that make no sense.
    """
    labels = _needed_input(ex, "class_weight").labels
    if not isinstance(given, Mapping):
        raise GraphError(
            f"fit: class_weight is {type(given).__name__}, not a mapping",
            hint="class_weight={0: 1.0, 1: 5.0}",
        )
    node = ex.plan.declared[labels]
    if node.type.is_float or not node.op.is_input:
        raise GraphError(
            f"fit: class_weight is given, but {labels!r} is not an input of class numbers",
            hint="sample_weight= gives each row a weight of its own",
        )
    classes = ex.plan.programs["infer"].index_bounds.get(labels, 0)
    if not isinstance(classes, int):
        raise GraphError(
            f"fit: class_weight is given, but {labels!r} numbers the rows of a batch",
            hint="sample_weight= gives each row a weight of its own",
        )
    table = np.ones(classes)
    for label, weight in given.items():
        number = whole(label, 0)
        if number is None or number >= classes:
            raise GraphError(
                f"fit: class_weight names the class {label!r}, there are 0 to {classes - 1}"
            )
        if not (isinstance(weight, (int, float, np.number)) and 0 <= weight < np.inf):
            raise GraphError(
                f"fit: the weight of class {label} is {weight!r}, it must be a number from 0 up"
            )
        table[number] = weight
    # A label out of range is left to the check of the step.
    return lambda feeds: np.take(table, np.asarray(feeds[labels]), mode="clip")


def _needed_input(ex: Executor, option: str) -> WeightInput:
    """Return the one input of weights; raise GraphError if there is none or there are several."""
    found = weight_input(ex.plan)
    if found is None:
        raise GraphError(
            f"fit: {option} is given, but the net does not have exactly one input that is the "
            "weight of a loss",
            hint='w = net.input("w", (gc.N,)), then gc.softmax_loss(scores, y, weight=w)',
        )
    return found
