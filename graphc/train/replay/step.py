"""replay(): runs one step of a recorded run again, to inspect the value of every node in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.graph import Node
from graphc.ir.numbers import checked_whole
from graphc.ir.op import Array, Op
from graphc.runtime.executor import Executor
from graphc.train.record.made_with import made_with
from graphc.train.replay.values import Part, StepValues
from graphc.train.replay.walk import Walk


class Replay:
    """A step that was run again.

    `ex` is as it was after the step, `before` the state before it, `feeds` its rows as they were
    fed.  `unlike` is the first step, of those run again, whose loss or state is not what was
    recorded; None if all are, so that every bit is as it was.
    """

    def __init__(self, walk: Walk, step: int) -> None:
        walk.to(step)
        rows, feeds = walk.batch()
        self.run, self.step, self.rows = walk.folder.path, step, rows
        self.epoch, self.batch = walk.at.epoch, walk.at.step + 1
        self.feeds = {name: np.array(array) for name, array in feeds.items()}
        self.data_rows = [walk.source.row(self.epoch, self.batch - 1, row) for row in range(rows)]
        """The index in the data of each row, or None if it is unknown."""
        self._values = StepValues(walk.ex, self.feeds)
        self.loss = self._values.loss
        walk.done(rows, self.feeds, self.loss)
        self.ex: Executor = walk.ex
        self.unlike = walk.unlike
        now = made_with(walk.ex.plan.backend)
        self.made_otherwise = walk.about.made_with.differences(now)
        """The differences, as texts, between what the run was made with and what this is made with.
        """

    @property
    def before(self) -> Mapping[str, Array]:
        """The state from before the step."""
        return self._values.before

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the step in the order of the plan: data, state, values, gradients, updates.

        Next values of a state are called `NAME.next`.
        """
        return tuple(self._values.nodes.values())

    def value(self, name: str) -> Array:
        """Return the value of a node; raise GraphError for an unknown name."""
        self._check(name)
        return self._values[name]

    def node(self, name: str) -> Node:
        """Return the node of that name; raise GraphError for an unknown name."""
        self._check(name)
        return self._values.node(name)

    def part(self, name: str) -> Part:
        """Return a node's part: data, state, constant, forward, backward or update."""
        self._check(name)
        return self._values.part(name)

    def exact(self, name: str) -> bool:
        """Return whether `value` has the very bits of the step.

        It does not for nodes that were fused into others, which it computes by reference rules, and
        for a few numbers that are computed where they are used.
        """
        self._check(name)
        return self._values.exact(name)

    def _check(self, name: str) -> None:
        if name not in self._values:
            close = get_close_matches(name, list(self._values.nodes), 3)
            raise GraphError(
                f"step {self.step} has no node {name!r}",
                loc=caller_loc(),
                hint=f"did you mean {' or '.join(close)}?" if close else "replay.nodes lists them",
            )


def replay(run: str | Path, *, step: int, data: Any = None, ops: Sequence[type[Op]] = ()) -> Replay:
    """Run a step of a recorded run again, with the same bits.  Steps count from 1.

    It starts at the newest state before the step that the run has kept, and continues from there
    on the same rows in the same order.  `data` are those given to `fit`, needed if the run has
    not kept them; `ops` are the classes of the user's own ops.

    Raise ModelFileError for a folder that does not hold a whole run, GraphError for a step that it
    does not have or for other data.
    """
    number = checked_whole("replay: step", step)
    return Replay(Walk(run, data, ops), number)
