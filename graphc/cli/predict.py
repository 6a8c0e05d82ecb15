"""`graphc predict`: the predictions of a trained model for rows of data."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, GraphError, counted
from graphc.cli.arguments import Command, Parser, print_json, show
from graphc.cli.data import Feeds, TableInputs, arrays_of, is_table, named, predicting_inputs
from graphc.cli.model import load_model
from graphc.compiler.plan import Plan
from graphc.data.table import read_blocks
from graphc.files.disk import cannot_write, check_plain, new_file, reason
from graphc.ir.op import Array
from graphc.ir.tensor_type import N, TensorType, shape_text
from graphc.ops.functions import Softmax
from graphc.runtime.classes import Classes, classes_of
from graphc.runtime.columns import Columns
from graphc.runtime.row_axis import RowAxis
from graphc.runtime.rows import predictions

BLOCK = 16384
"""The number of rows of a .csv file that are held in memory at once."""

COMMAND = Command(
    "predict",
    order=40,
    help="predict with a trained model",
    description="Predict a row for each row of the data: the outputs of the net, and for a "
    "classifier first the class with the largest score. Only the inputs that the outputs depend "
    "on are read. Where the file has labels, the part of rows that is classified right is "
    "printed, too. A model that was trained on a .csv file knows the names of its columns: they "
    "may be in any order, all must be there, and others are ignored. It also knows the words that "
    "its classes had. For other models the columns are in the order of training, and a label "
    "column may be there. A .npy file holds the one input; it may be larger than memory.",
    example="graphc predict graphc-run/iris.gc --data new.csv --out predicted.csv",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model that train or gc.save wrote")
    add("--data", required=True, metavar="FILE", help='.csv, .npy, .npz or "digits"')
    add(
        "--label",
        metavar="COLUMN",
        help="a column of a .csv file with labels, which are compared and not read as a feature "
        "(default: that of the training; or y, label or target, where the file has one column more "
        "than the net takes)",
    )
    parser.add_form()
    add("--proba", action="store_true", help="probabilities of the classes in place of scores")
    add("--out", metavar="FILE", help=".csv, .npy or .npz (default: print the .csv file)")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Predict piece by piece; a file is written whole or not at all."""
    kind = format_of(args.out) if args.out is not None else "csv"
    model = load_model(args.model)
    if model.saved is None:
        raise GraphError(
            f"{args.model} declares a net without trained weights",
            hint="graphc train writes a model that can predict: graphc-run/NAME.gc",
        )
    ex = model.saved
    shown = Predicted.of(ex.plan, model.columns)
    shown.proba = args.proba
    shown.check()
    pieces = shown.counted(
        (rows, outputs, labels)
        for feeds, labels in _blocks(ex.plan, args, model.columns)
        for rows, outputs in predictions(ex, (feeds,), {})[1]
    )
    _write(args, shown, kind, pieces)
    if not args.json:
        for name, value in shown.accuracy.items():
            print(f"{name}: {value:.4f} of {counted(shown.labelled, 'row')}", file=sys.stderr)
    return 0


def _write(args: argparse.Namespace, shown: Predicted, kind: str, pieces: Iterator[Feeds]) -> None:
    """Write the predictions to the file, or print them."""
    if args.out is not None:
        try:
            with new_file(args.out) as file:
                shown.write(file, kind, pieces)
        except OSError as error:
            raise cannot_write(args.out, error, GraphError) from None
        data = {"net": shown.net, "rows": shown.rows, "file": args.out, **shown.accuracy}
        show(args, data, f"wrote {args.out}: {counted(shown.rows, 'row')}")
    elif args.json:
        found = shown.joined(pieces)
        print_json({"net": shown.net, "predictions": found, **shown.accuracy})
    else:
        for text in shown.csv(pieces):
            sys.stdout.write(text)


Labels = Iterator[str]
"""The words of the labels of the rows that follow, "" where there is none."""


def _blocks(
    plan: Plan, args: argparse.Namespace, known: Columns | None
) -> Iterator[tuple[Feeds, Labels]]:
    """Yield features and labels of some rows at a time; there may be no labels."""
    source = args.data
    if is_table(source):
        columns = TableInputs.of(plan, args, known)
        for table in read_blocks(source, BLOCK, columns.predicting_read, columns.form):
            read = columns.predicting_read(table)
            yield columns.predicting_feeds(table, read), iter(table.words)
        return
    inputs = predicting_inputs(plan)
    if Path(source).suffix.lower() != ".npy":
        yield named(inputs, arrays_of(args), source), iter(())
    elif len(inputs) == 1:
        yield {inputs[0]: _mapped(source)}, iter(())
    else:
        raise DataError(
            f"{source} holds one array, the outputs of the net need {', '.join(inputs)}",
            hint="give a .npz file with these arrays",
        )


def _mapped(source: str) -> NDArray[Any]:
    """Return a memory-mapped array of a .npy file; raise DataError if it is not one of numbers."""
    hint = "write it with numpy.save(path, x), numbers only"
    try:
        check_plain(source)
        array = np.load(source, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot read {source}: {reason(error)}", hint=hint) from None
    except (ValueError, EOFError):
        raise DataError(f"{source} is not a complete .npy file of numbers", hint=hint) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{source} holds arrays by name", hint="call it .npz")
    return array


CLASS = "class"
"""The name of the column with the class of the largest score."""
PROBA = "probability"
"""The name of the columns with the probabilities of classes, each followed by the class."""


@dataclass
class Predicted:
    """The predictions of a net: its outputs by name, and which of them scores classes."""

    net: str
    types: Mapping[str, TensorType]
    classes: Classes | None
    words: tuple[str, ...] = ()
    """The names of the classes; empty if they are numbers."""
    proba: bool = False
    """True if scores of classes become probabilities."""
    rows: int = 0
    """The number of rows that are predicted so far."""
    labelled: int = 0
    """The number of these that have a label."""
    right: int = 0
    """The number of labels that are the predicted class."""

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

    def check(self) -> None:
        """Raise GraphError for probabilities of what is not trained for them."""
        if self.proba and (self.classes is None or not self.classes.by_softmax):
            raise GraphError(
                f"net {self.net!r} has no probabilities of classes",
                hint="--proba is for nets that softmax_loss trains, or nll_loss",
            )

    @property
    def accuracy(self) -> dict[str, float]:
        """The part of the labels that are the predicted class, if there are labels."""
        return {"accuracy": self.right / self.labelled} if self.labelled else {}

    def counted(self, pieces: Iterable[tuple[int, Feeds, Labels]]) -> Iterator[Feeds]:
        """Yield outputs and count rows and labels; raise DataError for a row without class."""
        for rows, outputs, labels in pieces:
            if self.classes is not None and self.classes.scores in outputs:
                odd = np.flatnonzero(np.isnan(outputs[self.classes.scores]).any(axis=1))
                if len(odd):
                    raise DataError(
                        f"row {self.rows + odd[0]}, counted from 0, has no class: its scores are "
                        "not numbers",
                        hint="its data, or the model's parameters, have values that are not finite",
                    )
                self._compare(outputs[self.classes.scores].argmax(axis=1), labels)
            self.rows += rows
            yield outputs

    def _compare(self, best: Array, labels: Labels) -> None:
        """Count the labels of some rows, and the predicted classes that equal them."""
        for number, label in zip(best.tolist(), labels, strict=False):
            self.labelled += bool(label)
            self.right += label == (self.words[number] if self.words else str(number))

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
        left = map(self._in_probabilities, pieces)
        first = next(left)
        own = [name for name in first if name in {*self.types, PROBA}]
        if len(own) != 1:
            raise GraphError(
                f"a .npy file holds one array, the net has the outputs {', '.join(own)}",
                hint="write a .npz file",
            )
        (name,) = own
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
                writer.writerow(
                    name if found[name].ndim == 1 else f"{name}_{column}"
                    for name, rows in columns.items()
                    for column in self._numbers(name, rows.shape[1])
                )
            writer.writerows(np.concatenate([c.astype(str) for c in columns.values()], 1).tolist())
            yield text.getvalue()
            first = False

    def _with_class(self, piece: Feeds) -> Feeds:
        classes = self.classes
        if classes is None or classes.scores not in piece or CLASS in self.types:
            return piece
        scores = piece[classes.scores]
        best = scores.argmax(axis=1)
        named = np.array(self.words)[best] if self.words else best
        return {CLASS: named, **self._in_probabilities(piece)}

    def _in_probabilities(self, piece: Feeds) -> Feeds:
        """Return outputs with probabilities in place of the scores, if they are asked for."""
        if not self.proba or self.classes is None or self.classes.scores not in piece:
            return piece
        of = self.classes.scores
        return {
            PROBA if name == of else name: Softmax().reference([array]) if name == of else array
            for name, array in piece.items()
        }

    def _numbers(self, name: str, count: int) -> Sequence[object]:
        """Return what is added to an output's name for its columns: numbers, or the classes."""
        return self.words if name == PROBA and self.proba and self.words else range(count)

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
        """Return the axis of an output's rows."""
        axis = RowAxis.of(self.types[name]) if name in self.types else None
        return 0 if axis is None else axis.axis


def _npy_header(array: Array, rows: int) -> bytes:
    """Return the header for some rows; NumPy pads it, so its length does not depend on them."""
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
