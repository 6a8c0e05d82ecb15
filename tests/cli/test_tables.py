"""Tables to train on: which column goes where, and what is wrong in one, with line and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli.data import TableInputs
from graphc.data.table import read_blocks, read_table
from tests.cli.test_mistakes import said

NET = """\
import graphc as gc


def flowers():
    net = gc.Net("flowers")
    x = net.input("size", (gc.N, 2))
    y = net.input("kind", (gc.N,), dtype="int32")
    net.output("scores", gc.affine(x, 3, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    return net


def both_ways():
    net = gc.Net("both_ways")
    x = net.input("signal", (gc.N, 2))
    net.output("again", gc.affine(gc.affine(x, 1), 2))
    net.loss("loss", gc.mse_loss(net["affine_2"], x))
    return net


def three():
    net = gc.Net("three")
    out = gc.affine(net.input("a", (gc.N, 2)), 1) * net.input("b", (gc.N, 1))
    net.output("out", out)
    net.loss("loss", gc.mse_loss(out, net.input("c", (gc.N, 1))))
    return net
"""


@pytest.fixture(autouse=True)
def net(folder: Path) -> None:
    (folder / "net.py").write_text(NET)


def plan(name: str) -> gc.Plan:
    from graphc.cli.model import load_model

    return gc.compile(load_model(f"net.py:{name}").graph, batch=4, optimizer=gc.SGD(0.1))


def write(text: str) -> str:
    Path("t.csv").write_text(text)
    return "t.csv"


@pytest.mark.parametrize(
    ("header", "label", "features"),
    [
        ("a,b,c", None, [[1, 2], [4, 5]]),
        ("a,y,c", None, [[1, 2], [4, 5]]),
        ("Target,b,c", None, [[1, 2], [4, 5]]),
        ("a,b,y", "b", [[1, 2], [4, 5]]),
    ],
)
def test_features_and_label(header: str, label: str | None, features: list[list[int]]) -> None:
    names = header.split(",")
    at = (
        names.index(label)
        if label
        else next((i for i, name in enumerate(names) if name.lower() in ("y", "target")), 2)
    )
    lines = [header]
    for row, kind in zip(features, (2, 0), strict=True):
        cells = list(map(str, row))
        cells.insert(at, str(kind))
        lines.append(",".join(cells))
    feeds, names = TableInputs(plan("flowers"), write("\n".join(lines)), label).training_feeds()
    assert {name: array.dtype.name for name, array in feeds.items()} == {
        "size": "float32",
        "kind": "int32",
    }
    np.testing.assert_array_equal(feeds["size"], features)
    np.testing.assert_array_equal(feeds["kind"], [2, 0])


def test_a_net_without_labels_takes_all_columns() -> None:
    feeds, names = TableInputs(plan("both_ways"), write("a,b\n1,2\n3,4\n")).training_feeds()
    assert {name: array.tolist() for name, array in feeds.items()} == {"signal": [[1, 2], [3, 4]]}
    assert (names.features, names.label, names.classes) == (("a", "b"), "", ())
    feeds, names = TableInputs(
        plan("both_ways"), write("a,id,b\n1,seven,2\n"), "id"
    ).training_feeds()
    assert feeds["signal"].tolist() == [[1, 2]]
    assert names.features == ("a", "b")
    assert main(["train", "net.py:both_ways", "--data", write("a,b\n" + "1,2\n" * 9)]) == 0


def test_blocks_are_the_table_cut(folder: Path) -> None:
    path = write("a,b\n" + "".join(f"{i},{i}\n\n" for i in range(7)))
    whole = read_table(path)
    assert whole.lines.tolist() == [2, 4, 6, 8, 10, 12, 14]
    for size in (1, 3, 7, 8):
        blocks = list(read_blocks(path, size))
        assert [len(block.lines) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
        np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), whole.values)
        np.testing.assert_array_equal(np.concatenate([b.lines for b in blocks]), whole.lines)
    (none,) = read_blocks(write("a,b\n"), 3)
    assert none.values.shape == (0, 2)


def test_a_row_of_a_later_block_is_reported_by_its_line() -> None:
    net = gc.Net("whole")
    net.output("out", gc.one_hot(net.input("k", (gc.N,), dtype="int64"), 3))
    blocks = list(read_blocks(write("k\n0\n1\n\n2\n3\n"), 2))
    plan = gc.compile(net, batch=4)
    inputs = TableInputs(plan, "t.csv")
    read = inputs.predicting_read(blocks[0])
    assert inputs.predicting_feeds(blocks[0], read)["k"].tolist() == [0, 1]
    with pytest.raises(gc.DataError) as caught:
        inputs.predicting_feeds(blocks[1], read)
    assert (
        caught.value.sentence == "t.csv, line 6, column 1 ('k'): there is no class 3, the net has 3"
    )


FILL = "  hint: fill missing values, and encode words as numbers, before loading\n"
HEADER = "  hint: the first line names the columns: some features and one label\n"
WHOLE = "  hint: classes are whole numbers from 0\n"
TABLES = {
    "": f"t.csv is empty\n{HEADER}",
    "\n \n": f"t.csv is empty\n{HEADER}",
    "a,b,kind\n": "t.csv has a header but no rows\n  hint: add a line of numbers per sample\n",
    "1,2,0\n3,4,1\n": f"t.csv has no header, its first line is all numbers\n{HEADER}",
    "a,b,kind\n1,2,0\n1,,1\n": f"t.csv, line 3, column 2 ('b'): the value is missing\n{FILL}",
    "a,b,kind\n1,2,0\n\n1, ,1\n": f"t.csv, line 4, column 2 ('b'): the value is missing\n{FILL}",
    "a,b,kind\nNA,2,0\n": (
        f"t.csv, line 2, column 1 ('a'): 'NA' is not a finite float32 number\n{FILL}"
    ),
    "a,b,kind\n1,2,0\n1,two,1\n": (
        f"t.csv, line 3, column 2 ('b'): 'two' is not a finite float32 number\n{FILL}"
    ),
    "a,b,kind\n1,2,setosa\n1,2,virginica\n": (
        "t.csv has 2 different labels in column 'kind', the net has 3 classes\n"
        "  hint: the labels are 'setosa', 'virginica'\n"
    ),
    "a,b,kind\n1,2,0\n1,2,setosa\n": (
        f"t.csv, line 3, column 3 ('kind'): 'setosa' is not a finite float32 number\n{FILL}"
    ),
    "a,b,kind\n1,2,setosa\n1,2, \n": (
        f"t.csv, line 3, column 3 ('kind'): the value is missing\n{FILL}"
    ),
    "a,b,kind\n1,2,setosa\n1,2,nan\n": (
        f"t.csv, line 3, column 3 ('kind'): 'nan' is not a finite float32 number\n{FILL}"
    ),
    "a,a,kind\n1,2,0\n": (
        "t.csv has 2 columns called 'a'\n  hint: rename them in its first line\n"
    ),
    "kind,b,kind\n1,2,0\n": (
        "t.csv has 2 columns called 'kind'\n  hint: rename them in its first line\n"
    ),
    "5.1,3.5,setosa\n4.9,3.0,setosa\n": (
        "t.csv has no header, its first line is like the second: 5.1,3.5,setosa\n"
        "  hint: add a line before it that names the 3 columns\n"
    ),
    f"{'a' * 1001},b,kind\n1,2,0\n": (
        f"t.csv has column names that cannot be kept: '{'a' * 40}'... has 1,001 characters\n"
        "  hint: rename them in its first line\n"
    ),
    "a,b,kind\n1,2,0\n1,2\n": (
        "t.csv, line 3: 2 values, but the header names 3 columns\n"
        "  hint: give every line one value for each column, separated by commas\n"
    ),
    "a,kind\n1,0\n": (
        "t.csv has 1 column beside the label 'kind', input 'size' takes 2\n"
        "  hint: it is a; --label COLUMN says which is the label\n"
    ),
    "kind\n0\n": (
        "t.csv has 0 columns beside the label 'kind', input 'size' takes 2\n"
        "  hint: --label COLUMN says which is the label\n"
    ),
    "a,b,c,kind\n1,2,3,0\n": (
        "t.csv has 3 columns beside the label 'kind', input 'size' takes 2\n"
        "  hint: they are a, b, c; --label COLUMN says which is the label\n"
    ),
    "a;b;kind\n1;2;0\n": (
        "t.csv has a single column, 'a;b;kind'\n"
        "  hint: for another separator: --separator ';', or separator=';' in Python\n"
    ),
    "size, in cm;width;kind\n1;2;0\n": (
        "t.csv has 2 columns, 'size', 'in cm;width;kind'\n"
        "  hint: for another separator: --separator ';', or separator=';' in Python\n"
    ),
    "a;b;kind\n1,5;2,5;0\n": (
        "t.csv has a single column, 'a;b;kind'\n"
        "  hint: for another separator: --separator ';', or separator=';' in Python\n"
    ),
    "a,b,kind\n1,2,9007199254740993\n": (
        "t.csv, line 2, column 3 ('kind'): 9007199254740992 is too large to be read "
        "exactly\n  hint: whole numbers below 2**53 are\n"
    ),
    "a,b,kind\n1,2,0\n1,2,0.5\n": (
        "t.csv, line 3, column 3 ('kind'): 0.5 is not a whole number, but input 'kind' takes "
        "whole numbers\n"
        f"{WHOLE}"
    ),
    "a,b,kind\n1,2,0\n1,2,5\n": (
        "t.csv, line 3, column 3 ('kind'): there is no class 5, the net has 3\n"
        "  hint: classes go from 0 to 2\n"
    ),
    "a,b,kind\n1,2,-1\n": (
        "t.csv, line 2, column 3 ('kind'): there is no class -1, the net has 3\n"
        "  hint: classes go from 0 to 2\n"
    ),
    "y,a,b\n1,2,3\n3,2,1\n2,2,1\n": (
        "t.csv, line 3, column 1 ('y'): there is no class 3, the net has 3\n"
        "  hint: the file counts from 1: subtract 1\n"
    ),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("text", TABLES)
@pytest.mark.parametrize("command", ["train", "check"])
def test_what_is_wrong_in_a_table(
    command: str, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said(capsys, command, "net.py:flowers", "--data", write(text))
    assert shown == f"error: {TABLES[text]}"
    assert not (folder / "graphc-run").exists()


OPTIONS = {
    ("net.py:flowers", "t.csv", "--label", "kinds"): (
        "t.csv has no column 'kinds'\n  hint: its columns are a, b, kind\n"
    ),
    ("net.py:flowers", "digits", "--label", "kind"): (
        "digits has no columns to take the label 'kind' from\n"
        "  hint: a label is named for a .csv file; other data has its y already\n"
    ),
    ("net.py:three", "t.csv"): (
        "t.csv has features and a label, the net reads a, b, c\n"
        "  hint: give a .npz file with the arrays a, b, c\n"
    ),
}


@pytest.mark.parametrize("words", OPTIONS)
def test_options(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    write("a,b,kind\n1,2,0\n")
    model, data, *more = words
    text = said(capsys, "train", model, "--data", data, *more)
    assert text == f"error: {OPTIONS[words]}"


def test_a_label_of_arrays_is_reported_by_its_row_in_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = np.zeros(50, int)
    kinds[41] = 7
    np.savez("t.npz", size=np.zeros((50, 2)), kind=kinds)
    text = said(capsys, "train", "net.py:flowers", "--data", "t.npz")
    assert text.startswith("error: input 'kind' holds the label 7 at row 41, there are 3 classes\n")
