"""Cells of generated tables, by Python's csv module and the lists that they were written from."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import PORTABLE
from graphc.cli.data import TableInputs
from graphc.cli.installation.plain import Array
from graphc.cli.installation.predicted import check_predictions
from graphc.cli.installation.trial import Trial, Wrong, same
from graphc.cli.table_net import chosen_model
from graphc.data import load_table
from graphc.data.table import Form
from graphc.runtime.columns import Columns

ROWS = 17
MISSING = ("", "NA", "?", "null")
LABELS = (
    ["2", "10", "1"],
    ["setosa", "a, b", 'say "x"', "Zürich"],
    ["0", "1", "2"],
    ["-1", "1"],
    ["no", "yes"],
    ["1.5", "2.5", "10.25"],
)
"""The labels of tables: whole numbers that are not those of classes, words, fractions."""


def tables(trial: Trial) -> str:
    """Check numbers, missing cells, quotes, words and classes, in several forms of files."""
    check_predictions(trial)
    number = 0
    for number in trial.numbers(2 * len(LABELS)):
        rng = np.random.default_rng([trial.seed, number])
        words, mark, at = LABELS[number % len(LABELS)], ",;\t"[number % 3], (number + 3) % 4
        form = Form(mark, ("utf-8-sig", "utf-8", "utf-16")[number % 3])
        path, rows = trial.folder / f"{number}.csv", _rows(rng, words)
        names = ["size, in m", "b", 'the "c"', "kind"]
        _written(path, form, [names, *rows], at)
        what = f"labels {words} in column {at + 1}, separator {mark!r}, {form.encoding}"
        with trial.case(f"table {number}: {what}"):
            _read_back(path, form)
            _numbers(path, form, rows, words)
            _classes(trial, path, form, (names, rows), words)
            _gaps(path, form, rows)
            _refused(path, form, [names, *rows], at)
    return f"{number + 1} tables, the classes of tables that are read later, gaps, and predictions"


def _rows(rng: np.random.Generator, words: list[str]) -> list[list[str]]:
    """Return cells: numbers in several spellings, some missing, and a label."""
    spellings = ("{:.3f}", "{:.0f}", "{:e}", " {:+.2f} ", "{:.17g}")
    labels = [words[i % len(words)] for i in rng.permutation(ROWS)]
    cells = rng.normal(0, 300, (ROWS, 3))
    made = [[spellings[int(rng.integers(5))].format(x) for x in row] for row in cells.tolist()]
    for row in rng.permutation(ROWS)[:4].tolist():
        made[row][int(rng.integers(2))] = MISSING[row % 4]
    return [[*row, label] for row, label in zip(made, labels, strict=True)]


def _written(path: Path, form: Form, rows: list[list[str]], at: int = 3) -> None:
    """Write rows, whose label comes last, with the label in a column."""
    with path.open("w", encoding=form.encoding, newline="") as file:
        made = ([*row[:at], row[3], *row[at:3]] for row in rows)
        csv.writer(file, delimiter=form.separator).writerows(made)


def _read_back(path: Path, form: Form) -> None:
    with path.open(encoding=form.encoding, newline="") as file:
        if len(list(csv.reader(file, delimiter=form.separator))) != ROWS + 1:
            raise Wrong("the csv module reads other rows than were written")


def _floats(rows: list[list[str]], fill: float) -> Array:
    cells = [[fill if x in MISSING else float(x) for x in row[:3]] for row in rows]
    return np.array(cells, "float32")


def _numbers(path: Path, form: Form, rows: list[list[str]], words: list[str]) -> None:
    """Check what `load_table` reads of numbers."""
    try:
        labels = np.array([float(row[3]) for row in rows])
    except ValueError:
        return
    whole = all(word.lstrip("-").isdigit() for word in words)
    options: dict[str, Any] = {"separator": form.separator, "encoding": form.encoding}
    for fill in (-7.5, float("nan")):
        found = load_table(path, label="kind", fill=fill, **options)
        same("features", _floats(rows, fill), found["x"])
        same("labels", labels.astype("int64" if whole else "float32"), found["y"])


def _classes(trial: Trial, path: Path, form: Form, table: Any, words: list[str]) -> None:
    """Check what a net reads, and that a later table of other rows and columns means the same."""
    if "1.5" in words or "-1" in words:
        return
    names, rows = table
    net = gc.Net("classes")
    scores = gc.affine(net.input("x", (gc.N, 3)), 11 if words[0].isdigit() else len(words))
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1))
    feeds, columns = TableInputs(plan, str(path), "kind", None, form, -7.5).training_feeds()
    same("features of a net", _floats(rows, -7.5), np.float32(feeds["x"]))
    _check_labels(feeds["y"], columns, [row[3] for row in rows])
    later = [[*row[2::-1], row[3]] for row in rows[: ROWS // 2][::-1]]
    other = trial.folder / "later.csv"
    _written(other, form, [[*names[2::-1], names[3]], *later])
    again, _ = TableInputs(plan, str(other), None, columns, form, -7.5).training_feeds()
    same("features of a later table", feeds["x"][: ROWS // 2][::-1], again["x"])
    same("labels of a later table", feeds["y"][: ROWS // 2][::-1], again["y"])


def _check_labels(found: Array, columns: Columns, labels: list[str]) -> None:
    """Check that each label is the number of its class, or the number that it is."""
    for row, (number, label) in enumerate(zip(found.tolist(), labels, strict=True)):
        read = columns.classes[number] if columns.classes else str(number)
        if read != label:
            raise Wrong(f"label {row} is {label!r}, it was read as {read!r}")


def _gaps(path: Path, form: Form, rows: list[list[str]]) -> None:
    """Check that the net of `train --hidden` knows the missing cells of columns that have some."""
    options = {"data": str(path), "label": "kind", "drop": (), "fill": None, "regression": False}
    options |= {"model": None, "hidden": (), "separator": form.separator}
    model = chosen_model(argparse.Namespace(**options, encoding=form.encoding))
    ex = gc.Executor(gc.compile(model.graph, batch=1, backend=PORTABLE))
    ex.state.assign({name: np.ones_like(x) for name, x in ex.parameters.items()})
    known = np.zeros((1, 3), "float32")
    for column in range(3):
        missing = known.copy()
        missing[0, column] = np.nan
        differs = not np.array_equal(ex.predict(missing), ex.predict(known))
        if differs != any(row[column] in MISSING for row in rows):
            change = "changes" if differs else "does not change"
            raise Wrong(f"a missing cell of column {column} {change} what is predicted")


def _refused(path: Path, form: Form, rows: list[list[str]], at: int) -> None:
    """Check that a text in place of a number is refused, also where missing ones are filled."""
    options: dict[str, Any] = {"separator": form.separator, "encoding": form.encoding}
    for text in ("7 cm", "1.2.3", "none of them"):
        rows[3][1] = text
        _written(path, form, rows, at)
        for fill in (None, 0.0):
            try:
                load_table(path, "kind", fill=fill, **options)
            except gc.DataError:
                continue
            raise Wrong(f"{text!r} is read as a number with fill={fill}")
