"""A member of a population in training: its rows, its callbacks, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from graphc.ir.op import Array
from graphc.train.callbacks import Callback, saved_arrays
from graphc.train.history import LOG, History, Position
from graphc.train.members.rows import Rows


@dataclass
class Member:
    """A member of a population in training."""

    number: int
    """The number among the members of this rank."""
    epochs: int
    callbacks: tuple[Callback, ...] = ()
    rows: Rows | None = None
    """The rows it trains on; None for all."""
    held: Rows | None = None
    """The rows it validates on, of the arrays that all members share; None if there are none."""
    seed: int | None = None
    """The seed of the order of its rows; None if they are not shuffled."""
    before: int = 0
    """The number of members of the ranks before this one."""
    history: History = field(default_factory=History)
    at: Position = field(default_factory=Position)
    saved: Mapping[str, Array] = field(default_factory=dict)
    """The arrays of its callbacks in the checkpoint that it continues from."""
    failed: bool = False
    """True if it was stopped because a number is not finite."""

    @property
    def overall(self) -> int:
        """The number among the members of all ranks."""
        return self.before + self.number

    @property
    def runs(self) -> bool:
        """True if it has neither ended nor stopped."""
        return self.at.epoch <= self.epochs and not self.history.stopped

    @property
    def notes(self) -> dict[str, Any]:
        """The position, the history, and whether it has failed, for JSON."""
        return {"at": asdict(self.at), "history": asdict(self.history), "failed": self.failed}

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays of its callbacks, for a checkpoint of all members."""
        saved = saved_arrays(self.callbacks)
        return {f"{self.overall}/{name}": array for name, array in saved.items()}

    def resume(self, notes: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Continue from its notes, and from its own among the arrays of all members."""
        self.at, self.history = Position(**notes["at"]), History(**notes["history"])
        self.failed = bool(notes["failed"])
        start = f"{self.overall}/"
        self.saved = {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}

    def count(self, rows: Sequence[int], losses: Sequence[float], shares: Sequence[float]) -> None:
        """Count finished steps, up to the first whose loss is not finite."""
        if all(map(isfinite, losses)):
            return self.at.count_all(rows, losses, shares)
        done = next(i for i, loss in enumerate(losses) if not isfinite(loss))
        self.at.count_all(rows[:done], losses[:done], shares[:done])
        return self.fail(f"the loss is {losses[done]:g}")

    def fail(self, what: str) -> None:
        """Stop it for good because a number is not finite."""
        self.failed = True
        self.history.stopped = f"{what} in epoch {self.at.epoch}, step {self.at.step + 1}"
        LOG.warning("member %d stopped: %s", self.overall, self.history.stopped)
