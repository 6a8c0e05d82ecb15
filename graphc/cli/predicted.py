"""Predictions as the text of a table, or as arrays in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from graphc.base.errors import GraphError
from graphc.cli.columns import Feeds
from graphc.cli.metrics import Classes, classes_of
from graphc.files.model_file import Columns
from graphc.ir.op import Array
from graphc.ir.plan import Plan
from graphc.ir.tensor_type import N, TensorType, shape_text
from graphc.runtime.rows import RowAxis

CLASS = "class"
"""The name of the column with the class of the largest score."""


@dataclass(frozen=True)
class Predicted:
    """The predictions of a net: its outputs by name, and which of them scores classes."""

    net: str
    types: dict[str, TensorType]
    classes: Classes | None
    words: tuple[str, ...] = ()
    """The names of the classes; empty if they are numbers."""

    @classmethod
    def of(cls, plan: Plan, columns: Columns | None = None) -> Predicted:
        """Return the description of a plan's predictions, with these column names."""
        program = plan.programs["infer"]
        types = {n: program.buffers[b].type for n, b in program.outputs.items()}
        classes = classes_of(plan.declared)
        words = columns.classes if columns is not None and classes is not None else ()
        if classes is not None and len(words) not in (0, classes.count):
            raise GraphError(
                f"the model names {len(words)} classes, it scores {classes.count}",
                hint="train it again",
            )
        return cls(plan.declared.name, types, classes, words)

    def write(self, file: BinaryIO, kind: str, pieces: Iterable[Feeds]) -> None:
        """Write a file; write .csv and most .npy files piece by piece, without keeping pieces."""
        if kind == "csv":
            for text in self.csv(pieces):
                file.write(text.encode())
        elif kind == "npz":
            np.savez(file, **cast(dict[str, Any], self.joined(pieces)))
        else:
            self._write_npy(file, pieces)

    def _write_npy(self, file: BinaryIO, pieces: Iterable[Feeds]) -> None:
        """Write the only output; the header comes first, and gets the number of rows at the end."""
        left = iter(pieces)
        first = next(left)
        name = self._single(first)
        every: Iterable[Feeds] = chain((first,), left)
        if self._axis(name) != 0:
            every = (self.joined(every),)
        rows, array = 0, first[name]
        for piece in every:
            array = np.ascontiguousarray(piece[name])
            if not file.tell():
                file.write(_npy_header(array, 0))
            file.write(array.reshape(-1).view(np.uint8).data)
            rows += len(array)
        file.seek(0)
        file.write(_npy_header(array, rows))

    def _single(self, piece: Feeds) -> str:
        own = [name for name in piece if name in self.types]
        if len(own) != 1:
            raise GraphError(
                f"a .npy file holds one array, the net has the outputs {', '.join(own)}",
                hint="write a .npz file",
            )
        return own[0]

    def joined(self, pieces: Iterable[Feeds]) -> Feeds:
        """Return the arrays of all rows, the classes first."""
        parts = [{k: v.copy() for k, v in self._with_class(piece).items()} for piece in pieces]
        return {
            name: np.concatenate([part[name] for part in parts], self._axis(name))
            for name in parts[0]
        }

    def csv(self, pieces: Iterable[Feeds]) -> Iterator[str]:
        """Yield the text of a table: a header, then a line for each row."""
        first = True
        for piece in pieces:
            found = self._with_class(piece)
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            columns = {name: self._columns(name, array) for name, array in found.items()}
            if first:
                writer.writerow(h for n, c in columns.items() for h in _header(n, found[n], c))
            writer.writerows(np.concatenate([c.astype(str) for c in columns.values()], 1).tolist())
            yield text.getvalue()
            first = False

    def _with_class(self, piece: Feeds) -> Feeds:
        classes = self.classes
        if classes is None or classes.scores not in piece or CLASS in self.types:
            return piece
        best = piece[classes.scores].argmax(axis=1)
        return {CLASS: np.array(self.words)[best] if self.words else best, **piece}

    def _columns(self, name: str, array: Array) -> Array:
        """Return the rows of an output, flat."""
        type = self.types.get(name)
        if type is not None and (not type.shape or type.shape[0] != N):
            raise GraphError(
                f"output {name!r} is {shape_text(type.shape)}, which does not give one table "
                "row for each row of data",
                hint="write a .npz file",
            )
        return array.reshape(len(array), int(np.prod(array.shape[1:])))

    def _axis(self, name: str) -> int:
        """Return the axis along which the rows of an output lie."""
        axis = RowAxis.of(self.types[name]) if name in self.types else None
        return 0 if axis is None else axis.axis


def _header(name: str, array: Array, columns: Array) -> list[str]:
    """Return `guess` for a single number a row, else `scores_0`, `scores_1`, ..."""
    if array.ndim == 1:
        return [name]
    return [f"{name}_{number}" for number in range(columns.shape[1])]


def _npy_header(array: Array, rows: int) -> bytes:
    """Return the header for so many rows; NumPy pads it, so its length does not depend on them."""
    header = io.BytesIO()
    about = np.lib.format.header_data_from_array_1_0(array)
    shape = (rows, *array.shape[1:])
    np.lib.format.write_array_header_1_0(header, {**about, "shape": shape})
    return header.getvalue()


def format_of(path: str) -> str:
    """Return the format of the suffix; raise GraphError if predictions cannot be written in it."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".npy", ".npz"):
        raise GraphError(
            f"cannot write predictions to {path!r}: the suffix says the format",
            hint="one of .csv, .npy, .npz",
        )
    return suffix[1:]
