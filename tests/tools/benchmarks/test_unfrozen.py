"""The comparison of frozen plans with others compares what it says; nothing is timed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.benchmarks import unfrozen
from tests.tools.benchmarks.peers import outline
from tests.tools.benchmarks.peers.workloads import Chain, Workload
from tests.tools.benchmarks.unfrozen import Ratios, compared, in_fit, summary


def test_each_run_follows_what_is_done_before_it() -> None:
    done: list[str] = []
    sides = {
        name: (lambda name=name: done.append(f"before {name}"), lambda name=name: done.append(name))
        for name in ("frozen", "plan")
    }
    made = compared("net", 8, 1, sides, rounds=3)  # type: ignore[arg-type]
    assert [*made.others] == ["plan"]
    assert all(before == f"before {run}" for before, run in zip(done[::2], done[1::2], strict=True))
    assert done.count("plan") >= 5


def test_in_fit_the_weights_of_each_step_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    net = {"net": Workload(Chain((5, 7, 3)), 4)}
    for module in (outline, unfrozen):
        monkeypatch.setattr(module, "WORKLOADS", net)
    sides = dict(in_fit("net", 6, 1, None))
    shown = {name: run() for name, (_, run) in sides.items()}
    assert np.allclose(shown["frozen"], shown["predict"], atol=1e-5)
    for name, (step, run) in sides.items():
        step()
        assert (str(run()) == str(shown[name])) is (name == "frozen")


def test_the_summary_has_means_and_the_worst() -> None:
    made = [
        Ratios("one", 8, 1, 1.0, {"plan": 1.0}),
        Ratios("two", 32, 1, 1.0, {"plan": 1.5}),
        Ratios("two", 1, 2, 1.0, {"plan": 3.0}),
    ]
    assert [*summary(made)] == [
        "plan, 8 rows and more: mean 1.25, at most 1.50 (two)",
        "plan, fewer rows: mean 3.00, at most 3.00 (two)",
    ]
