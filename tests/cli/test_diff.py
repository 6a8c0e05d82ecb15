"""`graphc diff`: two models, or one before and after a pass; and its mistakes, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphc.cli import main
from tests.cli.test_mistakes import MODELS, said
from tests.extras import needs

OTHER = """\
import graphc as gc


def net():
    net = gc.Net("small")
    x = net.input("x", (gc.N, 64))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 8, name="hidden"))
    net.output("scores", gc.affine(h, 10, name="scores"))
    net.loss("loss", gc.svm_loss(net["scores"], y))
    return net
"""


@pytest.fixture(autouse=True)
def other(folder: Path) -> None:
    (folder / "other.py").write_text(OTHER)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["diff", *argv, "--backend", "numpy", "--batch", "8"]) == 0
    return capsys.readouterr().out


def test_two_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "model.py:net", "other.py:net") == (
        "small: 1 removed, 1 added, 3 renamed\n"
        "= affine_1.weight -> hidden.weight\n"
        "= affine_1.bias -> hidden.bias\n"
        "= affine_1 -> hidden\n"
        "- softmax_loss_1: float32[] = layer softmax_loss(scores, y)  "
        'reduction="mean" label_smoothing=0.0\n'
        '+ svm_loss_1: float32[] = layer svm_loss(scores, y)  reduction="mean"\n'
        "- output loss = softmax_loss_1\n"
        "+ output loss = svm_loss_1\n"
        "  FLOPs of 8 rows 22,003 -> 22,227 (+224)\n"
    )


def test_a_model_and_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "model.py:net", "model.py:net") == "small: no difference\n"


def test_models_of_other_names(capsys: pytest.CaptureFixture[str]) -> None:
    first = printed(capsys, "model.py:net", "model.py:table").splitlines()[0]
    assert first.startswith("small -> table: ")


def test_one_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("renderer")
    out = printed(capsys, "model.py:net", "--pass", "fuse_affine_relu", "-o", "fuse.svg")
    assert out == (
        "fuse_affine_relu: 2 removed, 2 changed\n"
        "- affine_1: float32[N, 8] = affine(x, affine_1.weight, affine_1.bias)\n"
        "~ relu_1: float32[N, 8] = relu(affine_1)\n"
        "  relu_1: float32[N, 8] = affine_relu(x, affine_1.weight, affine_1.bias)\n"
        "- d_relu_1: float32[N, 8] = matmul(d_scores, scores.weight)  trans_b=True\n"
        "~ d_affine_1: float32[N, 8] = relu_grad(relu_1, d_relu_1)\n"
        "  d_affine_1: float32[N, 8] = matmul_relu_grad(d_scores, scores.weight, relu_1)"
        "  trans_b=True\n"
        "  nodes 23 -> 21 (-2)\n"
        "  bytes of values 216*N + 2,452 -> 152*N + 2,452 (-64*N)\n"
        "  as many instructions, and as large an arena, as without it\n"
        "wrote fuse.svg\n"
    )
    assert 'data-node="affine_1"' in (folder / "fuse.svg").read_text()


def test_a_pass_that_runs_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "model.py:net", "--pass", "dead_code").splitlines()
    heads = [line for line in lines if line.startswith("dead_code, run ")]
    assert [head[:21] for head in heads] == [f"dead_code, run {i} of 3" for i in (1, 2, 3)]
    assert heads[0].endswith(": no difference")


def test_a_pass_of_the_optimizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("renderer")
    argv = ("model.py:net", "--pass", "update", "--optimizer", "sgd", "--out", "u.html")
    text = printed(capsys, *argv)
    assert "+ affine_1.weight.next: float32[64, 8] = sgd_step(" in text
    assert "instructions" not in text  # a plan cannot do without it
    assert "<svg" in (folder / "u.html").read_text()


def test_a_pass_that_saves_no_instruction_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(capsys, "model.py:net", "--pass", "share_batchnorm_statistics").splitlines()
    assert lines == ["share_batchnorm_statistics: no difference"]


HOW = (
    "  hint: graphc diff MODEL MODEL compares two models, graphc diff MODEL --pass NAME one "
    "before and after a pass\n"
)
MISTAKES = {
    ("model.py:net",): "error: diff was given 1 model\n" + HOW,
    ("model.py:net",) * 3: "error: diff was given 3 models\n" + HOW,
    ("model.py:net", "model.py:net", "--pass", "cse"): "error: diff was given 2 models\n" + HOW,
    ("model.py:net", "--pass", "cee"): (
        "error: there is no pass 'cee'\n"
        "  hint: the passes are specialize, shard, set_precision, cse, channels_last, "
        "fold_constants, dead_code, recompute_scans, backward, transpose_factors, segment_scans, "
        "split_scans, data_parallel, update, join_transposes, share_batchnorm_statistics, "
        "fold_batchnorm, widen_sums, round_products, middle_axes, fuse_affine_relu, "
        "recompute_attention, rematerialize, repeat_elements\n"
    ),
    ("model.py:net", "--pass", "update"): (
        "error: pass 'update' does not run in program 'grad' of 'small'\n"
        "  hint: update needs --optimizer\n"
    ),
    ("model.py:net", "model.py:table", "-o", "a.gif"): (
        "error: cannot draw 'a.gif': the suffix says the format\n"
        "  hint: one of .svg, .png, .pdf, .dot, .html\n"
    ),
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_mistakes(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "diff", *argv) == MISTAKES[argv]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("model", MODELS)
def test_models_that_cannot_be_had(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "diff", "model.py:net", model) == MODELS[model]
    assert said(capsys, "diff", model, "--pass", "cse") == MODELS[model]


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["diff", "model.py:net", "model.py:table", "-o", "nix/a.dot"]
    assert main(argv) == 1
    assert capsys.readouterr().err == (
        "error: cannot write nix/a.dot: No such file or directory\n"
        "  hint: make the folder first: nix\n"
    )
