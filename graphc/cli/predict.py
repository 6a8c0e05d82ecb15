"""`graphc predict`: the predictions of a trained model for rows of data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, GraphError
from graphc.cli.arguments import add_command, add_json
from graphc.cli.columns import Feeds, predicting_feeds, predicting_inputs, predicting_read
from graphc.cli.data import is_table, named
from graphc.cli.model import Model, load_model
from graphc.cli.output import print_json
from graphc.cli.predicted import Predicted, format_of
from graphc.data import load_data
from graphc.data.table import Header, Read, read_blocks, reason
from graphc.files.model_file import Columns
from graphc.files.paths import check_plain
from graphc.files.writing import cannot_write, new_file
from graphc.ir.plan import Plan
from graphc.runtime.executor import Executor
from graphc.runtime.rows import predictions

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands

BLOCK = 16384
"""The number of rows of a .csv file that are held in memory at once."""


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "predict",
        help="predict with a trained model",
        description="Predict a row for each row of the data: the outputs of the net, and for a "
        "classifier first the class with the largest score. Only the inputs that the outputs "
        "depend on are read. A model that was trained on a .csv file knows the names of its "
        "columns: they may be in any order, all must be there, and others are ignored. "
        "It also knows the words that its classes had. For other models the columns are in the "
        "order of training, and a label column may be there. A .npy file holds the one input; it "
        "may be larger than memory.",
        example="graphc predict graphc-run/iris.gc --data new.csv --out predicted.csv",
    )
    parser.add_argument("model", metavar="MODEL", help="a model that train or gc.save wrote")
    add = parser.add_argument
    add("--data", required=True, metavar="FILE", help='.csv, .npy, .npz or "digits"')
    add(
        "--label",
        metavar="COLUMN",
        help="a column of a .csv file to leave out (default: y, label or target, where the file "
        "has one column more than the net takes)",
    )
    add("--out", metavar="FILE", help=".csv, .npy or .npz (default: print the .csv file)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict piece by piece; a file is written whole or not at all."""
    kind = format_of(args.out) if args.out is not None else "csv"
    model = load_model(args.model)
    ex = _trained(args.model, model)
    shown = Predicted.of(ex.plan, model.columns)
    scores = None if shown.classes is None else shown.classes.scores
    pieces = _Counted(_pieces(ex, args.data, args.label, model.columns), scores)
    if args.out is not None:
        _write(Path(args.out), shown, kind, pieces)
    elif args.json:
        print_json({"net": shown.net, "predictions": shown.joined(pieces)})
        return 0
    else:
        for text in shown.csv(pieces):
            sys.stdout.write(text)
        return 0
    if args.json:
        print_json({"net": shown.net, "rows": pieces.rows, "file": args.out})
    else:
        print(f"wrote {args.out}: {pieces.rows:,} row{'' if pieces.rows == 1 else 's'}")
    return 0


class _Counted:
    """Pieces of outputs with a count of their rows; DataError for a row that has no class."""

    def __init__(self, pieces: Iterator[tuple[int, Feeds]], scores: str | None) -> None:
        self._pieces, self._scores, self.rows = pieces, scores, 0

    def __iter__(self) -> Iterator[Feeds]:
        for rows, outputs in self._pieces:
            if self._scores in outputs:
                self._check(outputs[self._scores])
            self.rows += rows
            yield outputs

    def _check(self, scores: NDArray[Any]) -> None:
        odd = np.flatnonzero(np.isnan(scores).any(axis=1))
        if len(odd):
            raise DataError(
                f"row {self.rows + odd[0]}, counted from 0, has no class: its scores are not "
                "numbers",
                hint="its data, or the model's parameters, have values that are not finite",
            )


def _trained(source: str, model: Model) -> Executor:
    if model.saved is None:
        raise GraphError(
            f"{source} declares a net, it has no trained weights",
            hint="graphc train writes a model that can predict: graphc-run/NAME.gc",
        )
    return model.saved


def _pieces(
    ex: Executor, source: str, label: str | None, known: Columns | None
) -> Iterator[tuple[int, Feeds]]:
    """Yield pieces of the data: their number of rows, and their outputs."""
    for feeds in _feeds(ex.plan, source, label, known):
        _, pieces = predictions(ex, (feeds,), {})
        yield from pieces


def _feeds(plan: Plan, source: str, label: str | None, known: Columns | None) -> Iterator[Feeds]:
    if is_table(source):

        def choose(header: Header) -> Read:
            return predicting_read(plan, header, label, known)

        for table in read_blocks(source, BLOCK, choose):
            yield predicting_feeds(plan, table, choose(table))
        return
    inputs = predicting_inputs(plan)
    if Path(source).suffix.lower() != ".npy":
        yield named(inputs, load_data(source, label), source)
    elif len(inputs) == 1:
        yield {inputs[0]: _mapped(source)}
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


def _write(path: Path, shown: Predicted, kind: str, pieces: Iterable[Feeds]) -> None:
    try:
        with new_file(path) as file:
            shown.write(file, kind, pieces)
    except OSError as error:
        raise cannot_write(path, error, GraphError) from None
