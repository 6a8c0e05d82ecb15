"""A whole comparison, in processes, on a side that is always there; its times are not looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.extras import needs
from tests.tools.benchmarks.peers import processes
from tests.tools.benchmarks.peers.__main__ import PRESETS, main
from tests.tools.benchmarks.peers.processes import Failed, Task, Worker
from tests.tools.benchmarks.peers.sides import SIDES

pytestmark = pytest.mark.slow


def test_a_run_leaves_a_table_and_all_figures(tmp_path: Path) -> None:
    words = "tiny --only numpy-hand,pytensor,bound --rounds 2 --seconds 0.01 --threads 1"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    data = json.loads((tmp_path / "peers.json").read_text())
    assert [(c["workload"], c["rows"]) for c in data["comparisons"]] == [
        ("tiny", 0),
        ("tiny", 1),
        ("tiny", 32),
    ]
    for made in data["comparisons"]:
        assert {"numpy-hand", "bound"} <= {row["side"] for row in made["results"]}
        assert all(len(row["times"]) == 2 for row in made["results"])
    text = (tmp_path / "peers.md").read_text()
    assert "### tiny, training step at batch 32" in text
    assert "### tiny, inference at batch 1" in text


def test_runs_one_after_the_other_are_one_report(tmp_path: Path) -> None:
    words = "--only numpy-hand --rounds 2 --seconds 0.01 --threads 1 --modes train --out"
    for name in ("deep", "tiny"):
        assert main([name, *words.split(), str(tmp_path)]) == 0
    text = (tmp_path / "peers.md").read_text()
    assert text.index("### tiny, training step") < text.index("### deep, training step")


def test_modes_are_comparisons_of_their_own(tmp_path: Path) -> None:
    common = "tiny --only numpy-hand,bound --rounds 1 --threads 1 --modes train --out"
    words = [*common.split(), str(tmp_path)]
    assert main([*words, "--seconds", "0.01"]) == 0
    assert main([*words, "--seconds", "0.05", "--every", "5", "--beside", "1"]) == 0
    data = json.loads((tmp_path / "peers.json").read_text())
    plain, late = data["comparisons"]
    assert (plain["mode"], late["mode"]) == ("", ", beside 1 busy processes, every 5 ms")
    assert [len(row["late"]) for row in late["results"]] == [3, 0]
    assert not any(row["late"] for row in plain["results"])


def test_quick_begins_nothing_after_its_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--minutes", "0", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in lines} == set(PRESETS["quick"]["workloads"])
    assert all(line.endswith("left out, 0 minutes are over") for line in lines)


@pytest.mark.parametrize("side", ["graphc", "onnxruntime", "openvino", "torch-foreach"])
def test_sides_read_an_exported_network(
    side: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("torchvision", *([] if side == "graphc" else [SIDES[side].package]))
    words = f"tcn --only {side} --rounds 1 --seconds 0.01 --threads 1"
    assert main([*words.split(), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "peers.md").read_text()
    assert "### tcn, inference at batch 8" in text, capsys.readouterr().out


def test_a_missing_package_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "python_for", lambda side, pythons: None)
    assert main(["tiny", "--only", "jax", "--threads", "1", "--out", str(tmp_path)]) == 0
    assert "jax on 1 thread: skipped, jax is not installed" in capsys.readouterr().out


def test_a_process_that_ends_says_why() -> None:
    worker = Worker(Task("numpy", 1, "no such workload"), sys.executable)
    with worker, pytest.raises(Failed, match="KeyError"):
        worker.answer(60)
