"""Replay buffers: the last rows that were added, of which training takes batches at random."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from graphc.base.arguments import array_of, checked_whole
from graphc.base.errors import FeedError, GraphError
from graphc.base.memory import check_memory
from graphc.compiler.plan import Plan
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ir.tensor_type import N, shape_at
from graphc.runtime import errors
from graphc.runtime.feeds import Feed, FeedCheck, feeds_of, merged

_FEWER = "draw fewer: a step takes the rows of a batch"


class ReplayBuffer:
    """The last rows that were added, in memory of its own, of which steps take some at random.

    It has an array for each input of the plan that has rows, of the input's dtype.  So rows are
    converted and checked once, when they are added.  Pickling keeps the rows and the draws.

    Parameters
    ----------
    plan
        What `gc.compile` returned.
    capacity
        How many rows it holds; each more replaces the oldest.
    seed
        The seed of its draws.

    Raises
    ------
    StateError
        If there is no plan.
    GraphError
        If the capacity is not a whole number from 1 up, no input has rows, or one has them on
        another axis than the first.

    Examples
    --------
    >>> net = gc.Net("critic")
    >>> x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,))
    >>> loss = net.loss("loss", gc.mse_loss(gc.reshape(gc.affine(x, 1), (gc.N,)), y))
    >>> plan = gc.compile(net, batch=32, optimizer=gc.Adam(lr=0.01))
    >>> buffer = gc.ReplayBuffer(plan, 1000)
    >>> for number in range(5):
    ...     buffer.add(x=np.full(3, number), y=number)
    >>> len(buffer), buffer.sample(32)["x"].shape
    (5, (32, 3))
    >>> ex = gc.Executor(plan)
    >>> losses = [ex.step(buffer.sample(32)) for _ in range(3)]
    """

    def __init__(self, plan: Plan, capacity: SupportsIndex, *, seed: int = 0) -> None:
        if not isinstance(plan, Plan):
            raise errors.no_plan(plan, "ReplayBuffer")
        self.capacity = checked_whole("ReplayBuffer: capacity", capacity)
        graph = plan.declared
        nodes = [graph[name] for name in plan.input_names if graph[name].type.batched]
        for node in nodes:
            if node.type.shape[:1] != (N,) or node.type.pairs_rows:
                raise GraphError(
                    f"ReplayBuffer: input {node.name!r} is {node.type}",
                    hint="its rows must be entries of the first axis, (gc.N, ...)",
                )
        if not nodes:
            raise GraphError(f"ReplayBuffer: no input of net {graph.name!r} has rows")
        program = plan.programs["grad" if "grad" in plan.programs else "infer"]
        read = feeds_of(program, plan)
        feeds = {
            node.name: read[node.name] if node.name in read else Feed(node, None) for node in nodes
        }
        row = sum(node.type.nbytes(1) for node in nodes)
        check_memory(self.capacity, "row", row, "ReplayBuffer: take a smaller capacity")
        self._ranks = {node.name: node.type.rank for node in nodes}
        self._check = FeedCheck(feeds, self.capacity)
        self._arrays = {
            node.name: np.zeros(shape_at(node.type.shape, self.capacity), node.type.dtype)
            for node in nodes
        }
        self._added = 0
        self._words = generator(checked_whole("ReplayBuffer: seed", seed, None), "replay buffer")

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The memory by the names of inputs, read-only, `capacity` rows; the first are filled."""
        views = {name: array.view() for name, array in self._arrays.items()}
        for view in views.values():
            view.setflags(write=False)
        return views

    @property
    def nbytes(self) -> int:
        """The bytes of the rows that it can hold."""
        return sum(array.nbytes for array in self._arrays.values())

    def add(self, feeds: Mapping[str, Any] | None = None, /, **by_name: Any) -> None:
        """Add rows, in place of the oldest if there is no room.

        Parameters
        ----------
        feeds, **by_name
            Arrays by the names of inputs: equally many rows of each, or one without its axis.

        Raises
        ------
        FeedError
            If an array does not fit its input; then nothing is added.
        """
        given = merged(feeds, by_name)
        for name in given.keys() & self._ranks.keys():
            with suppress(ValueError):  # rows of different lengths: the check says so
                if np.ndim(given[name]) == self._ranks[name] - 1:
                    given[name] = array_of(f"input {name!r}", given[name])[None]
        checked, count = self._check.arrays(given, limit=False)
        kept = min(count, self.capacity)
        self._added += count
        places = np.arange(self._added - kept, self._added) % self.capacity
        for name, array in checked.items():
            self._arrays[name][places] = array[count - kept :]

    def draw(self, count: SupportsIndex) -> NDArray[np.int64]:
        """Draw the numbers of rows, each equally likely; one may come several times.

        Parameters
        ----------
        count
            How many numbers.

        Returns
        -------
        ndarray
            Rows of `arrays`.  The same seed and number of draws give the same, on every machine.

        Raises
        ------
        FeedError
            If no rows were added.
        """
        if not self._added:
            raise FeedError(
                "the replay buffer has no rows", hint="add some first: buffer.add(x=..., y=...)"
            )
        number = checked_whole("draw: count", count)
        check_memory(number, "row number", 3 * 8, _FEWER)  # words, products and numbers
        words = self._words.bit_generator.random_raw(number)
        rows = (words >> np.uint64(32)) * np.uint64(len(self)) >> np.uint64(32)
        return rows.astype(np.int64)

    def sample(self, count: SupportsIndex) -> dict[str, Array]:
        """Return the rows of a new draw, to be fed to a step.

        Parameters
        ----------
        count
            How many rows.

        Returns
        -------
        dict
            An array by the name of each input, in the input's dtype, which is read without a copy.

        Raises
        ------
        FeedError
            If no rows were added.
        """
        row = sum(array[0].nbytes for array in self._arrays.values())
        check_memory(checked_whole("draw: count", count), "row", row, _FEWER)
        rows = self.draw(count)
        return {name: array.take(rows, 0) for name, array in self._arrays.items()}
