"""`--passes FILE:NAME`: a list in place of the default passes, or a pass after them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphc.cli import main

PASSES = """\
import graphc as gc
from graphc.ir.graph import Node
from graphc.ops.fused import AffineRelu
from graphc.ops.linalg import Affine
from graphc.ops.select import Relu
from other import failing as imported


@gc.passes.graph_pass(preserves="bitwise")
def no_fusion(graph):
    nodes = []
    for node in graph:
        if isinstance(node.op, AffineRelu):
            affine = Node(f"{node.name}.affine", Affine(), node.inputs, node.type, node.locs)
            node = Node(node.name, Relu(), (affine.name,), node.type, node.locs)
            nodes.append(affine)
        nodes.append(node)
    return graph.with_nodes(nodes) if len(nodes) > len(graph) else graph


class Option:
    preserves = "bitwise"

    def __call__(self, graph):
        return graph


class Wrong:
    def __call__(self, graph):
        return None


option, wrong, seven = Option(), Wrong(), 7
several = (no_fusion, option)
bad = (no_fusion, seven)
early = gc.passes.after("cse", no_fusion)
without = gc.passes.without("fuse_affine_relu")
bare = type(early)((no_fusion,))


def no_graph():
    return None


def failing(graph):
    raise KeyError("relu")
"""
OTHER = """\
def failing(graph):
    raise KeyError("tanh")
"""


@pytest.fixture(autouse=True)
def file_of_passes(folder: Path) -> None:
    (folder / "mine.py").write_text(PASSES)
    (folder / "other.py").write_text(OTHER)


def names(
    capsys: pytest.CaptureFixture[str], passes: str | None, program: str = "infer"
) -> set[str]:
    """The nodes of a program's instructions."""
    argv = ["plan", "model.py:net", "--json", "--backend", "numpy", "--batch", "4"]
    assert main(argv + ([] if passes is None else ["--passes", f"mine.py:{passes}"])) == 0
    programs = json.loads(capsys.readouterr().out)["programs"]
    return {name for instr in programs[program]["instructions"] for name in instr["nodes"]}


def test_a_pass_runs_after_the_default_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "relu_1.affine" not in names(capsys, None)
    for passes in ("no_fusion", "several"):
        assert {"relu_1.affine", "relu_1"} <= names(capsys, passes)


def test_a_list_takes_the_place_of_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert "relu_1.affine" not in names(capsys, "early")  # it ran before the fusion
    assert "affine_1" in names(capsys, "without")
    assert "affine_1" not in names(capsys, None)


def test_render_diff_and_verify_take_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = ("--passes", "mine.py:no_fusion")
    assert main(["render", "model.py:net", "-o", "net.html", *mine]) == 0
    assert "relu_1.affine" in (folder / "net.html").read_text()
    assert main(["diff", "model.py:net", "--pass", "no_fusion", *mine]) == 0
    assert "relu_1.affine" in capsys.readouterr().out
    assert main(["verify", "model.py:net", "--batch", "3", *mine]) == 0


@pytest.mark.slow
def test_bench_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    mine = ("--passes", "mine.py:no_fusion")
    argv = ["bench", "model.py:net", "--batch", "3", "--rounds", "1", "--json", *mine]
    assert main([*argv, "--backend", "numpy"]) == 0
    assert json.loads(capsys.readouterr().out)["net"] == "small"


COMMANDS = ["plan", "render", "diff", "verify", "bench"]
MORE = {"diff": ["--pass", "cse"]}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("command", [*COMMANDS, "check", "bisect"])
@pytest.mark.parametrize(
    ("name", "file", "raised"), [("failing", "mine", "relu"), ("imported", "other", "tanh")]
)
def test_a_pass_that_raises_is_shown_from_its_file_on(
    command: str, name: str, file: str, raised: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [command, "model.py:net", "--passes", f"mine.py:{name}", *MORE.get(command, [])]
    assert main(argv) > 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f"{file}.py" in lines[1]
    assert lines[-2:] == [f"KeyError: '{raised}'", "in pass 'failing'"]


MISTAKES = {
    "gone.py:mine": "gone.py does not exist\n  hint: --passes takes file.py:name, of a gc.passes",
    "mine.py:nix": "mine.py has no list of passes 'nix'",
    "mine.py": "'mine.py' does not name a list of passes",
    "mine.py:": "'mine.py:' does not name a list of passes",
    "mine.py:seven": "mine.py:seven: 7 is not a pass",
    "mine.py:Option": "is not a pass\n  hint: a pass is a function that takes and returns a Graph",
    "mine.py:no_graph": "is not a pass",
    "mine.py:bad": "mine.py:bad: 7 is not a pass",
    "mine.py:bare": "mine.py:bare: a plan needs the passes backward, data_parallel, dead_code",
    "mine.py:wrong": "pass 'Wrong' gave NoneType, not a Graph",
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("passes", MISTAKES)
def test_what_is_no_pass_is_said(
    command: str, passes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "model.py:net", "--passes", passes, *MORE.get(command, [])]) > 0
    error = capsys.readouterr().err
    assert MISTAKES[passes] in error
    assert error.startswith("error: ")
    assert "Traceback" not in error


def test_a_certificate_has_its_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.json").write_text("{}")
    assert main(["verify", "plan.json", "--passes", "mine.py:option"]) == 2
    assert "a certificate is of a plan whose passes have run" in capsys.readouterr().err
