"""Waiting for threads that still turn, on a clock of the test's own."""

from __future__ import annotations

import pytest

from graphc.view import times


class Process:
    """A process whose threads take a whole core for `busy` seconds of sleep."""

    def __init__(self, busy: float) -> None:
        self.busy, self.slept = busy, 0.0

    def process_time(self) -> float:
        return min(self.slept, self.busy)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize(("busy", "waited"), [(0.0, 0.005), (0.1, 0.105), (9.0, 0.3)])
def test_it_waits_until_nothing_works_but_not_for_ever(
    busy: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(busy)
    monkeypatch.setattr(times, "process_time", process.process_time)
    monkeypatch.setattr(times, "sleep", process.sleep)
    times.await_idle()
    assert process.slept == pytest.approx(waited)
