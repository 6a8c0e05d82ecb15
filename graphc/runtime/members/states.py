"""The states of a population: rows of one block, each the state of a member.

Of ranks, each has the states of successive members, near-equally many.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from copy import copy
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.backends.backend import Spread
from graphc.base.arguments import array_of, checked_whole, listed, plain
from graphc.base.errors import OutOfMemoryError, RankError, StateError
from graphc.base.memory import check_memory
from graphc.compiler.plan import Plan
from graphc.compiler.sizes import layout
from graphc.ir.op import Array
from graphc.runtime.distributed.agreement import check_equal, on_all_ranks
from graphc.runtime.distributed.communicator import Communicator, Solo
from graphc.runtime.distributed.step import bounds
from graphc.runtime.entry import StateLock
from graphc.runtime.parameters import ByName, Hyper
from graphc.runtime.state import State, large_block, readonly

OBJECT, ARRAY = 512, 128
"""The bytes that Python takes at least for a state and for each of its arrays."""


class MemberStates:
    """The states of the members that this rank holds, in one block of memory and under one lock.

    A member that leaves keeps its place, so that executors of the others stay valid.
    """

    def __init__(self, plan: Plan, seeds: Sequence[int], ranks: Communicator) -> None:
        self.plan, self.ranks = plan, ranks
        self._share(len(seeds))
        seeds = seeds[self.own.start : self.own.stop]
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
        """The row of each member that this rank holds."""

    def _share(self, count: int) -> None:
        """Let ranks hold near-equally many of so many members, the first ones more."""
        size = self.ranks.size
        self.shared = size > 1
        """True if other ranks hold members, too."""
        self._ends = [bounds(count, size, rank)[1] for rank in range(size)]
        self.own = range(*bounds(count, size, self.ranks.rank))
        """The numbers of the members that this rank holds."""

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, member: int) -> int:
        """Return the row of a member; raise StateError if another rank holds it."""
        if member not in self.own:
            raise StateError(
                f"member {member} is on rank {self._rank(member)}, this is rank {self.ranks.rank}",
                hint="population.local has the members that are here, population.parameters and "
                "population.state have the arrays of all",
            )
        return int(self.places[member - self.own.start])

    def _rank(self, member: int) -> int:
        return bisect_right(self._ends, member)

    def number(self, member: Any) -> int:
        """Return the number of a member; raise StateError if there is none, counted from an end."""
        if type(member) is int and 0 <= member < len(self):
            return member
        number = checked_whole("member", member, None, hint="population[0]", error=StateError)
        if not -len(self) <= number < len(self):
            raise StateError(
                f"there is no member {number}",
                hint=f"a population of {len(self)} has 0 to {len(self) - 1}",
            )
        return number % len(self)

    def numbers(self, members: Sequence[int] | None) -> list[int]:
        """Return the numbers of some members, all for None; raise StateError unless they differ."""
        if members is None:
            return list(range(len(self)))
        numbers = [self.number(member) for member in listed(members) or ()]
        if not numbers:
            raise StateError(
                f"members is {members!r}, not the numbers of some members",
                hint="a list of one or more: [0, 2]",
            )
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise StateError(f"member {twice} is named twice", hint="name each member once")
        return numbers

    def state(self, member: int) -> State:
        """Return the state of a member that this rank holds."""
        return self.states[self.place(member)]

    def local(self) -> MemberStates:
        """Return the members that this rank holds as all members there are."""
        found = copy(self)
        found.ranks = Solo()
        found._share(len(self.own))
        return found

    # ------------------------------------------------------------------ ranks

    def agreed(self, work: Callable[[], Any]) -> Any:
        """Return what `work` gives here; if it fails on one rank, all raise."""
        found: list[Any] = []
        on_all_ranks(self.ranks, lambda: found.append(work()))
        return found[0]

    def gathered(self, numbers: Sequence[int], work: Callable[[Sequence[int]], Any]) -> Any:
        """Return what `work` gives for members, in the order of these numbers, on all ranks.

        Each rank works for those that it holds.  The result is an array whose first axis are the
        members, or several by name.  If it fails on one rank, all raise.
        """
        if not self.shared:
            return work(numbers)
        mine = [number for number in numbers if number in self.own]
        parts = on_all_ranks(self.ranks, lambda: work(mine) if mine else None)
        order = np.argsort(np.argsort(list(map(self._rank, numbers)), kind="stable"))
        return _joined([part for part in parts if part is not None], order)

    def written(self, numbers: Sequence[int], work: Callable[[Sequence[int]], Any]) -> Any:
        """Return what `gathered` does, for work that writes: all states are broken if it fails."""
        try:
            return self.gathered(numbers, work)
        except RankError:
            self.lock.broken = True
            raise

    def view(self, name: str) -> Array:
        """Return an array of the states of all places, of which the first axis are the places."""
        one = self.states[0].arrays[name]
        shape, strides = (len(self.memory), *one.shape), (self.stride, *one.strides)
        return np.ndarray(shape, one.dtype, self.memory, self._offsets[name], strides)

    def read(self, name: str) -> Array:
        """Return a copy of an array of all members."""
        copied = self.view(name).__getitem__
        found: Array = self.gathered(range(len(self)), lambda _: self.lock(copied, self.places))
        return found

    def seeds(self) -> list[int]:
        """Return the seeds of all members."""
        parts = on_all_ranks(self.ranks, lambda: [self.state(i).seed for i in self.own])
        return [seed for seeds in parts for seed in seeds]

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
        self.write(ready, mends=True)

    def _fit(self, name: str, value: Any) -> Array:
        """Return the arrays of all members; raise StateError for the first that does not fit."""
        array = array_of(repr(name), value, StateError)
        if not array.ndim or len(array) != len(self):
            raise StateError(
                f"{name!r} is set for {len(self)} members, the value has shape {array.shape}",
                hint="its first axis numbers the members",
            )
        return np.stack([self.states[0].fit(name, row) for row in array])

    def write(self, ready: Mapping[str, Array], mends: bool = False) -> None:
        """Set arrays of all members that fit, of which this rank takes those of its own."""
        own = slice(self.own.start, self.own.stop)
        writes = [
            partial(self.view(name).__setitem__, self.places, value[own])
            for name, value in ready.items()
        ]
        self.lock(self.states[0].write, writes, mends)

    def keep(self, members: Sequence[int]) -> Collection[int]:
        """Keep members in this order, shared anew by ranks; return the rows that have others now.

        Those that stay on their rank stay in their rows.
        """
        owners = list(map(self._rank, members))
        held = {member: self.place(member) for member in members if member in self.own}
        self._share(len(members))
        leaves = (self._rank(new) != owner for new, owner in enumerate(owners))
        moved = list(compress(members, leaves))
        sent = {member: self._whole(held.pop(member)) for member in moved if member in held}
        arrived = ChainMap(*self.ranks.gather(sent)) if moved else {}
        free = iter(sorted({*range(len(self.states))} - {*held.values()}))
        mine = [members[new] for new in self.own]
        rows = {member: next(free) for member in mine if member not in held}
        for member, row in rows.items():
            self._put_whole(row, arrived[member])
        self.places = np.array([(held | rows)[member] for member in mine], np.intp)
        return rows.values()

    def _whole(self, row: int) -> tuple[int, Array]:
        """Return a copy of a whole state, and its seed."""
        return self.states[row].seed, self.memory[row].copy()

    def _put_whole(self, row: int, whole: tuple[int, Array]) -> None:
        seed, memory = whole
        self.states[row].write([partial(np.copyto, self.memory[row], memory)])
        self.states[row].seed = seed

    def copy(self, source: int, target: int) -> None:
        """Let a member take the whole state of another, while the caller holds the lock."""
        self.lock.begin(writes=True)
        owner = self._rank(source)
        whole = self._whole(self.place(source)) if source in self.own else None
        if owner != self._rank(target):
            whole = self.ranks.gather(whole)[owner]
        if whole is not None and target in self.own:
            self._put_whole(self.place(target), whole)


def _joined(parts: Sequence[Any], order: NDArray[np.intp]) -> Any:
    """Return the arrays of all ranks as one, with its members in this order; or those by name."""
    if isinstance(parts[0], Mapping):
        return {name: _joined([part[name] for part in parts], order) for name in parts[0]}
    return np.concatenate(parts)[order]


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
        self._members.write({state: np.array([self._one.fit(name, one) for one in numbers])})

    def __delitem__(self, name: str) -> None:
        del self._one[name]


def check_ranks(ranks: Communicator, plan: Plan, seeds: Sequence[int]) -> None:
    """Raise StateError or RankError if ranks cannot share the members, or make other ones."""
    if plan.shards is not None:
        raise StateError(
            f"the plan cuts a batch for {plan.ranks} ranks, and ranks share the members here",
            hint="gc.compile without ranks= and shards=: each member trains on one rank",
        )
    check_equal(ranks, plan, {"members": len(seeds), "seeds": tuple(seeds)})
    if len(seeds) < ranks.size:
        raise RankError(
            f"there are {len(seeds)} members for {ranks.size} ranks",
            hint="make more, or start fewer ranks: each holds one or more",
        )


def checked_seeds(plan: Plan, members: int | None, seeds: Sequence[int] | None) -> Sequence[int]:
    """Return the seed of each member; raise StateError if there are too few or none.

    Raise OutOfMemoryError for more members than the machine has memory for.
    """
    hint = "gc.Population(plan, members=64), or seeds=[0, 1, 2]"
    if seeds is None:
        if members is None:
            raise StateError("Population needs the number of its members", hint=hint)
        count = checked_whole("members", members, hint=hint, error=StateError)
        objects = OBJECT + ARRAY * len(plan.state_nodes)
        check_memory(count, "member", layout(plan.state_nodes)[1] + objects, "make fewer")
        return range(count)
    found = listed(seeds)
    if not found:
        raise StateError(f"seeds is {seeds!r}, not a list of whole numbers", hint=hint)
    if members is not None and plain(members) != len(found):
        raise StateError(
            f"there are {len(found)} seeds for {members} members", hint="give one for each member"
        )
    return [checked_whole("seed", seed, None, hint=hint, error=StateError) for seed in found]
