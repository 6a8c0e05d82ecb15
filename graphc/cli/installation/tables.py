"""Cells of generated tables, by Python's csv module and the lists that they were written from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.cli.data import TableInputs
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import Trial, Wrong, same
from graphc.data import load_table
from graphc.data.table import Form
from graphc.runtime.columns import Columns

ROWS = 17
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
    number = 0
    for number in trial.numbers(2 * len(LABELS)):
        rng = np.random.default_rng([trial.seed, number])
        words, mark = LABELS[number % len(LABELS)], ",;\t"[number % 3]
        form = Form(mark, ("utf-8-sig", "utf-8", "utf-16")[number % 3])
        path, rows = trial.folder / f"{number}.csv", _rows(rng, words)
        names = ["size, in m", "b", 'the "c"', "kind"]
        _written(path, form, [names, *rows])
        with trial.case(f"table {number}: labels {words}, separator {mark!r}, {form.encoding}"):
            _read_back(path, form)
            _numbers(path, form, rows, words)
            _classes(trial, path, form, (names, rows), words)
    return f"{number + 1} tables, and the classes of tables that are read later"


def _rows(rng: np.random.Generator, words: list[str]) -> list[list[str]]:
    """Return cells: numbers in several spellings, some missing, and a label."""
    spellings = ("{:.3f}", "{:.0f}", "{:e}", " {:+.2f} ", "{:.17g}")
    labels = [words[i % len(words)] for i in rng.permutation(ROWS)]
    cells = rng.normal(0, 300, (ROWS, 3))
    made = [[spellings[int(rng.integers(5))].format(x) for x in row] for row in cells.tolist()]
    for row in rng.permutation(ROWS)[:4].tolist():
        made[row][int(rng.integers(3))] = ("", "NA", "?", "null")[row % 4]
    return [[*row, label] for row, label in zip(made, labels, strict=True)]


def _written(path: Path, form: Form, rows: list[list[str]]) -> None:
    with path.open("w", encoding=form.encoding, newline="") as file:
        csv.writer(file, delimiter=form.separator).writerows(rows)


def _read_back(path: Path, form: Form) -> None:
    with path.open(encoding=form.encoding, newline="") as file:
        if len(list(csv.reader(file, delimiter=form.separator))) != ROWS + 1:
            raise Wrong("the csv module reads other rows than were written")


def _floats(rows: list[list[str]], fill: float) -> Array:
    missing = ("", "NA", "?", "null")
    cells = [[fill if x in missing else float(x) for x in row[:3]] for row in rows]
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
