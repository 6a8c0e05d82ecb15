"""The states of a population: rows of one block, each the state of a member."""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.backend import Call, Spread
from graphc.base.errors import OutOfMemoryError, StateError
from graphc.compiler.plan import Plan
from graphc.compiler.sizes import layout
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.runtime.entry import StateLock
from graphc.runtime.parameters import ByName, Hyper
from graphc.runtime.state import State, large_block, readonly


class MemberStates:
    """The states of members, in one block of memory and under one lock.

    A member that leaves keeps its place, so that executors of the others stay valid.
    """

    def __init__(self, plan: Plan, seeds: Sequence[int]) -> None:
        self.plan = plan
        self._offsets, self.stride = layout(plan.state_nodes)
        self.lock = StateLock()
        try:
            self.memory = large_block(len(seeds) * self.stride).reshape(len(seeds), self.stride)
            self.states = [
                State(plan.state_nodes, seed, self.lock, row)
                for seed, row in zip(seeds, self.memory, strict=True)
            ]
        except MemoryError:
            raise OutOfMemoryError(
                f"there is not enough memory for {len(seeds):,} members, "
                f"each of {self.stride:,} bytes",
                hint="make fewer, or a smaller net",
            ) from None
        self.spread = {
            name: Spread(self.memory, "state", self.stride, offset)
            for name, offset in self._offsets.items()
        }
        """The arrays of the states, for runs side by side."""
        self.places: NDArray[np.intp] = np.arange(len(seeds))
        """The row of each member."""

    def __len__(self) -> int:
        return len(self.places)

    def state(self, member: int) -> State:
        """Return the state of a member."""
        return self.states[int(self.places[member])]

    def view(self, name: str) -> Array:
        """Return an array of the states of all places, of which the first axis are the places."""
        node = self.plan.state_nodes[name]
        shape = shape_at(node.type.shape, 1)
        inner = np.empty(shape, node.type.dtype)
        strides = self.stride, *inner.strides
        whole = len(self.memory), *shape
        return np.ndarray(whole, inner.dtype, self.memory, self._offsets[name], strides)

    def read(self, name: str) -> Array:
        """Return a copy of an array of all members."""
        return self.lock(lambda: self.view(name)[self.places])

    def assign(self, values: Mapping[str, Any]) -> None:
        """Set arrays of all members, after which the states are not broken if these are all.

        Raise StateError if a value does not fit; then nothing is written.
        """
        lacking = self.plan.state_nodes.keys() - values.keys()
        if self.lock.broken and lacking:
            raise StateError(
                f"states that failed half-way are replaced as a whole, {min(lacking)!r} is missing",
                hint="assign all of a state saved before: saved = dict(population.state)",
            )
        ready = {name: self._fit(name, value) for name, value in values.items()}
        self.lock(self._write, [partial(self._put, *each) for each in ready.items()])

    def _fit(self, name: str, value: Any) -> Array:
        """Return the arrays of all members; raise StateError for the first that does not fit."""
        array = np.asarray(value)
        if not array.ndim or len(array) != len(self):
            raise StateError(
                f"{name!r} is set for {len(self)} members, the value has shape {array.shape}",
                hint="its first axis numbers the members",
            )
        return np.stack([self.state(i).fit(name, row) for i, row in enumerate(array)])

    def _put(self, name: str, value: Array) -> None:
        self.view(name)[self.places] = value

    def _write(self, writes: Sequence[Call]) -> None:
        self.lock.writing = True
        self.lock.write(writes)

    def copy(self, source: int, target: int) -> None:
        """Let a member take the whole state of another, while the caller holds the lock."""
        self.lock.begin(writes=True)
        here, there = self.places[source], self.places[target]
        self.lock.write([partial(np.copyto, self.memory[there], self.memory[here])])
        self.state(target).seed = self.state(source).seed


class Stacked(ByName[Array]):
    """Arrays of all members by name, with the members as first axis.

    Reading one copies it, assigning sets it.

    Parameters
    ----------
    members
        The states of the members.
    names
        The names of the arrays.
    what
        The noun for one of them in errors, such as "parameter".

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3, name="line"))
    >>> population = gc.Population(gc.compile(net, batch=32), members=4)
    >>> population.parameters["line.weight"].shape
    (4, 2, 3)
    >>> population.parameters["line.bias"] = np.zeros((4, 3))
    """

    def __init__(self, members: MemberStates, names: Collection[str], what: str) -> None:
        self._members, self._names, self._what = members, names, what

    def __getitem__(self, name: str) -> Array:
        self._check(name)
        return self._members.read(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._check(name)
        self._members.assign({name: value})

    def _check(self, name: str) -> None:
        """Raise UnknownName unless an array has this name."""
        if name not in self._names:
            raise self._unknown(self._what, name)


class MemberHyper(ByName[Array], MutableMapping[str, Array]):
    """The hyper-parameters of all members by name; `population.hyper` makes it.

    Reading one gives a read-only copy, a number for each member.  Assign such an array, or one
    number for all; `population[3].hyper` has those of one member.

    Parameters
    ----------
    members
        The states of the members.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> loss = net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 2)), 1)))
    >>> plan = gc.compile(net, batch=32, optimizer=gc.SGD(lr=0.5))
    >>> population = gc.Population(plan, members=3)
    >>> population.hyper["lr"] = [0.5, 0.25, 0.125]
    >>> population[1].hyper["lr"]
    0.25
    """

    def __init__(self, members: MemberStates) -> None:
        self._members = members
        self._one = Hyper(members.plan, members.states[0])
        self._names = tuple(self._one)

    def __getitem__(self, name: str) -> Array:
        return readonly(self._members.read(self._one.state_of(name)))

    def __setitem__(self, name: str, value: Any) -> None:
        state, count = self._one.state_of(name), len(self._members)
        numbers = list(value) if np.ndim(value) else [value] * count
        if len(numbers) != count:
            raise StateError(
                f"hyper-parameter {name!r} has {len(numbers)} values for {count} members",
                hint="give one number for each member, or one for all",
            )
        checked = np.array([self._one.fit(name, number) for number in numbers])
        self._members.lock(self._members.view(state).__setitem__, self._members.places, checked)

    def __delitem__(self, name: str) -> None:
        del self._one[name]
