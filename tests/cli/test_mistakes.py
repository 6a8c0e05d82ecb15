"""Mistakes on the command line: what is said, word for word, and the exit status."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphc.cli import main

HOW = "  hint: MODEL is file.py:function, a model that gc.save wrote, or an .onnx file\n"


def said(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 1) -> str:
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    return err


MODELS = {
    "nix.py:net": "error: nix.py does not exist\n" + HOW,
    "nix.gc": "error: nix.gc does not exist\n" + HOW,
    ".": "error: . is a folder\n" + HOW,
    "model.py": (
        "error: model.py is a Python file: also name the function that returns the net\n"
        "  hint: model.py:net\n"
    ),
    "model.py:nett": (
        "error: model.py has no function 'nett'\n"
        "  hint: it has net, table, no_loss, misfit, boom, helper, seven, needs, wrong_gradient\n"
    ),
    "model.py:seven": (
        "error: model.py:seven returns int, not a gc.Net\n"
        "  hint: end the function with: return net\n"
    ),
    "model.py:needs": (
        "error: model.py:needs takes arguments, a model's function takes none\n"
        "  hint: give them default values\n"
    ),
    "model.py:misfit": (
        "error: affine 'affine_1': x has 2 features, weight takes 5\n"
        "  x       x float32[N, 2]  declared at model.py:32 in misfit\n"
        "  weight  w float32[5, 3]  declared at model.py:33 in misfit\n"
        "  bias    affine_1.bias float32[3]  declared at model.py:33 in misfit\n"
        '  at model.py:33 in misfit: return gc.affine(x, 3, weight=net.parameter("w", (5, 3)))\n'
        "  hint: share a weight only between layers of one input width\n"
    ),
}


@pytest.mark.parametrize("command", ["plan", "render", "check"])
@pytest.mark.parametrize("model", MODELS)
def test_models(command: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, command, model) == MODELS[model]


def test_an_exception_of_the_model_shows_its_traceback_from_the_users_file_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "plan", "model.py:boom").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('model.py", line 37, in boom')
    assert lines[-1] == "RuntimeError: no luck"
    assert not any("graphc" in line for line in lines)


def test_a_file_that_fails_or_is_no_python(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "fails.py").write_text("import nothing_of_that_name\n")
    lines = said(capsys, "plan", "fails.py:net").splitlines()
    assert lines[1].endswith('fails.py", line 1, in <module>')
    assert lines[-1] == "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    (folder / "typo.py").write_text("def net(:\n")
    assert "SyntaxError" in said(capsys, "plan", "typo.py:net")


def test_a_file_without_functions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty.py").write_text("")
    assert said(capsys, "plan", "empty.py:net") == (
        "error: empty.py has no function 'net'\n  hint: it has no functions\n"
    )


def test_a_file_that_is_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.gc").write_text("milk, bread")
    text = said(capsys, "plan", "notes.gc")
    assert text.startswith("error: notes.gc cannot be read as a model: ")


DATA = {
    ("model.py:net", "nix.npz"): (
        "error: cannot read nix.npz: No such file or directory\n"
        "  hint: write it with numpy.savez(path, x=..., y=...), numbers only\n"
    ),
    ("model.py:net", "notes.txt"): (
        "error: cannot tell what kind of data notes.txt is\n"
        '  hint: give "digits", "iris", "wine", "breast_cancer", "diabetes", "mnist_5k", a .npz '
        "file, or a .csv file whose first line names the columns\n"
    ),
    ("model.py:net", "only_x.npz"): (
        "error: only_x.npz has no array for the input 'y'\n  hint: it has x; the net reads x, y\n"
    ),
    ("model.py:net", "uneven.npz"): (
        "error: the arrays of uneven.npz differ in their number of rows: 'x' has 4, 'y' has 3\n"
    ),
    ("model.py:table", "one.npz"): (
        "error: a fraction of 0.2 of 1 rows leaves nothing on one side\n"
        "  hint: give more rows, another --validation, or --validation 0\n"
    ),
    ("model.py:table", "digits"): (
        "error: input 'x' takes (N, 2), the array has shape (1797, 64)\n"
        "  input  x float32[N, 2]  declared at model.py:16 in table\n"
        "  hint: the batch dimension N is free, all others are as declared\n"
    ),
    ("model.py:no_loss", "digits"): (
        "error: net 'no_loss' has no loss to train by\n"
        '  hint: declare one: net.loss("loss", gc.softmax_loss(scores, y))\n'
    ),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("model,data", DATA)
def test_data(model: str, data: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "only_x.npz", x=np.ones((4, 64)))
    np.savez(folder / "uneven.npz", x=np.ones((4, 64)), y=np.zeros(3, int))
    np.savez(folder / "one.npz", x=np.ones((1, 2)), y=np.zeros(1))
    assert said(capsys, "train", model, "--data", data) == DATA[model, data]
    assert not list(folder.glob("**/*.gc"))


OPTIONS = {
    ("--without", "backward"): "error: pass 'backward' is required\n",
    ("--without", "cse,typo"): "error: there is no pass 'typo'\n",
    ("--lr", "-1"): "error: Adam: lr is -1.0, it must be 0 or more\n",
    ("--out", "model.py"): "error: cannot make the folder model.py: File exists\n",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "train", "model.py:net", "--data", "digits", *options)
    assert text.startswith(OPTIONS[options])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["tran"],
        ["train", "model.py:net"],
        ["train", "model.py:net", "--data", "digits", "--epochs", "0"],
        ["train", "model.py:net", "--data", "digits", "--validation", "1"],
        ["train", "model.py:net", "--data", "digits", "--validation", "some"],
        ["train", "model.py:net", "--data", "digits", "--optimizer", "lion"],
        ["train", "model.py:net", "--data", "digits", "--backend", "gpu"],
        ["train", "model.py:net", "--data", "digits", "--threads", "0"],
        ["plan", "model.py:net", "--batch", "-3"],
    ],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: graphc" in said(capsys, *argv, status=2)


@pytest.mark.parametrize("suffix", ["gif", ""])
def test_a_suffix_that_is_no_picture(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "render", "model.py:net", "-o", f"a.{suffix}")
    assert text == (
        f"error: cannot draw 'a.{suffix}': the suffix says the format\n"
        "  hint: one of .svg, .png, .pdf, .dot, .html\n"
    )


def test_data_in_the_place_of_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("a,b\n1,2\n")
    for argv in (["train", "t.csv", "--data", "t.csv"], ["predict", "t.csv", "--data", "t.csv"]):
        assert said(capsys, *argv) == "error: t.csv is data, not a model\n" + HOW


def test_a_table_that_is_no_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_bytes("a,b\ncaf\u00e9,2\n".encode("latin-1"))
    assert said(capsys, "train", "model.py:table", "--data", "t.csv") == (
        "error: t.csv is not UTF-8 text: it has a byte 0xe9\n"
        "  hint: export it as CSV in UTF-8, or name its encoding, such as latin-1\n"
    )


def test_a_seed_below_0_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "train", "m.py:net", "--data", "t.csv", "--seed", "-3", status=2)
    assert text.endswith("argument --seed: '-3' is not a whole number from 0 up\n")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("nix.py:net", "--data", "digits"), "error: nix.py does not exist\n" + HOW),
        (
            ("model.py:net", "--data", "nix.csv"),
            "error: cannot read nix.csv: No such file or directory\n"
            "  hint: give the path of a .csv file\n",
        ),
        (
            ("model.py:net", "--data", "nix.npz"),
            "error: cannot read nix.npz: No such file or directory\n"
            "  hint: write it with numpy.savez(path, x=..., y=...), numbers only\n",
        ),
        (
            ("model.py:table", "--data", "words.csv"),
            "error: words.csv, line 3, column 2 ('b'): 'red' is not a finite float32 number\n"
            "  hint: fill missing values, and encode words as numbers, before loading\n",
        ),
    ],
)
def test_ranks_are_not_started_with_what_cannot_be(
    words: tuple[str, ...],
    shown: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "words.csv").write_text("a,b,y\n1,2,0\n3,red,1\n")
    monkeypatch.setattr("graphc.cli.launch.Launch", Unstarted)
    assert said(capsys, "launch", "-n", "2", "train", *words) == shown
    with pytest.raises(SystemExit, match="2"):
        main(["launch", "train", "model.py:net"])
    assert "the following arguments are required: --data" in capsys.readouterr().err


def test_ranks_are_not_started_with_another_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("graphc.cli.launch.Launch", Unstarted)
    for word, told in (("nix.py", "nix.py does not exist"), ("plan", "`graphc train` or a script")):
        assert told in said(capsys, "launch", word)


class Unstarted:
    """In the place of what starts ranks."""

    def __init__(self, ranks: int, hosts: str | None) -> None:
        assert ranks == 2
        assert hosts is None

    def run(self, words: object) -> int:
        raise AssertionError(words)
