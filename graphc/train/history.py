"""The history of training: the numbers of each epoch, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class History:
    """The numbers of training: lists with one entry per epoch.

    `loss` is the mean over the rows while the weights changed, masks included; `val_loss` and
    `metrics`, the other scalar outputs, are those of the validation data after the epoch.
    Without validation data they are empty.  If a loss is a mean by the weights of rows, so is
    the mean over batches.  `seconds` counts an epoch and its validation.
    """

    epochs: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    stopped: str = ""
    """The reason why training ended before its last epoch, or ""."""

    def add(
        self, loss: float, seconds: float, val_loss: float | None, metrics: dict[str, float]
    ) -> None:
        """Add the numbers of an epoch."""
        self.epochs.append(len(self.epochs) + 1)
        self.loss.append(loss)
        self.seconds.append(seconds)
        if val_loss is not None:
            self.val_loss.append(val_loss)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def last(self) -> dict[str, float]:
        """Return the numbers of the last epoch by name, without the time."""
        return {name: values[-1] for name, values in self._columns() if values}

    def column(self, name: str) -> list[float]:
        """Return the numbers of that name, one per epoch; raise KeyError if there are none."""
        return dict(self._columns())[name]

    def plot(self, path: str | Path) -> Path:
        """Draw the learning curve to a PNG file, or to the format of the suffix.

        Raise GraphError if matplotlib is missing or does not draw that format.
        """
        from graphc.view.plots.learning_curve import learning_curve

        return learning_curve(self, path)

    def __str__(self) -> str:
        columns = [("epoch", [str(epoch) for epoch in self.epochs])]
        columns.extend((name, [_number(v) for v in values]) for name, values in self._columns())
        columns.append(("seconds", [f"{value:.2f}" for value in self.seconds]))
        widths = [max(map(len, (name, *cells))) for name, cells in columns]
        rows = [[name for name, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
        lines = ("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(lines)

    def _columns(self) -> Iterator[tuple[str, list[float]]]:
        yield "loss", self.loss
        if self.val_loss:
            yield "val_loss", self.val_loss
        yield from self.metrics.items()


def _number(value: float) -> str:
    """Return a number with four digits after the point, or in scientific notation."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"
