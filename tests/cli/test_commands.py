"""Every command does what it says."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main, train
from graphc.cli.arguments import nbytes
from graphc.cli.data import Feeds
from graphc.files.disk import FolderLock
from tests.extras import needs

native = pytest.mark.needs("native")
PNG = b"\x89PNG\r\n"


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main(argv) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_demo_leaves_pictures_curve_and_model(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("matplotlib")
    needs("renderer")
    lines = printed(capsys, "demo", "--epochs", "2", "--seeds", "1", "--out", "out")
    assert lines[0] == "memory of 'digits' at N = 16, bytes"
    assert any(line.startswith("seed 0: test accuracy 0.") for line in lines)
    pictures = ["learning_curve.png", "confusion_matrix.png"]
    names = ["digits.svg", "digits.html", *pictures, "digits.gc"]
    assert lines[-6:] == ["wrote", *(f"  {Path('out') / name}" for name in names)]
    at = lines.index("seed 0, true digit (down), predicted as (across):")
    assert lines[at + 1].split() == [str(digit) for digit in range(10)]
    counts = [line.replace(".", "0").split() for line in lines[at + 2 : at + 12]]
    assert [row[0] for row in counts] == [str(digit) for digit in range(10)]
    right = sum(int(row[1 + digit]) for digit, row in enumerate(counts))
    seen = sum(int(n) for row in counts for n in row[1:])
    (line,) = (line for line in lines if line.startswith("test accuracy"))
    assert f"{right / seen:.4f}," == line.split()[2] and f"on {seen} digits" in line
    assert "<svg" in (folder / "out/digits.svg").read_text()
    assert "<svg" in (folder / "out/digits.html").read_text()
    for name in pictures:
        assert (folder / "out" / name).read_bytes().startswith(PNG)
    assert gc.load(folder / "out/digits.gc").plan.declared.name == "digits"


@pytest.mark.parametrize("words", [["demo", "--epochs", "1"], ["train", "model.py:net"]])
def test_a_folder_that_another_run_has(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--data", "digits"] if words[0] == "train" else []
    (folder / "out").mkdir()
    with FolderLock(folder / "out", "run"):
        assert main([*words, *more, "--out", "out"]) == 1
    assert capsys.readouterr().err.startswith("error: out is in use by process ")
    assert not list((folder / "out").iterdir())


@pytest.mark.slow
def test_demo_reads_digits(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "demo")
    (line,) = (line for line in lines if line.startswith("test accuracy"))
    assert float(line.split()[2].rstrip(",")) >= 0.97


@pytest.mark.slow
def test_demo_goes_on_without_renderer_and_matplotlib(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphc.view.render.renderer.find_renderer", lambda: None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", "--epochs", "1", "--seeds", "1", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        "warning: no digits.svg: svg needs Graphviz, and no renderer was found; "
        "pip install 'graphc-nn[dot]'",
        "warning: no learning_curve.png: a learning curve is drawn by matplotlib, "
        "which is not installed; pip install 'graphc-nn[plot]'",
        "warning: no confusion_matrix.png: a confusion matrix is drawn by matplotlib, "
        "which is not installed; pip install 'graphc-nn[plot]'",
    ]
    assert err.splitlines() == warnings  # and no bar: nobody watches
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["digits.gc", "digits.html"]
    assert "learning_curve" not in out


def test_train_saves_a_model_that_can_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "train", "model.py:net", "--data", "digits", "--epochs", "2")
    assert [line.split()[0] for line in lines[:2]] == ["training:", "validation:"]
    assert "accuracy 0." in lines[1]
    assert lines[2:] == ["wrote", f"  {Path('graphc-run') / 'small.gc'}"]
    first = gc.load("graphc-run/small.gc")
    argv = ["train", "graphc-run/small.gc", "--data", "digits", "--epochs", "1", "--out", "more"]
    printed(capsys, *argv, "--lr", "0.25", "--without", "cse,fuse_affine_relu")
    second = gc.load("more/small.gc")
    assert second.plan.optimizer == first.plan.optimizer
    assert second.state["updates"] == first.state["updates"] * 1.5
    assert second.hyper["lr"] == 0.25


PICTURES = ("learning_curve", "confusion_matrix", "weights", "gradients")


@pytest.mark.slow
def test_train_draws_pictures_and_leaves_the_model_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("matplotlib")
    argv = ["train", "model.py:net", "--data", "digits", "--epochs", "2", "--out"]
    plain = printed(capsys, *argv, "plain")
    drawn = printed(capsys, *argv, "drawn", "--plots")
    assert drawn[:2] == plain[:2]
    names = ["small.gc", *(f"{name}.png" for name in PICTURES)]
    assert drawn[2:] == ["wrote", *(f"  {Path('drawn') / name}" for name in names)]
    assert all((folder / "drawn" / name).read_bytes().startswith(PNG) for name in names[1:])
    assert (folder / "drawn/small.gc").read_bytes() == (folder / "plain/small.gc").read_bytes()


@pytest.mark.slow
def test_pictures_show_weights_and_gradients_before_and_after(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("matplotlib")
    shown = {}

    def histograms(arrays, path, *, before, magnitudes=False):
        shown[path.stem] = {k: np.array(v) for k, v in arrays.items()}, dict(before)
        return path

    monkeypatch.setattr("graphc.cli.train.histograms", histograms)
    monkeypatch.setattr("graphc.cli.train.confusion_matrix", pytest.fail)  # no classifier
    x = np.random.default_rng(0).normal(size=(9, 2))
    np.savez(folder / "data.npz", x=x, y=x @ [1.0, 2.0])
    argv = ["--data", "data.npz", "--epochs", "3", "--validation", "0", "--batch", "9"]
    printed(capsys, "train", "model.py:table", *argv, "--optimizer", "sgd", "--plots")
    saved = gc.load("graphc-run/table.gc")
    weights, old = shown["weights"]
    for name, array in saved.parameters.items():
        np.testing.assert_array_equal(weights[name], array)
    for now, (w, b) in zip(shown["gradients"], _both(weights, old), strict=True):
        gap = x @ w + b - x @ [1.0, 2.0]  # by hand: the derivative of the mean of gap**2
        np.testing.assert_allclose(now["affine_1.weight"][:, 0], 2 * gap @ x / 9, rtol=1e-4)
        np.testing.assert_allclose(now["affine_1.bias"], [2 * gap.mean()], rtol=1e-4)


def _both(*states):
    for state in states:
        yield state["affine_1.weight"][:, 0], state["affine_1.bias"][0]


def test_pictures_without_matplotlib_are_refused_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["train", "model.py:net", "--data", "digits", "--plots"]) == 1
    assert capsys.readouterr() == (
        "",
        "error: each of the --plots is drawn by matplotlib, which is not installed\n"
        "  hint: pip install 'graphc-nn[plot]'\n",
    )
    assert not (folder / "graphc-run").exists()


def test_train_is_repeatable_and_follows_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "model.py:net", "--data", "digits", "--epochs", "1", "--seed"]
    once, again, other = (printed(capsys, *argv, seed)[0] for seed in ("1", "1", "2"))
    assert once == again != other


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_train_with_each_optimizer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "model.py:net", "--data", "digits", "--epochs", "1", "--optimizer", name]
    printed(capsys, *argv, "--lr", "0.002", "--backend", "numpy", "--batch", "256")
    optimizer = gc.load("graphc-run/small.gc").plan.optimizer
    wanted = {
        "sgd": gc.SGD(lr=0.002),
        "momentum": gc.SGD(lr=0.002, momentum=0.9),
        "adam": gc.Adam(lr=0.002),
        "adamw": gc.AdamW(lr=0.002),
    }
    assert optimizer == wanted[name]


@pytest.mark.slow
def test_train_on_tables_without_validation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    np.savez(folder / "data.npz", x=x, y=x @ [1.0, 2.0])
    rows = "".join(f"{a},{b},{a + 2 * b}\n" for a, b in x)
    (folder / "data.csv").write_text(f"a,b,y\n{rows}")
    argv = ["--epochs", "2", "--validation", "0", "--seed", "3"]
    npz = printed(capsys, "train", "model.py:table", "--data", "data.npz", *argv)
    csv = printed(capsys, "train", "model.py:table", "--data", "data.csv", *argv)
    assert npz == csv
    named = "".join(f"{a + 2 * b},{a},{b}\n" for a, b in x)
    (folder / "named.csv").write_text(f"rent,a,b\n{named}")
    label = ["--data", "named.csv", "--label", "rent", *argv]
    assert printed(capsys, "train", "model.py:table", *label) == npz
    assert [line.split(":")[0] for line in npz[:2]] == ["training", "wrote"]
    printed(capsys, "train", "model.py:table", "--data", "data.csv", "--epochs", "1")


def test_train_lists_the_passes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "train", "--passes")
    assert [line.split()[0] for line in lines] == list(dict.fromkeys(gc.passes.DEFAULT.names))
    required = [line.split()[0] for line in lines if line.endswith("(required)")]
    assert set(required) == gc.passes.REQUIRED
    assert (
        "cse                          bitwise       Compute each common subexpression once."
        in lines
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("suffix", ["svg", "html", "dot"])
def test_render(suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("renderer")
    assert printed(capsys, "render", "model.py:net", "-o", f"a.{suffix}") == [f"wrote a.{suffix}"]
    assert "scores" in (folder / f"a.{suffix}").read_text()


def test_render_names_the_file_after_the_net(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("renderer")
    assert printed(capsys, "render", "model.py:no_loss") == ["wrote no_loss.svg"]
    assert "<svg" in (folder / "no_loss.svg").read_text()


def test_render_draws_a_saved_model_as_its_net(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("renderer")
    printed(capsys, "train", "model.py:net", "--data", "digits", "--epochs", "1")
    printed(capsys, "render", "graphc-run/small.gc", "-o", "saved.svg")
    printed(capsys, "render", "model.py:net", "-o", "made.svg")
    assert "scores" in (folder / "saved.svg").read_text()
    assert (folder / "made.svg").read_text().count("<title>") == (
        folder / "saved.svg"
    ).read_text().count("<title>")


@native
def test_train_on_so_many_threads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHC_BACKEND", raising=False)
    argv = ["train", "model.py:net", "--data", "digits", "--epochs", "1", "--backend", "native"]
    printed(capsys, *argv, "--threads", "1")
    plan = gc.load("graphc-run/small.gc").plan
    assert (plan.backend, plan.options.threads) == ("native", 1)


@native
def test_plan_shows_native_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["plan", "model.py:no_loss", "--batch", "7", "--backend", "native", "--threads", "1"]
    lines = printed(capsys, *argv)
    assert lines[0] == "plan of 'no_loss' for up to 7 rows on native"
    assert "program infer for up to 7 rows, native" in lines
    assert any(line.startswith("  0  gemm N x 3  float32 partition=") for line in lines)
    assert any(line.startswith("  scratch") and "1 here" in line for line in lines)


@pytest.mark.slow
def test_plan_within_a_budget(deep: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["plan", deep, "--batch", "256", "--backend", "numpy", "--optimizer", "sgd"]
    curve = printed(capsys, *argv, "--curve", "--budget", "600kB")
    assert curve[0] == "memory and FLOPs of 'deep' at N = 256, step"
    assert curve[2].endswith("+0.0%          0 nodes")
    assert re.fullmatch(
        r"largest batch within 600,000 bytes: \d+, or \d+ by recomputing values", curve[-1]
    )
    total = next(int(line.split()[0].replace(",", "")) for line in curve[4:])
    lines = printed(capsys, *argv, "--budget", str(total))
    assert any(re.match(r"  step: \d nodes recomputed \(\d affine_relu\), \+", w) for w in lines)
    assert main([*argv, "--budget", "100kB"]) == 1
    assert "bytes, with recomputation" in capsys.readouterr().err


def test_the_curve_is_drawn(folder: Path, deep: str, capsys: pytest.CaptureFixture[str]) -> None:
    needs("matplotlib")
    argv = ["plan", deep, "--backend", "numpy", "--curve", "--picture", "curve.svg"]
    assert printed(capsys, *argv)[-1] == "wrote curve.svg"
    assert "<svg" in (folder / "curve.svg").read_text()


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("8000", 8000), ("8kB", 8000), ("1.5MB", 1_500_000), ("2 MiB", 2 << 20), ("1G", 10**9)],
)
def test_sizes(text: str, bytes: int) -> None:
    assert nbytes(text) == bytes


@pytest.mark.parametrize("text", ["", "MB", "-1", "8 bytes", "1e6", "8kiB"])
def test_invalid_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        nbytes(text)


def test_plan_shows_instructions_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    short = printed(capsys, "plan", "model.py:net", "--batch", "7", "--backend", "numpy")
    assert short[0] == "plan of 'small' for up to 7 rows on numpy"
    assert "program infer for up to 7 rows, numpy" in short
    assert "memory of 'small' at N = 7, bytes" in short
    assert not any(line.startswith("program step") for line in short)
    long = printed(
        capsys, "plan", "model.py:net", "--batch", "7", "--memory", "--optimizer", "adam"
    )
    assert any(line.startswith("program step for up to 7 rows") for line in long)
    (table,) = (
        i for i, line in enumerate(long) if line.split()[:3] == ["program", "offset", "bytes"]
    )
    assert any("model.py:8 in net" in line for line in long[table:])


def test_plan_and_train_take_the_precision_of_layers(capsys: pytest.CaptureFixture[str]) -> None:
    precision = ("--precision", "*=bf16_blocks, scores=float32,", "--backend", "numpy")
    lines = printed(capsys, "plan", "model.py:net", "--batch", "7", *precision)
    assert "  products of float32: scores" in lines
    printed(capsys, "train", "model.py:net", "--data", "digits", "--epochs", "1", *precision)
    assert gc.load("graphc-run/small.gc").plan.precision == {
        "*": "bf16_blocks",
        "scores": "float32",
    }


@pytest.mark.parametrize("options", [(), ("--data", "digits")])
def test_check_names_every_parameter(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "check", "model.py:net", *options)
    assert lines[0] == "graph 'small': ok, 10 nodes; it compiles"
    checked = {line.split()[0] for line in lines[2:]}
    assert checked == {"affine_1.weight", "affine_1.bias", "scores.weight", "scores.bias"}


def test_check_finds_a_wrong_gradient(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "model.py:wrong_gradient"]) == 1
    out = capsys.readouterr().out
    wrong = [line.split()[1] for line in out.splitlines() if line.startswith("x ")]
    assert wrong == ["below.weight", "below.bias"]


@pytest.mark.slow
def test_it_is_a_module_too(folder: Path) -> None:
    root = Path(gc.__file__).resolve().parent.parent
    found = subprocess.run(
        [sys.executable, "-m", "graphc", "--version"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
        check=True,
    )
    assert found.stdout == f"graphc {gc.__version__}\n"


STANDARDISED = """
import graphc as gc

def net():
    net = gc.Net("standardised")
    x, y = net.input("x", (gc.N, 64)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(gc.standardize(x, name="norm"), 10), y))
    return net
"""


@pytest.mark.slow
def test_gradients_before_training_are_of_standardised_data(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("matplotlib")
    (folder / "model.py").write_text(STANDARDISED)
    seen: list[float] = []

    class Pictures(train.Pictures):
        def __init__(self, ex: gc.Executor, train: Feeds) -> None:
            seen.append(float(ex.state["norm.scale"].max()))
            super().__init__(ex, train)

    monkeypatch.setattr("graphc.cli.train.Pictures", Pictures)
    printed(capsys, "train", "model.py:net", "--data", "digits", "--epochs", "1", "--plots")
    assert seen[0] > 1  # as declared it is 1; the pixels of digits vary by more
