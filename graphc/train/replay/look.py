"""The parts by which two runs are compared: digests of each step, and the nodes of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphc.ir.op import Array, Op
from graphc.ir.text.graph import node_text
from graphc.ops.source import Constant
from graphc.train.record.digests import digest
from graphc.train.record.folder import About
from graphc.train.record.journal import Journal
from graphc.train.replay.values import Part, StepValues
from graphc.train.replay.walk import Walk


@dataclass(frozen=True)
class Seen:
    """A node for comparison: its text, and the part of the step that it belongs to."""

    text: str
    part: Part


@dataclass(frozen=True)
class Look:
    """The nodes of a step in the order of the plan, and their values.

    `data_rows` are the indices in the data of the rows of the batch, None for unknown ones.
    """

    epoch: int
    nodes: Mapping[str, Seen]
    values: Mapping[str, Array]
    data_rows: Sequence[int | None]


@dataclass(frozen=True)
class Digests:
    """The digests of loss and whole state after each of some steps.

    `unlike` is the first step whose result differs from the record.
    """

    steps: Sequence[int]
    unlike: int | None


class Side(Protocol):
    """A recorded run that can be run again."""

    @property
    def path(self) -> Path:
        """The folder of the run."""

    @property
    def about(self) -> About:
        """The description of the run."""

    @property
    def journal(self) -> Journal:
        """The recorded steps of the run."""

    def digests(self, start: int, stop: int) -> Digests:
        """Return the digests of the steps after `start`, up to `stop`."""

    def look(self, step: int) -> Look:
        """Return the nodes of a step."""


class Here:
    """A recorded run that is run again in this process."""

    def __init__(self, run: str | Path, data: Any = None, ops: Sequence[type[Op]] = ()) -> None:
        self._walk = Walk(run, data, ops)
        self.path, self.about = self._walk.folder.path, self._walk.about
        self.journal = self._walk.journal

    def digests(self, start: int, stop: int) -> Digests:
        """Return the digests of the steps after `start`, up to `stop`."""
        walk, found = self._walk, []
        walk.to(start + 1)
        for _ in range(start, stop):
            rows, feeds = walk.batch()
            loss = walk.ex.step(feeds)
            walk.done(rows, feeds, loss)
            found.append(digest([np.float64(loss).tobytes(), *walk.digest.parts]))
        return Digests(found, walk.unlike)

    def look(self, step: int) -> Look:
        """Return the nodes of a step."""
        walk = self._walk
        walk.to(step)
        rows, feeds = walk.batch()
        epoch, batch = walk.at.epoch, walk.at.step
        places = [walk.source.row(epoch, batch, row) for row in range(rows)]
        values = StepValues(walk.ex, feeds)
        nodes = [node for node in values.nodes.values() if not isinstance(node.op, Constant)]
        return Look(
            epoch,
            {node.name: Seen(node_text(node), values.part(node.name)) for node in nodes},
            {node.name: values[node.name] for node in nodes},
            places,
        )
