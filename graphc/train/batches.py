"""Batches of rows in an order that depends only on the seed and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.runtime.row_axis import RowAxis
from graphc.train.mapped import Ahead

Rows = NDArray[np.intp]


class Batches:
    """Cuts arrays into batches; all memory is allocated here, none by an epoch.

    `arrays` have `rows` rows along the batch axis of their `types`; arrays without a batch axis are
    fed as they are.  Arrays of another dtype are converted a batch at a time if that is safe, and
    are otherwise left to the check of each step.
    """

    def __init__(
        self, arrays: Mapping[str, Array], types: Mapping[str, TensorType], rows: int, batch: int
    ) -> None:
        self._rows, self._batch = rows, min(batch, rows)
        self._order = np.arange(rows, dtype=np.intp)
        split = {name: RowAxis.of(types[name]) for name in arrays}
        self._sources = {k: a.split(arrays[k]) for k, a in split.items() if a is not None}
        fixed = {name: arrays[name] for name, a in split.items() if a is None}
        self._sizes: dict[int, tuple[dict[str, Array], dict[str, Array], dict[str, Array]]] = {}
        buffers = {k: a.buffer(arrays[k], self._batch) for k, a in split.items() if a is not None}
        casts = {
            k: np.empty(b.size, types[k].dtype) for k, b in buffers.items() if _cast(b, types[k])
        }
        for n in {self._batch, rows % self._batch} - {0}:
            axes = {k: a for k, a in split.items() if a is not None}
            cut = {k: a.cut(buffers[k], arrays[k], n) for k, a in axes.items()}
            cast = {k: axes[k].cut(casts[k], arrays[k], n) for k in casts}
            feeds = {k: a.join(cast.get(k, cut[k])) for k, a in axes.items()}
            self._sizes[n] = cut, cast, {**fixed, **feeds}
        self._axes = {name: a.axis for name, a in split.items() if a is not None}
        mapped = {k for k in self._sources if isinstance(arrays[k], np.memmap)}
        ahead = {name: self._sources.pop(name) for name in mapped}
        self._ahead = Ahead(ahead, self._axes)
        self._window = self._batch * max(1, min(self._ahead.rows, rows) // self._batch)
        self._mapped = mapped
        self.own: Callable[[int], tuple[int, int]] | None = None
        """A function from a batch's number of rows to the range of rows needed here; the other rows
        may hold those of earlier batches.  None for all rows."""
        self.counting: Collection[str] = ()
        """The arrays of which all rows are needed nevertheless."""

    def shuffle(self, seed: int, epoch: int) -> None:
        """Put the rows into the order of this seed and epoch, whatever the order before was."""
        self._order.sort()
        generator(seed, f"epoch {epoch}").shuffle(self._order)

    def place(self, step: int, row: int) -> int:
        """Return the index in the arrays of a row of a batch, in the present order."""
        return int(self._order[step * self._batch + row])

    def __len__(self) -> int:
        return -(-self._rows // self._batch)

    def __iter__(self) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yield the rows and feeds of each batch; the next one overwrites the arrays."""
        return self.since(0)

    def since(self, first: int) -> Iterator[tuple[int, dict[str, Array]]]:
        """Yield the batches from number `first` on."""
        begin = first * self._batch
        for start in range(begin, self._rows, self._batch):
            chosen = self._order[start : start + self._batch]
            buffers, casts, feeds = self._sizes[len(chosen)]
            for name, source in self._sources.items():
                rows, out = chosen, buffers[name]
                if self.own is not None and self._cut(name):
                    own = slice(*self.own(len(chosen)))
                    rows, out = chosen[own], out[own]
                # Any mode but "raise" writes straight into `out`; the rows are all in range.
                np.take(source, rows, self._axes[name], out, "clip")
            if self._mapped:
                self._take_mapped((start - begin) % self._window, start, buffers)
            for name, cast in casts.items():
                np.copyto(cast, buffers[name], casting="unsafe")
            yield len(chosen), feeds

    def _cut(self, name: str) -> bool:
        """Return whether only the rows needed here are taken of an array.

        All rows are taken of arrays with one number per row, of arrays by which means are
        weighted, and of arrays whose rows are not on the first axis.
        """
        many = self._axes[name] == 0 and self._sources[name].size > self._rows
        return many and name not in self.counting

    def _take_mapped(self, offset: int, start: int, buffers: Mapping[str, Array]) -> None:
        """Copy the rows of the batch at `start`, which is at `offset` in the rows read ahead."""
        if offset == 0:
            self._ahead.read(self._order[start : start + self._window])
        stop = min(offset + self._batch, self._rows - start + offset)
        for name in self._mapped:
            self._ahead.take(name, offset, stop, buffers[name])


def _cast(buffer: Array, type: TensorType) -> bool:
    """Return whether rows of the buffer's dtype are converted here."""
    return buffer.dtype != type.dtype and type.is_float and buffer.dtype.kind in "fiub"
