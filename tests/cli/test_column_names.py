"""A model knows the columns that it was trained on, and what its classes are called."""

from __future__ import annotations

import copy
import csv
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli import predict as command
from graphc.files.serialize import write_model
from graphc.runtime.columns import COLUMNS_KEY, LONGEST_NAME, MOST_NAMES, Columns
from tests.cli.test_mistakes import said
from tests.cli.test_tables import NET

WORDS = ("setosa", "versicolor", "virginica")
MODEL = "graphc-run/flowers.gc"


def write(path: str, columns: Mapping[str, Sequence[Any]]) -> str:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def flowers(count: int = 90) -> dict[str, list[Any]]:
    """Two columns of which both tell the class; the names are not in the order of the alphabet."""
    rng = np.random.default_rng(0)
    kinds = np.arange(count) % 3
    width = kinds + rng.normal(scale=0.1, size=count)
    length = 5.0 * kinds + rng.normal(scale=0.1, size=count)
    return {
        "width": width.tolist(),
        "kind": [WORDS[kind] for kind in kinds],
        "length": length.tolist(),
    }


def train(*more: str) -> None:
    argv = ["--data", "flowers.csv", "--label", "kind", "--epochs", "60", "--lr", "0.05", *more]
    assert main(["train", "net.py:flowers", *argv]) == 0


@pytest.fixture
def table(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[Any]]:
    """What the model in graphc-run was trained on."""
    (folder / "net.py").write_text(NET)
    made = flowers()
    write("flowers.csv", made)
    train()
    capsys.readouterr()
    return made


def predicted(capsys: pytest.CaptureFixture[str], data: str, *more: str) -> str:
    assert main(["predict", MODEL, "--data", data, *more]) == 0
    out, err = capsys.readouterr()
    assert err in ("", "accuracy: 1.0000 of 90 rows\n")
    return out


def read_columns(path: str) -> Columns | None:
    return gc.load(path).state.columns


def test_the_file_has_features_label_and_classes(table: dict[str, list[Any]]) -> None:
    assert read_columns(MODEL) == Columns(("width", "length"), "kind", WORDS)
    x = np.stack([table["width"], table["length"]], 1)
    scores = gc.load(MODEL).predict(x)
    assert [WORDS[best] for best in scores.argmax(axis=1)] == table["kind"]


def test_columns_are_found_by_name(table: dict[str, list[Any]], capsys, monkeypatch) -> None:
    monkeypatch.setattr(command, "BLOCK", 7)
    wanted = predicted(capsys, "flowers.csv")
    lines = list(csv.DictReader(wanted.splitlines()))
    assert [line["class"] for line in lines] == table["kind"]
    # Other columns may hold anything, and stand anywhere.
    rows = len(table["kind"])
    other = {
        "length": table["length"],
        "note": ["", "n/a", "a, b"] * (rows // 3),
        "width": table["width"],
    }
    assert predicted(capsys, write("other.csv", other)) == wanted
    more = {"id": range(rows), **table, "": [""] * rows, "id ": ["x"] * rows}
    assert predicted(capsys, write("more.csv", more)) == wanted


def test_the_names_of_classes_are_in_every_format(table, capsys) -> None:
    predicted(capsys, "flowers.csv", "--out", "out.csv")
    with open("out.csv", newline="") as file:
        assert [line["class"] for line in csv.DictReader(file)] == table["kind"]
    predicted(capsys, "flowers.csv", "--out", "out.npz")
    with np.load("out.npz", allow_pickle=False) as arrays:
        assert arrays["class"].tolist() == table["kind"]
    data = json.loads(predicted(capsys, "flowers.csv", "--json"))
    assert data["predictions"]["class"] == table["kind"]
    np.save("x.npy", np.stack([table["width"], table["length"]], 1))
    assert predicted(capsys, "x.npy") == predicted(capsys, "flowers.csv")


def test_missing_columns_are_refused_by_name(table, capsys) -> None:
    write("t.csv", {"Width": [1.0], "length": [2.0], "height": [3.0]})
    text = said(capsys, "predict", MODEL, "--data", "t.csv", "--out", "out.csv", status=2)
    assert text == (
        "error: t.csv has no column 'width', which the model was trained on\n"
        "  hint: its columns are Width, length, height; they are found by name, in any order\n"
    )
    assert not Path("out.csv").exists()
    write("t.csv", {"a": [1.0], "b": [2.0]})
    text = said(capsys, "predict", MODEL, "--data", "t.csv", status=2)
    assert text.startswith("error: t.csv has no columns 'width', 'length', which the model was")
    Path("t.csv").write_text("width,length,width\n1,2,3\n")
    text = said(capsys, "predict", MODEL, "--data", "t.csv")
    assert text.startswith("error: t.csv has 2 columns called 'width'\n")
    Path("t.csv").write_text("length,width\n1,2\n1,tall\n")
    text = said(capsys, "predict", MODEL, "--data", "t.csv")
    assert text.startswith("error: t.csv, line 3, column 2 ('width'): 'tall' is not a finite")


def test_check_takes_the_columns_by_name_too(table, capsys) -> None:
    reordered = {name: table[name] for name in ("kind", "length", "width")}
    assert main(["check", MODEL, "--data", write("t.csv", {"id": range(90), **reordered})]) == 0
    capsys.readouterr()
    assert main(["check", MODEL, "--data", write("t.csv", {"width": [1]})]) == 2
    assert "error: t.csv has no column 'kind', which the model was" in capsys.readouterr().err


def test_training_goes_on_with_the_same_names(table, capsys) -> None:
    x = predicted(capsys, "flowers.csv")
    reordered = {name: table[name] for name in ("kind", "length", "width")}
    rest = {name: column[:60:2] for name, column in reordered.items()}
    write("rest.csv", {**rest, "kind": [word for word in rest["kind"]]})
    argv = ["train", MODEL, "--data", "rest.csv", "--epochs", "1", "--validation", "0"]
    assert main([*argv, "--lr", "0", "--out", "again"]) == 0
    assert read_columns("again/flowers.gc") == read_columns(MODEL)
    capsys.readouterr()
    assert main(["predict", "again/flowers.gc", "--data", "flowers.csv"]) == 0
    assert capsys.readouterr().out == x
    write("odd.csv", {**rest, "kind": ["setosa"] * 29 + ["rose"]})
    text = said(capsys, "train", MODEL, "--data", "odd.csv")
    assert text == (
        "error: odd.csv, line 31, column 1 ('kind'): the model does not know the class 'rose'\n"
        "  hint: it was trained on 'setosa', 'versicolor', 'virginica'\n"
    )
    write("odd.csv", {"length": [1.0], "width": [1.0], "sort": ["setosa"]})
    text = said(capsys, "train", MODEL, "--data", "odd.csv", status=2)
    assert text.startswith("error: odd.csv has no column 'kind', which the model was trained on\n")
    write("odd.csv", {"length": [1.0], "width": [1.0], "kind": ["setosa"]})
    text = said(capsys, "train", MODEL, "--data", "odd.csv", "--label", "width")
    assert text.startswith("error: the label 'width' is one of the columns that the model reads\n")
    np.savez("more.npz", size=np.ones((8, 2)), kind=np.arange(8) % 3)
    assert main(["train", MODEL, "--data", "more.npz", "--epochs", "1", "--out", "again"]) == 0
    assert read_columns("again/flowers.gc") == read_columns(MODEL)


def test_labels_that_are_numbers_stay_numbers(table, capsys) -> None:
    numbers = {**table, "kind": [WORDS.index(word) for word in table["kind"]]}
    write("flowers.csv", numbers)
    train("--out", "numbers")
    assert read_columns("numbers/flowers.gc") == Columns(("width", "length"), "kind")
    capsys.readouterr()
    assert main(["predict", "numbers/flowers.gc", "--data", "flowers.csv"]) == 0
    lines = csv.DictReader(capsys.readouterr().out.splitlines())
    assert [int(line["class"]) for line in lines] == numbers["kind"]


def test_files_without_names_are_read_as_ever(table, capsys) -> None:
    ex = gc.load(MODEL)
    ex.state.columns = None
    gc.save(MODEL, ex)
    assert read_columns(MODEL) is None
    write("t.csv", {"a": table["width"], "b": table["length"]})
    lines = csv.DictReader(predicted(capsys, "t.csv").splitlines())
    assert [WORDS[int(line["class"])] for line in lines] == table["kind"]
    text = said(capsys, "predict", MODEL, "--data", write("t.csv", {"a": [1]}))
    assert text.startswith("error: t.csv has 1 column, input 'size' takes 2\n")


def test_executors_keep_the_names(table, capsys) -> None:
    wanted = predicted(capsys, "flowers.csv")
    ex, names = gc.load(MODEL), read_columns(MODEL)
    for other in (copy.deepcopy(ex), pickle.loads(pickle.dumps(ex)), gc.freeze(ex, batch=8)):
        assert other.state.columns == names
    gc.save(MODEL, ex)
    assert predicted(capsys, "flowers.csv") == wanted


@pytest.mark.slow
def test_checkpoints_keep_the_names(table, capsys) -> None:
    train("--checkpoint")
    assert read_columns("graphc-run/checkpoints/best.gc") == read_columns(MODEL)


def plain(**said: Any) -> str:
    return json.dumps({"features": ["a", "b"], "label": "k", "classes": [], **said})


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "they are not written as"),
        ("[" * 100_000, "recursion"),
        (plain(more=1), "they are not written as"),
        (plain(features="ab"), "they are not lists"),
        (plain(features=[1, 2]), "they are not text"),
        (plain(label=None), "they are not text"),
        (plain(classes=[["a"]]), "they are not text"),
        (plain(features=["a", "a"]), "'a' appears twice"),
        (plain(features=["a" * (LONGEST_NAME + 1)]), "has 1,001 characters"),
        (plain(features=list(map(str, range(MOST_NAMES + 1)))), "100,001 names"),
        ('{"features": [], "features": [], "label": "", "classes": []}', "appears twice"),
    ],
)
def test_names_in_a_file_of_a_stranger(folder: Path, text: str, message: str, capsys) -> None:
    (folder / "net.py").write_text(NET)
    from graphc.cli.model import load_model

    ex = gc.Executor(gc.compile(load_model("net.py:flowers").graph, batch=4))
    write_model(Path("odd.gc"), ex, {COLUMNS_KEY: text})
    with pytest.raises(
        gc.ModelFileError, match="names of columns cannot be made from it"
    ) as caught:
        gc.load("odd.gc")
    assert message in str(caught.value)
    Path("t.csv").write_text("a,b\n1,2\n")
    shown = said(capsys, "predict", "odd.gc", "--data", "t.csv")
    assert shown.startswith("error: odd.gc cannot be read as a model: names of columns cannot")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"features": ["a"]}, "the model names 1 column, its input 'size' takes 2"),
        ({"classes": ["one", "two"]}, "the model names 2 classes, it scores 3"),
    ],
)
def test_names_that_do_not_fit_the_model(folder: Path, names, message: str, capsys) -> None:
    (folder / "net.py").write_text(NET)
    from graphc.cli.model import load_model

    ex = gc.Executor(gc.compile(load_model("net.py:flowers").graph, batch=4))
    write_model(Path("odd.gc"), ex, {COLUMNS_KEY: plain(**names)})
    Path("t.csv").write_text("a,b\n1,2\n")
    assert said(capsys, "predict", "odd.gc", "--data", "t.csv").startswith(f"error: {message}\n")
