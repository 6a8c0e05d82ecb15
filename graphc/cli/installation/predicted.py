"""Predictions that `graphc predict` writes of a table, in each form, with what its net computes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.cli.installation.plain import Array, softmax
from graphc.cli.installation.trial import ROUGH, Trial, Wrong, near, same

ROWS, CLASSES = 45, ("low", "mid", "top")
GAP, FILL = 5, 2.5
"""The row whose first cell is missing in a table, and a number that takes its place."""


def check_predictions(trial: Trial) -> None:
    """Train on a table with gaps; compare what is predicted of others."""
    x = trial.rng.normal(3, 2, (ROWS, 3)).astype("float32").round(3)
    labels = [CLASSES[i] for i in np.digitize(x[:, 1], (2, 4))]
    names, table = ["a", "b", "c"], trial.folder / "train.csv"
    _written(table, [*names, "kind"], [[*row, k] for row, k in zip(_cells(x), labels, strict=True)])
    to = str(trial.folder / "run")
    _run(
        "train", "--hidden", "6", "--data", str(table), "--epochs", "2", "--batch", "8", "--out", to
    )
    model = gc.load(Path(to, "classifier.gc"))
    other = trial.folder / "other.csv"
    _written(other, names[::-1], [row[::-1] for row in _cells(x)])  # no labels, another order
    for more, number in ((), np.nan), (("--fill", str(FILL)), FILL):
        known = x.copy()
        known[GAP, 0] = number
        with trial.case(f"predict {' '.join(more)}"):
            _forms(trial, model, str(other), to, more, model.predict(known))


def _forms(
    trial: Trial, model: Any, table: str, to: str, more: Sequence[str], scores: Array
) -> None:
    """Compare the predictions in each form of file, and printed."""
    argv, chances = ("predict", f"{to}/classifier.gc", "--data", table, *more), softmax(scores)
    words = [model.state.columns.classes[i] for i in scores.argmax(1)]
    for proba, right in ((), scores), (("--proba",), chances):
        for end in ("csv", "npy", "npz"):
            path = trial.folder / f"predicted.{end}"
            _run(*argv, *proba, "--out", str(path))
            if end == "csv":
                _check_lines(path.read_text(), words, right)
            else:
                found = np.load(path)
                found = found["probability" if proba else "scores"] if end == "npz" else found
                near(f"predictions as .{end}", right, found, ROUGH["float32"])
        _check_lines(_run(*argv, *proba), words, right)
    rows = json.loads(_run(*argv, "--json"))
    same("classes in JSON", np.array(words), np.array(rows["predictions"]["class"]))


def _check_lines(text: str, words: list[str], right: Array) -> None:
    _, *lines = csv.reader(text.splitlines())
    same("classes", np.array(words), np.array([line[0] for line in lines]))
    found = np.array([list(map(float, line[1:])) for line in lines])
    near("predictions as text", right, found, ROUGH["float32"])


def _cells(x: Array) -> list[list[str]]:
    """Return numbers as text, one of which is missing."""
    rows = [list(map(str, row)) for row in x.tolist()]
    rows[GAP][0] = "NA"
    return rows


def _written(path: Path, names: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


def _run(*argv: str) -> str:
    """Return what a command prints; raise Wrong if it fails."""
    from graphc.cli import main  # which may have called this

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([*argv])
    if status:
        raise Wrong(f"graphc {' '.join(argv)} ends with {status}: {err.getvalue().strip()}")
    return out.getvalue()
