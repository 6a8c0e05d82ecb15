"""A whole comparison, in processes, on a side that is always there; its times are not looked at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.peers import processes
from tests.benchmarks.peers.__main__ import main
from tests.benchmarks.peers.processes import Failed, Task, Worker

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
