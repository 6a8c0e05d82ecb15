"""The repetition of any step of a recorded run, and the first difference of two runs."""

from __future__ import annotations

from graphc.train.replay.compare import RunDifference, compare_runs
from graphc.train.replay.step import Replay, replay

__all__ = ["Replay", "RunDifference", "compare_runs", "replay"]
