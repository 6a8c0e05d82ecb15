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
    rows: int = 0
    """The rows of the epoch that were trained on."""
    total: float = 0.0
    """The losses of the epoch, each times its share."""
    shares: float = 0.0
    """What these losses count in the mean, in all."""
    seconds: float = 0.0
    """What the epoch has taken so far."""

    @property
    def loss(self) -> float:
        """The mean loss of the epoch."""
        return self.total / self.shares

    def count(self, rows: int, loss: float, share: float) -> None:
        """A step has been made, whose loss counts as much in the mean."""
        self.total += share * loss
        self.shares += share
        self.rows += rows
        self.step += 1
        self.steps += 1

    def next_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch += 1
        self.step, self.rows, self.total, self.shares, self.seconds = 0, 0, 0.0, 0.0, 0.0
