"""Where a run of training is: all that is needed, beside the state, to go on from there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """The next step of a run, and what has been summed up in its epoch so far."""

    epoch: int = 1
    step: int = 0
    """The steps of the epoch that are done."""
    steps: int = 0
    """The steps of all epochs that are done."""
    total: float = 0.0
    """The losses of the epoch, each times its rows."""
    rows: int = 0
    """The rows of the epoch that were trained on."""
    seconds: float = 0.0
    """What the epoch has taken so far."""

    def count(self, rows: int, loss: float) -> None:
        """A step has been made."""
        self.total += rows * loss
        self.rows += rows
        self.step += 1
        self.steps += 1

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch += 1
        self.step, self.total, self.rows, self.seconds = 0, 0.0, 0, 0.0
