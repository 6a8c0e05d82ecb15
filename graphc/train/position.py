"""The position of a run of training: all that it needs, besides the state, to continue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """The next step of a run, and the sums over its epoch so far."""

    epoch: int = 1
    step: int = 0
    """The number of steps of the epoch that are done."""
    steps: int = 0
    """The number of steps of all epochs that are done."""
    rows: int = 0
    """The number of rows of the epoch that were trained on."""
    total: float = 0.0
    """The sum of the losses of the epoch, each times its share."""
    shares: float = 0.0
    """The sum of the shares, which are the weights of the losses in the mean."""
    seconds: float = 0.0
    """The seconds that the epoch has taken so far."""

    @property
    def loss(self) -> float:
        """The mean loss of the epoch."""
        return self.total / self.shares

    def count(self, rows: int, loss: float, share: float) -> None:
        """Count a finished step whose loss has the weight `share` in the mean."""
        self.total += share * loss
        self.shares += share
        self.rows += rows
        self.step += 1
        self.steps += 1

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.step, self.rows, self.total, self.shares, self.seconds = 0, 0, 0.0, 0.0, 0.0
