"""--json: one JSON object on standard output, with the numbers that the text shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native.target import available
from graphc.cli import main
from graphc.cli.arguments import print_json
from graphc.cli.model import load_model
from graphc.compiler.cost import program_cost
from graphc.view.measure import Peak
from tests.extras import needs


def found(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> dict[str, Any]:
    assert main([*argv, "--json"]) == status
    out, err = capsys.readouterr()
    assert err == ""
    data: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
    return data


def test_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("train", "model.py:net", "--data", "digits", "--epochs", "3", "--out")
    data = found(capsys, *argv, "json")
    assert main([*argv, "text"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, part in zip(lines, ("training", "validation"), strict=False):
        numbers = ", ".join(f"{key} {value:.4f}" for key, value in data[part].items())
        assert line == f"{part}: {numbers}"
    history = data["history"]
    assert history["epochs"] == [1, 2, 3]
    assert history["val_loss"][-1] == pytest.approx(data["validation"]["loss"])
    assert len(history["loss"]) == len(history["seconds"]) == 3
    assert data["files"] == [str(Path("json") / "small.gc")]
    assert data["net"] == "small"
    data = found(capsys, *argv, "json", "--validation", "0")
    assert "validation" not in data
    assert data["history"]["val_loss"] == []


def test_a_loss_that_is_not_finite_is_null(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_json({"a": float("nan"), "b": [np.float32("inf"), 1.5], "c": {"d": np.int64(3)}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": 3}}


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("plan", "model.py:net", "--batch", "7", "--backend", "numpy", "--optimizer", "sgd")
    data = found(capsys, *argv, "--memory", "--picture", "arena.svg")
    graph = load_model("model.py:net").graph
    plan = gc.compile(graph, batch=7, backend="numpy", optimizer=gc.SGD(0.1))
    assert (data["net"], data["batch"], data["backend"]) == ("small", 7, "numpy")
    assert data["memory"].pop("total") == plan.memory.total == sum(data["memory"].values())
    assert data["programs"].keys() == plan.programs.keys()
    for name, program in plan.programs.items():
        shown = data["programs"][name]
        assert (shown["nodes"], shown["arena"]) == (len(program.graph), program.arena.nbytes)
        assert [i["node"] for i in shown["instructions"]] == [i.node for i in program.instrs]
    lines = [(b["program"], b["name"], b["offset"], b["nbytes"]) for b in data["buffers"]]
    assert lines == [(b.program, b.name, b.offset, b.nbytes) for b in plan.memory.buffers()]
    assert any(b["loc"] == "model.py:8 in net" for b in data["buffers"])
    assert "<svg" in Path(data["picture"]).read_text()
    data = found(capsys, *argv)
    assert data["picture"] is None
    assert "buffers" not in data


def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    data = found(capsys, "check", "model.py:net")
    assert data["ok"]
    assert data["suspect"] is None
    names = [item["name"] for item in data["gradients"]]
    assert names == ["affine_1.weight", "affine_1.bias", "scores.weight", "scores.bias"]
    assert all(item["error"] <= data["tolerance"] for item in data["gradients"])
    data = found(capsys, "check", "model.py:wrong_gradient", status=1)
    assert not data["ok"]
    bad = {item["name"]: item for item in data["gradients"] if not item["ok"]}
    assert bad.keys() == {"below.weight", "below.bias"}
    assert bad["below.bias"]["by_rules"] / bad["below.bias"]["by_differences"] == pytest.approx(
        2 / 3
    )
    assert "'wrong_1' is wrong" in data["suspect"]


@pytest.mark.slow
def test_check_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = found(capsys, "check", "model.py:net", "--passes")
    assert data["ok"]
    assert data["judged"]["update"] == data["judged"]["apply_update"] == 6
    assert main(["check", "model.py:net", "--passes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = sum(data["judged"].values())
    assert lines[0] == f"passes of 'small': ok, {runs} runs judged with 1, 5, 6 rows"
    assert "  apply_update                 6" in lines
    (folder / "mine.py").write_text(PASSES)
    data = found(capsys, "check", "model.py:net", "--passes", "mine.py:own", status=1)
    assert not data["ok"]
    assert data["error"].startswith("pass 'no_relu': output 'scores' is ")
    assert "relu" in data["rewrite"]
    assert Path(data["test"]).is_file()
    assert main(["check", "model.py:net", "--passes", "mine.py:own"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: pass 'no_relu': output 'scores' is ")
    assert "smallest graph that still fails: 2 nodes" in err
    for name, sentence in {
        "mine.py:nix": "mine.py has no list of passes 'nix'",
        "mine": "'mine' does not name a list of passes",
    }.items():
        assert main(["check", "model.py:net", "--passes", name]) == 1
        assert capsys.readouterr().err.startswith(f"error: {sentence}")


@pytest.mark.slow
def test_bisect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys, "bisect", "model.py:net") == {"found": False}
    (folder / "mine.py").write_text(PASSES)
    argv = ("bisect", "model.py:net", "--passes", "mine.py:own", "--optimizer", "adam")
    data = found(capsys, *argv, status=1)
    assert (data["name"], data["position"], data["count"]) == ("no_relu", 2, 19)
    assert (data["good"], data["bad"]) == ("1.0", "1.1")
    assert main([*argv, "--symptom", "output:scores", "--data", "digits"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "first bad pass: 'no_relu', number 2 of 19",
        f"first bad rewrite: {data['rewrite'][0]}",
        "GRAPHC_PASS_LIMIT=1.1 shows it, GRAPHC_PASS_LIMIT=1.0 does not",
    ]


@pytest.mark.parametrize(
    ("argv", "status", "shown"),
    [
        ((), 1, "bisect takes either a model or a command"),
        (("model.py:net", "--run", "python x.py"), 1, "bisect takes either a model or a command"),
        (("--run", "python x.py"), 2, "the exit status is 2"),
        (("--run", "nix"), 1, "cannot run 'nix'"),
        (("model.py:net", "--symptom", "output:nix"), 1, "there is no 'output:nix'"),
    ],
)
def test_mistakes_with_bisect(
    argv: tuple[str, ...], status: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bisect", *argv]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {shown}")


PASSES = """\
import graphc as gc
from graphc.ops.select import Relu


@gc.passes.graph_pass(preserves="bitwise")
def no_relu(graph):
    relus = {n.name: n.inputs[0] for n in graph if isinstance(n.op, Relu)}
    return graph.rename_reads(relus)


own = gc.passes.after("cse", no_relu)
"""


def test_bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.cli.bench.TURN_SECONDS", 1e-9)
    monkeypatch.setattr("graphc.cli.bench.measure_peak", lambda threads: Peak(threads, 2e9, 1e9))
    argv = ("bench", "model.py:net", "--batch", "8", "--rounds", "2", "--backend", "numpy")
    data = found(capsys, *argv, "--trace", "trace.json")
    program = gc.compile(
        load_model("model.py:net").graph,
        batch=8,
        optimizer=gc.SGD(lr=0.01, momentum=0.9),
        backend="numpy",
    ).programs["step"]
    assert (data["program"], data["rows"], data["backend"]) == ("step", 8, "numpy")
    instrs = [i for i in program.instrs if i.kind != "barrier"]
    assert [i["node"] for i in data["instructions"]] == [i.node for i in instrs]
    for key in ("flops", "bytes", "products"):
        assert sum(i[key] for i in data["instructions"]) == data["work"][key]
        assert data["work"][key] == getattr(program_cost(program, 8), key)
    assert data["peak"]["flops"] == 2e9
    assert data["seconds"].keys() == {"numpy"} | ({"native"} if available() is None else set())
    assert data["files"] == ["trace.json"]
    assert json.loads(Path("trace.json").read_text())["traceEvents"]


def test_diff(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("renderer")
    text = (folder / "model.py").read_text()
    (folder / "other.py").write_text(text.replace("gc.relu(gc.affine", "gc.tanh(gc.affine"))
    data = found(capsys, "diff", "model.py:net", "other.py:net", "--out", "d.svg")
    (one,) = data["differences"]
    assert one["name"] == "small"
    kinds = {(c["kind"], c["before"] is None, c["after"] is None) for c in one["changes"]}
    assert kinds == {("removed", False, True), ("added", True, False), ("changed", False, False)}
    assert any("tanh(affine_1)" in (c["after"] or "") for c in one["changes"])
    assert "<svg" in Path(data["file"]).read_text()
    data = found(capsys, "diff", "model.py:net", "--pass", "dead_code")
    assert [d["name"] for d in data["differences"]] == [
        f"dead_code, run {i} of 3" for i in (1, 2, 3)
    ]
    assert data["file"] is None


def test_errors_are_text_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "check", "bench"):
        assert main([command, "nix.py:net", "--json"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: nix.py does not exist\n")


@pytest.mark.slow
def test_plan_with_a_budget(deep: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("plan", deep, "--batch", "256", "--backend", "numpy", "--optimizer", "sgd")
    all_kept = found(capsys, *argv)["memory"]["total"]
    curve = found(capsys, *argv, "--curve", "--budget", f"{all_kept - 1}")
    assert (curve["net"], curve["program"], curve["points"][0]["total"]) == (
        "deep",
        "step",
        all_kept,
    )
    assert curve["largest_batch"]["computed_again"] > 256 > curve["largest_batch"]["kept"]
    budget = curve["points"][1]["total"]
    data = found(capsys, *argv, "--budget", str(budget))
    assert data["memory"]["total"] <= budget
    shown = {each["program"]: each for each in data["computed_again"]}
    assert shown["step"]["flops"] == curve["points"][1]["flops"]
    assert shown["step"]["share"] == pytest.approx(curve["points"][1]["more"])
