"""The comparison of precisions compares what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tools.benchmarks import precision
from tests.tools.benchmarks.precision import Runs, agree, losses, scores


def test_losses_agree_within_the_deviation_of_seeds() -> None:
    one = np.array([1.0, 2.0, 3.0])  # its deviation is 1
    assert agree(one, one + 0.9)
    assert not agree(one, one - 1.1)


def test_a_row_has_the_difference_of_the_runs_of_one_seed() -> None:
    loss = np.array([[2.0, 0.5], [2.0, 0.7]])
    one, other = Runs(np.array([96.0, 98.0]), loss), Runs(np.array([96.5, 98.5]), loss)
    assert scores(one, other) == "97.00 ± 1.41 | 97.50 ± 1.41 | +0.50 ± 0.00"
    assert losses(one, other, one) == " | ".join(["0.6000 ± 0.1414"] * 3 + ["yes"])


def test_a_run_is_kept_and_its_score_is_a_percentage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = precision.digits()._replace(epochs=2)
    monkeypatch.setitem(precision.TASKS, "digits", lambda: digits)
    for side in precision.PRECISIONS:
        for seed in range(2):
            precision.run("digits", side, seed, precision.kept(tmp_path, "digits", side, seed))
    sides = [Runs.of("digits", side, tmp_path, seeds=2) for side in precision.PRECISIONS]
    for one in sides:
        assert one.loss.shape == (2, 2)
        assert (one.loss[:, 1] < one.loss[:, 0]).all()
        assert ((one.score > 20) & (one.score <= 100)).all()
    assert len({one.loss.tobytes() for one in sides}) == 3
