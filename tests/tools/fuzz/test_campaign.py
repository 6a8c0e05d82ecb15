"""The command, what it counts, and how a case is drawn and written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.verify import Report
from graphc.check.verify.facts import Counterexample
from graphc.ir.text import graph_text
from tests.tools.fuzz.__main__ import main
from tests.tools.fuzz.campaign import cases
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import Verdict
from tests.tools.fuzz.coverage import Coverage
from tests.tools.fuzz.draw import Wishes, draw
from tests.tools.fuzz.write import graph_of, source

ROOT = Path(__file__).parents[3]
NUMPY = Wishes(native=0.0, interpreted=0.0)


def test_a_seed_is_always_the_same_case() -> None:
    for seed in range(20):
        one, two = draw(seed, NUMPY), draw(seed, NUMPY)
        assert graph_text(one.graph) == graph_text(two.graph)
        assert source(Verdict("wrong", "", one)) == source(Verdict("wrong", "", two))
        for a, b in zip(one.feeds(0).values(), two.feeds(0).values(), strict=True):
            assert np.array_equal(a, b)


def test_the_text_of_a_test_holds_the_whole_case() -> None:
    cases = [draw(seed, NUMPY) for seed in range(20)]
    two_plans = replace(cases[0], optimizer=gc.SGD(lr=0.1), other=gc.Adam(schedule=gc.Cosine(9)))
    for case in (*cases, two_plans):
        judged: list[Case] = []
        names: dict[str, Any] = {}
        exec(source(Verdict("wrong", 'a """ message', case)), names)
        names["assert_right"] = judged.append
        names[f"test_seed_{case.draw}"]()
        assert graph_text(judged[0].graph) == graph_text(case.graph)
        assert replace(judged[0], graph=case.graph) == case


@pytest.mark.slow
def test_the_command_tells_what_took_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "coverage.json"
    options = ["--cases", "6", "--native", "0", "--torch", "0", "--json", str(path)]
    assert main(options) == 0
    told = json.loads(path.read_text())
    assert told["cases"] == 6
    assert sum(told["verdicts"].values()) == 6
    assert told["ops"]["input"] >= 5
    assert set(gc.passes.DEFAULT.names) <= told["passes"].keys()
    printed = capsys.readouterr().out
    assert "6 cases" in printed
    assert "verdicts: " in printed


@pytest.mark.slow
def test_jobs_share_the_seeds(tmp_path: Path) -> None:
    told = []
    for jobs in ("1", "2"):
        path = tmp_path / f"{jobs}.json"
        options = ["--cases", "10", "--native", "0", "--torch", "0", "--json", str(path)]
        command = [sys.executable, "-m", "tests.tools.fuzz", *options, "--jobs", jobs]
        subprocess.run(command, check=True, cwd=ROOT)
        told.append(json.loads(path.read_text()) | {"seconds": 0})
    assert told[0] == told[1]


def test_only_some_steps(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cases", "4", "--native", "0", "--interpreted", "0", "--torch", "0"]
    assert main([*options, "--only", "affine", "where"]) == 0
    assert "batchnorm" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="there is no step unheard_of"):
        main([*options, "--only", "unheard_of"])


def test_a_pass_fires_where_it_changes_a_graph() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    net.output("y", gc.relu(gc.affine(x, 2)))
    coverage = Coverage()
    coverage.add([Case(net.graph(), 2, (Event("infer", 2),)).plan])
    assert coverage.passes["fuse_affine_relu"] == 1
    assert coverage.passes["specialize"] == 1
    assert coverage.passes["fold_batchnorm"] == 0
    assert coverage.pairs["fuse_affine_relu + specialize"] == 1
    assert coverage.ops["layer affine"] == coverage.ops["affine_relu"] == 1
    assert "op dropout_mask" in coverage.missing(1)


def test_a_graph_reads_back() -> None:
    graph = draw(3, NUMPY).graph
    assert graph_text(graph_of("\n" + graph_text(graph))) == graph_text(graph)


def test_a_plan_that_is_refuted_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one of which nothing can be said, since that raises."""
    wishes = Wishes(native=0.0, interpreted=0.0, proved=True)
    assert not cases(range(2), wishes).failures
    refuted = Report("net", (), Counterexample("rule", "sentence"))
    monkeypatch.setattr(gc.Plan, "verify", lambda plan: refuted)
    (found,) = cases(range(1), wishes, shrunk=0).failures
    assert found.kind == "wrong"
    assert "the plan as a whole: refuted" in found.message
    monkeypatch.setattr(gc.Plan, "verify", lambda plan: {}["buffer"])
    (found,) = cases(range(1), wishes, shrunk=0).failures
    assert found.error == "KeyError"
