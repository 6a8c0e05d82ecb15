"""`graphc predict`: a row out for each row in, whatever the files are; and its mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli import predict as command
from graphc.cli.predict import Predicted
from graphc.data import load_digits
from graphc.runtime.rows import predictions
from tests.cli.test_mistakes import said

Array = np.ndarray[Any, Any]


def classifier() -> gc.Net:
    net = gc.Net("iris")
    x = net.input("features", (gc.N, 4))
    y = net.input("species", (gc.N,), dtype="int64")
    scores = gc.affine(x, 3, name="scores")
    net.output("scores", scores)
    net.output("spread", gc.max(scores, axis=1) - gc.mean(scores, axis=1))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def rows(count: int) -> Array:
    return np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)


def table(path: Path, columns: Mapping[str, Array]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))


def features(x: Array) -> dict[str, Array]:
    return dict(zip("abcd", x.T, strict=True))


@pytest.fixture
def ex(folder: Path) -> gc.Executor:
    """A model in iris.gc, compiled for 16 rows."""
    made = gc.Executor(gc.compile(classifier(), batch=16), seed=3)
    gc.save("iris.gc", made)
    return made


def by_numpy(ex: gc.Executor, x: Array) -> Array:
    w, b = (ex.parameters[f"scores.{name}"].astype(np.float64) for name in ("weight", "bias"))
    return x.astype(np.float64) @ w + b


def predicted(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["predict", "iris.gc", *argv]) == 0
    out, err = capsys.readouterr()
    assert not err or err.startswith("accuracy: ")
    return out


def read(text: str) -> tuple[list[str], Array]:
    header, *lines = csv.reader(text.splitlines())
    return header, np.array(lines, np.float64).reshape(-1, len(header))


def check(text: str, scores: Array) -> None:
    """The table of these scores."""
    header, values = read(text)
    assert header == ["class", "scores_0", "scores_1", "scores_2", "spread"]
    assert len(values) == len(scores)
    np.testing.assert_array_equal(values[:, 0], scores.argmax(axis=1))
    np.testing.assert_allclose(values[:, 1:4], scores, rtol=1e-5, atol=1e-6)
    spread = scores.max(axis=1) - scores.mean(axis=1)
    np.testing.assert_allclose(values[:, 4], spread, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "npy", "npz"])
def test_each_kind_of_file_takes_probabilities(folder: Path, capsys: Any, suffix: str) -> None:
    net = gc.Net("iris")
    scores = gc.affine(net.input("features", (gc.N, 4)), 3)
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("species", (gc.N,), dtype="int64")))
    ex = gc.Executor(gc.compile(net, batch=16), seed=3)
    gc.save("iris.gc", ex)
    np.save("in.npy", rows(40))
    predicted(capsys, "--data", "in.npy", "--proba", "--out", f"out.{suffix}")
    odds = np.exp(ex.predict(rows(40)))
    if suffix == "csv":
        lines = list(csv.reader(Path("out.csv").read_text().splitlines()))[1:]
        found = np.array([list(map(float, line[1:])) for line in lines])
    else:
        found = np.load(f"out.{suffix}")
        found = found["probability"] if suffix == "npz" else found
    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("count", [0, 1, 40, 127])
@pytest.mark.parametrize("suffix", ["csv", "npy", "npz"])
def test_rows_in_are_rows_out(
    suffix: str,
    count: int,
    ex: gc.Executor,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "BLOCK", 50)
    x = rows(count)
    table(Path("in.csv"), features(x))
    np.save("in.npy", x)
    np.savez("in.npz", features=x, more=np.zeros(3))
    check(predicted(capsys, "--data", f"in.{suffix}"), by_numpy(ex, x))
    said = predicted(capsys, "--data", f"in.{suffix}", "--out", "out.csv")
    assert said == f"wrote out.csv: {count} row{'' if count == 1 else 's'}\n"
    check(Path("out.csv").read_text(), by_numpy(ex, x))
    predicted(capsys, "--data", f"in.{suffix}", "--out", "out.npz")
    found = dict(np.load("out.npz"))
    whole = ex.predict(x)
    np.testing.assert_array_equal(found.pop("class"), whole["scores"].argmax(axis=1))
    assert found.keys() == whole.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], whole[name])


def test_a_csv_file_keeps_every_bit_of_float32(
    ex: gc.Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("in.npy", rows(60) * 1e-20)
    predicted(capsys, "--data", "in.npy", "--out", "out.csv")
    _, values = read(Path("out.csv").read_text())
    wanted = ex.predict(rows(60) * 1e-20)["scores"]
    np.testing.assert_array_equal(values[:, 1:4].astype(np.float32), wanted)


def test_a_million_rows_of_a_mapped_file(
    ex: gc.Executor, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = gc.Net("sum")
    x = net.input("x", (gc.N, 2))
    net.output("out", gc.sum(x, axis=1))
    gc.save("iris.gc", gc.Executor(gc.compile(net, batch=4096)))
    np.save("in.npy", np.arange(2_000_000.0).reshape(-1, 2) % 1000)
    said = predicted(capsys, "--data", "in.npy", "--out", "out.npy")
    assert said == "wrote out.npy: 1,000,000 rows\n"
    np.testing.assert_array_equal(np.load("out.npy"), np.load("in.npy").sum(axis=1))


def test_an_array_is_written_while_it_is_predicted(folder: Path) -> None:
    net = gc.Net("sum")
    net.output("out", gc.sum(net.input("x", (gc.N, 2, 3)), axis=1))
    ex = gc.Executor(gc.compile(net, batch=10))
    x = np.random.default_rng(0).standard_normal((1234, 2, 3)).astype(np.float32)
    written: list[int] = []
    with open("out.npy", "wb") as file:

        def pieces() -> Iterator[dict[str, Array]]:
            for _, outputs in predictions(ex, (x,), {})[1]:
                written.append(file.tell())
                yield outputs

        Predicted.of(ex.plan).write(file, "npy", pieces())
    header = written[1] - 10 * 3 * 4
    assert written[1:] == [header + i * 10 * 3 * 4 for i in range(1, 124)]
    found = np.load("out.npy", mmap_mode="r")
    assert (found.shape, found.dtype) == ((1234, 3), np.float32)
    np.testing.assert_array_equal(found, ex.predict(x))


def test_an_array_whose_rows_are_not_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = gc.Net("transposed")
    net.output("out", gc.transpose(net.input("x", (gc.N, 2)), (1, 0)))
    gc.save("iris.gc", gc.Executor(gc.compile(net, batch=4)))
    np.save("in.npy", np.arange(22.0).reshape(11, 2))
    predicted(capsys, "--data", "in.npy", "--out", "out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), np.load("in.npy").T)


def test_a_label_column_is_left_out(ex: gc.Executor, capsys: pytest.CaptureFixture[str]) -> None:
    x = rows(5)
    wanted = by_numpy(ex, x)
    table(Path("named.csv"), {"a": x[:, 0], "Label": np.arange(5), **features(x)})
    check(predicted(capsys, "--data", "named.csv"), wanted)
    table(Path("other.csv"), {"kind": np.arange(5), **features(x)})
    check(predicted(capsys, "--data", "other.csv", "--label", "kind"), wanted)
    # A feature may be called y: the file has no column too many.
    table(Path("y.csv"), dict(zip(("a", "b", "y", "d"), x.T, strict=True)))
    check(predicted(capsys, "--data", "y.csv"), wanted)


def test_a_net_with_one_output_a_row_and_no_classes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = gc.Net("line", dtype="float64")
    x, y = net.input("x", (gc.N, 2)), net.input("y", (gc.N,))
    guess = gc.reshape(x @ net.parameter("w", (2, 1), init=np.array([[1.0], [2.0]])), (gc.N,))
    net.output("guess", guess)
    net.output("gap", gc.mean(gc.abs(guess - y)))
    net.loss("loss", gc.mse_loss(guess, y))
    gc.save("iris.gc", gc.Executor(gc.compile(net, batch=2)))
    Path("in.csv").write_text("a,b\n1,2\n0.1,0.2\n\n3,4\n")
    assert predicted(capsys, "--data", "in.csv") == "guess\n5.0\n0.5\n11.0\n"
    predicted(capsys, "--data", "in.csv", "--out", "out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), [5.0, 0.1 + 0.4, 11.0])


def test_images_of_a_table_take_their_declared_shape(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = gc.Net("images")
    net.output("columns", gc.sum(net.input("image", (gc.N, 2, 3)), axis=1))
    gc.save("iris.gc", gc.Executor(gc.compile(net, batch=2)))
    Path("in.csv").write_text("a,b,c,d,e,f\n1,2,3,10,20,30\n")
    text = predicted(capsys, "--data", "in.csv")
    assert text == "columns_0,columns_1,columns_2\n11.0,22.0,33.0\n"


def test_json(ex: gc.Executor, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("in.npy", rows(3))
    found = json.loads(predicted(capsys, "--data", "in.npy", "--json"))
    assert found.keys() == {"net", "predictions"}
    np.testing.assert_array_equal(found["predictions"]["scores"], ex.predict(rows(3))["scores"])
    assert found["predictions"].keys() == {"class", "scores", "spread"}
    found = json.loads(predicted(capsys, "--data", "in.npy", "--json", "--out", "out.csv"))
    assert found == {"net": "iris", "rows": 3, "file": "out.csv"}


def test_the_digits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "model.py:net", "--data", "digits", "--epochs", "15", "--json"]
    assert main(argv) == 0
    shown = json.loads(capsys.readouterr().out)
    assert main(["predict", "graphc-run/small.gc", "--data", "digits"]) == 0
    _, values = read(capsys.readouterr().out)
    right = (values[:, 0] == load_digits()[1]).mean()
    parts = [shown["training"]["accuracy"], shown["validation"]["accuracy"]]
    assert min(parts) <= right <= max(parts)


# ---------------------------------------------------------------------- mistakes

MISTAKES = {
    ("model.py:net", "in.csv"): (
        "error: model.py:net declares a net without trained weights\n"
        "  hint: graphc train writes a model that can predict: graphc-run/NAME.gc\n"
    ),
    ("iris.gc", "nix.csv"): (
        "error: cannot read nix.csv: No such file or directory\n"
        "  hint: give the path of a .csv file\n"
    ),
    ("iris.gc", "nix.npy"): (
        "error: cannot read nix.npy: No such file or directory\n"
        "  hint: write it with numpy.save(path, x), numbers only\n"
    ),
    ("iris.gc", "few.csv"): (
        "error: few.csv has 2 columns, input 'features' takes 4\n"
        "  hint: they are a, b; --label COLUMN says which is the label\n"
    ),
    ("iris.gc", "many.csv"): (
        "error: many.csv has 5 columns, input 'features' takes 4\n"
        "  hint: they are a, b, c, d, kind; --label COLUMN says which is the label\n"
    ),
    ("iris.gc", "gap.csv"): (
        "error: gap.csv, line 4, column 3 ('c'): the value is missing\n"
        "  hint: fill missing values, and encode words as numbers, before loading\n"
    ),
    ("iris.gc", "empty.csv"): (
        "error: empty.csv is empty\n"
        "  hint: the first line names the columns: some features and one label\n"
    ),
    ("iris.gc", "narrow.npy"): (
        "error: input 'features' takes (N, 4), the array has shape (3, 2)\n"
        "  input  features float32[N, 4]\n"
        "  hint: the batch dimension N is free, all others are as declared\n"
    ),
    ("iris.gc", "objects.npy"): (
        "error: objects.npy is not a complete .npy file of numbers\n"
        "  hint: write it with numpy.save(path, x), numbers only\n"
    ),
    ("iris.gc", "empty.npy"): (
        "error: empty.npy is not a complete .npy file of numbers\n"
        "  hint: write it with numpy.save(path, x), numbers only\n"
    ),
    ("iris.gc", "named.npy"): ("error: named.npy holds arrays by name\n  hint: call it .npz\n"),
    ("iris.gc", "digits"): (
        "error: digits has no array for the input 'features'\n"
        "  hint: it has x, y; the net reads features\n"
    ),
}


@pytest.fixture
def files(ex: gc.Executor) -> None:
    """Files that a model cannot predict from."""
    Path("in.csv").write_text("a,b,c,d\n1,2,3,4\n")
    Path("few.csv").write_text("a,b\n1,2\n")
    Path("many.csv").write_text("a,b,c,d,kind\n1,2,3,4,0\n")
    Path("gap.csv").write_text("a,b,c,d\n1,2,3,4\n\n1,2,,4\n")
    Path("empty.csv").write_text("")
    Path("empty.npy").write_text("")
    np.save("narrow.npy", np.zeros((3, 2)))
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    with open("named.npy", "wb") as file:
        np.savez(file, features=np.zeros((3, 4)))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("model,data", MISTAKES)
@pytest.mark.usefixtures("files")
def test_mistakes_leave_no_file(model: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "predict", model, "--data", data, "--out", "out.csv")
    lines = [line for line in text.splitlines(True) if "declared at" not in line]
    wanted = MISTAKES[model, data].splitlines(True)
    assert lines[0] == wanted[0]
    assert lines[-1] == wanted[-1]
    assert not [path.name for path in Path().iterdir() if "out" in path.name]


OPTIONS = {
    ("--out", "p.txt"): (
        "error: cannot write predictions to 'p.txt': the suffix says the format\n"
        "  hint: one of .csv, .npy, .npz\n"
    ),
    ("--out", "nix/p.csv"): "error: cannot write nix/p.csv: No such file or directory\n"
    "  hint: make the folder first: nix\n",
    ("--out", "p.npy"): (
        "error: a .npy file holds one array, the net has the outputs scores, spread\n"
        "  hint: write a .npz file\n"
    ),
    ("--label", "kind"): (
        "error: in.csv has no column 'kind'\n  hint: its columns are a, b, c, d\n"
    ),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.usefixtures("files")
def test_options(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "predict", "iris.gc", "--data", "in.csv", *options)
    assert text == OPTIONS[options]


def test_outputs_that_are_not_rows_of_a_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = gc.Net("across")
    x = net.input("x", (gc.N, 2))
    net.output("columns", gc.transpose(x, (1, 0)))
    gc.save("across.gc", gc.Executor(gc.compile(net, batch=2)))
    Path("in.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    assert said(capsys, "predict", "across.gc", "--data", "in.csv") == (
        "error: output 'columns' is (2, N), which does not give one table row for each row of "
        "data\n"
        "  hint: write a .npz file\n"
    )
    assert main(["predict", "across.gc", "--data", "in.csv", "--out", "out.npz"]) == 0
    np.testing.assert_array_equal(np.load("out.npz")["columns"], [[1, 3, 5], [2, 4, 6]])


def test_a_net_of_two_inputs_takes_arrays_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = gc.Net("two")
    net.output("out", net.input("a", (gc.N, 2)) + net.input("b", (gc.N, 2)))
    gc.save("two.gc", gc.Executor(gc.compile(net, batch=2)))
    np.save("in.npy", np.zeros((3, 2)))
    assert said(capsys, "predict", "two.gc", "--data", "in.npy") == (
        "error: in.npy holds one array, the outputs of the net need a, b\n"
        "  hint: give a .npz file with these arrays\n"
    )
    np.savez("in.npz", a=np.ones((3, 2)), b=np.ones((3, 2)))
    assert main(["predict", "two.gc", "--data", "in.npz"]) == 0
    assert capsys.readouterr().out == "out_0,out_1\n" + "2.0,2.0\n" * 3


def test_a_row_without_a_class_is_reported(ex: gc.Executor, capsys) -> None:
    x = rows(40)
    x[37, 2] = np.nan
    np.save("in.npy", x)
    text = said(capsys, "predict", "iris.gc", "--data", "in.npy", "--out", "out.csv")
    assert text == (
        "error: row 37, counted from 0, has no class: its scores are not numbers\n"
        "  hint: its data, or the model's parameters, have values that are not finite\n"
    )
    assert not Path("out.csv").exists()
