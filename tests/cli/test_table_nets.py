"""Training without a Python file: `graphc train --hidden` on tables as they come."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.data import load_table
from graphc.runtime.columns import Columns
from tests.cli.test_mistakes import said

FORM = ("--separator", ";", "--encoding", "latin-1")
TOWNS = ("Bonn", "K\u00f6ln", "Trier")


def _flats(rows: int = 150) -> list[dict[str, str]]:
    """Flats of which the town and the size tell the price; some of each are missing."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(rows):
        size, town = rng.normal(50, 10), TOWNS[rng.integers(3)]
        found.append(
            {
                "id": f"flat {number}",
                "size": "NA" if rng.random() < 0.1 else f"{size:.1f}",
                "town": "" if rng.random() < 0.1 else town,
                "floor": str(rng.integers(5)),
                "price": "high" if size + 20 * (town == "Bonn") > 55 else "low",
            }
        )
    return found


@pytest.fixture
def flats(folder: Path) -> list[dict[str, str]]:
    """The rows of flats.csv, with semicolons and in latin-1."""
    made = _flats()
    with open("flats.csv", "w", newline="", encoding="latin-1") as file:
        writer = csv.DictWriter(file, list(made[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(made)
    return made


def train(*more: str) -> None:
    argv = ["train", "--hidden", "8", "--data", "flats.csv", *FORM, "--backend", "numpy", *more]
    assert main(argv) == 0


def test_a_table_as_it_comes(flats, capsys) -> None:
    train("--drop", "id", "--epochs", "60", "--lr", "0.02", "--validation", "0")
    capsys.readouterr()
    model = gc.load("graphc-run/classifier.gc")
    assert model.state.columns == Columns(
        ("size", "town", "floor"), "price", ("high", "low"), ((), TOWNS, ()), gaps=True
    )
    # The words are numbers for the net, missing ones NaN; the label is not read as a feature.
    words = [[row["size"], row["town"], row["floor"]] for row in flats]
    codes = {town: number for number, town in enumerate(TOWNS)} | {"NA": np.nan, "": np.nan}
    x = np.array([[float(codes.get(cell, cell)) for cell in row] for row in words])
    scores = model.predict(x=x)
    argv = ["predict", "graphc-run/classifier.gc", "--data", "flats.csv", *FORM]
    assert main([*argv, "--proba"]) == 0
    out, err = capsys.readouterr()
    lines = list(csv.DictReader(out.splitlines()))
    assert list(lines[0]) == ["class", "probability_high", "probability_low"]
    odds = np.exp(scores)
    chances = np.array(
        [[float(line[f"probability_{k}"]) for k in ("high", "low")] for line in lines]
    )
    np.testing.assert_allclose(chances, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    right = np.mean([line["class"] == row["price"] for line, row in zip(lines, flats, strict=True)])
    assert right > 0.8 and err == f"accuracy: {right:.4f} of 150 rows\n"
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(right)
    # Training goes on under the same names, and the preparation is that of the first training.
    more = ["train", "graphc-run/classifier.gc", "--data", "flats.csv", *FORM]
    assert main([*more, "--epochs", "1", "--out", "more"]) == 0
    again = gc.load("more/classifier.gc")
    assert again.state.columns == model.state.columns
    np.testing.assert_array_equal(again.state["features.mean"], model.state["features.mean"])


def test_rows_without_labels_and_words_that_are_new(flats, capsys) -> None:
    train("--drop", "id", "--epochs", "1")
    capsys.readouterr()
    Path("new.csv").write_text("price,size,town,floor\n,50,Aachen,1\n,50,,1\nlow,50,?,1\n")
    assert main(["predict", "graphc-run/classifier.gc", "--data", "new.csv"]) == 0
    out, err = capsys.readouterr()
    _, *lines = out.splitlines()
    assert len(set(lines)) == 1 and err.endswith("of 1 row\n")


def test_a_number_that_is_given_takes_the_place_of_gaps(flats, capsys) -> None:
    """Also in the table of a model that knows the means."""
    train("--drop", "id", "--epochs", "1")
    model = gc.load("graphc-run/classifier.gc")
    Path("gap.csv").write_text("size,town,floor\n50,Aachen,1\n,Aachen,1\n7,Aachen,1\n")
    capsys.readouterr()
    argv = ["predict", "graphc-run/classifier.gc", "--data", "gap.csv", "--proba"]
    rows = []
    for more in ([], ["--fill", "7"]):
        assert main([*argv, *more]) == 0
        rows.append(capsys.readouterr().out.splitlines()[-3:])
    assert rows[1][1] == rows[1][2] == rows[0][2] != rows[0][1]
    assert model.state.columns is not None and model.state.columns.gaps


def test_labels_that_are_numbers(flats, capsys) -> None:
    train("--drop", "id,price", "--label", "floor", "--epochs", "1")
    assert gc.load("graphc-run/classifier.gc").state.columns == Columns(
        ("size", "town"), "floor", (), ((), TOWNS), gaps=True
    )
    train("--drop", "id", "--drop", "price", "--label", "floor", "--regression", "--epochs", "1")
    model = gc.load("graphc-run/regressor.gc")
    floors = [float(row["floor"]) for row in flats]
    assert abs(float(model.state["target.mean"][0]) - np.mean(floors)) < 0.3
    assert main(["predict", "graphc-run/regressor.gc", "--data", "flats.csv", *FORM]) == 0
    assert capsys.readouterr().out.splitlines()[-151].startswith("prediction")
    text = said(capsys, "predict", "graphc-run/regressor.gc", "--data", "flats.csv", "--proba")
    assert text == (
        "error: net 'regressor' has no probabilities of classes\n"
        "  hint: --proba is for nets that softmax_loss trains, or nll_loss\n"
    )


def test_classes_that_do_not_count_from_0(folder, capsys) -> None:
    rows = "".join(f"{number % 3},{3 + number % 3}\n" for number in range(30))
    Path("wine.csv").write_text("acid,quality\n" + rows)
    argv = ["--epochs", "40", "--lr", "0.1", "--validation", "0", "--backend", "numpy"]
    assert main(["train", "--hidden", "", "--data", "wine.csv", *argv]) == 0
    capsys.readouterr()
    assert main(["predict", "graphc-run/classifier.gc", "--data", "wine.csv"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("3,") and err == "accuracy: 1.0000 of 30 rows\n"


def test_arrays(folder, capsys) -> None:
    for data, name in (("digits", "classifier"), ("a.npz", "regressor")):
        np.savez("a.npz", x=np.ones((20, 3), np.float32), y=np.arange(20.0, dtype=np.float32))
        argv = ["train", "--hidden", "4", "--data", data, "--epochs", "1", "--backend", "numpy"]
        assert main(argv) == 0
        assert f"wrote\n  graphc-run/{name}.gc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--hidden", "8", *FORM],
            "flats.csv has too many different words for categories in column 'id'\n"
            "  hint: leave out names and notes: --drop COLUMN\n",
        ),
        (
            ["--hidden", "8", "--drop", "name", *FORM],
            "flats.csv has no column 'name'\n"
            "  hint: its columns are id, size, town, floor, price\n",
        ),
        (
            ["--hidden", "8", "--drop", "id", "--regression", *FORM],
            "column 'price' of flats.csv has words, not numbers\n"
            "  hint: leave out --regression, or name another --label\n",
        ),
        (
            ["model.py:net", "--hidden", "8", *FORM],
            "model.py:net is a model already\n  hint: --hidden declares one in its place\n",
        ),
        (
            FORM,
            "there is no model to train\n"
            "  hint: MODEL, or --hidden 64,32 for a perceptron that fits the data\n",
        ),
    ],
)
def test_what_cannot_be_trained(argv, message, flats, capsys) -> None:
    assert said(capsys, "train", *argv, "--data", "flats.csv") == f"error: {message}"


def test_options_of_tables_are_for_tables(folder, capsys) -> None:
    assert said(capsys, "train", "model.py:net", "--data", "digits", "--fill", "0") == (
        "error: digits is not a .csv file\n"
        "  hint: --separator, --encoding, --drop and --fill say how one is read\n"
    )
    for option, text in (("--separator", ";;"), ("--encoding", "x"), ("--fill", "nan")):
        assert main(["train", "model.py:net", "--data", "a.csv", option, text]) == 2
        assert f"argument {option}: {text!r} is not" in capsys.readouterr().err


def test_a_net_of_ones_own_takes_filled_numbers(folder, capsys) -> None:
    Path("t.csv").write_text("a\tnote\tb\ty\n1\tx\t?\t3\n2\tx\t4\t5\nNaN\tx\t1\t2\n")
    argv = ["model.py:table", "--data", "t.csv", "--separator", "tab", "--drop", "note"]
    assert main(["train", *argv, "--fill", "7", "--epochs", "1", "--validation", "0"]) == 0
    capsys.readouterr()
    assert said(capsys, "train", *argv).startswith(
        "error: t.csv, line 2, column 3 ('b'): '?' is not a finite float32 number\n"
    )
    table = load_table("t.csv", separator="\t", drop=["note"], fill=7.0)
    assert table["x"].tolist() == [[1, 7], [2, 4], [7, 1]] and table["y"].tolist() == [3, 5, 2]
