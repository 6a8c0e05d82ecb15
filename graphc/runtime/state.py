"""State: the named arrays that last between steps and that plans share.

Parameters lie side by side in declared order, then each kind of optimizer slot in the same
order, then running statistics, counters and hyper-parameters, all 64-byte aligned.  The
layout depends on nothing else, so that every plan of a net finds the same neighbours.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backends.backend import Call
from graphc.base.arguments import array_of
from graphc.base.docstrings import with_shared
from graphc.base.errors import StateError, UnknownName, close_names
from graphc.compiler.plan import Plan
from graphc.compiler.sizes import block_bytes, layout
from graphc.declare.optim.optimizer import Optimizer
from graphc.ir.graph import Node
from graphc.ir.init import FromArray, SameAs, generator
from graphc.ir.op import Array, Role
from graphc.ir.tensor_type import ALIGNMENT, TensorType
from graphc.ops.source import Parameter
from graphc.ops.source import State as StateOp
from graphc.runtime.entry import StateLock

if TYPE_CHECKING:
    from graphc.runtime.columns import Columns

LARGE = 2 << 20
"""The bytes of a large page."""
WORTH_A_PAGE = LARGE // 8
"""The fewest bytes for which `large_block` takes a large page."""
_ADVICE = 14  # MADV_HUGEPAGE


def advise_large_pages(block: Array) -> None:
    """Ask Linux for pages of 2 MB under a contiguous block of that size; it may ignore this."""
    if sys.platform != "linux" or block.nbytes < LARGE:
        return
    first = -(-block.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (block.ctypes.data + block.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise(first, end - first, _ADVICE)


def block(nbytes: int) -> Array:
    """Return zeroed bytes with 64-byte alignment, cut out of `block_bytes(nbytes)`."""
    raw = np.zeros(block_bytes(nbytes), np.uint8)
    start = -raw.ctypes.data % ALIGNMENT if nbytes else 0
    memory = raw[start : start + nbytes]
    advise_large_pages(memory)
    return memory


def large_block(nbytes: int) -> Array:
    """Return zeroed bytes, at the start of a page of 2 MB if they fill enough of it.

    This is for what every run reads.  Small pages lie anywhere in memory, so that some of them may
    keep others out of the cache.  Addresses beyond the bytes take no memory but the rest of a page.
    """
    if sys.platform != "linux" or nbytes < WORTH_A_PAGE:
        return block(nbytes)
    size = -(-nbytes // LARGE) * LARGE
    try:
        pages = mmap.mmap(-1, size + LARGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError from error
    memory = np.frombuffer(pages, np.uint8)
    start = -memory.ctypes.data % LARGE
    advise_large_pages(memory[start : start + size])
    return memory[start : start + nbytes]


@dataclass(frozen=True, slots=True)
class Owner:
    """An optimizer, and the parameters that it trains."""

    optimizer: Optimizer
    trained: frozenset[str]

    @classmethod
    def of(cls, plan: Plan) -> list[Owner]:
        """Return the owners of a plan's slots."""
        updates = plan.programs["apply"].graph.updates if plan.rules else ()
        return [cls(r.optimizer, frozenset(r.wrt).intersection(updates)) for r in plan.rules]

    def check(self, others: Iterable[Owner]) -> None:
        """Raise StateError if another optimizer of this name has other settings or parameters."""
        for other in others:
            if other.optimizer.name != self.optimizer.name or other == self:
                continue
            kind = type(self.optimizer).__name__
            raise StateError(
                f"plans that share a state share the rate, the counter and the slots of an "
                f"optimizer, and these two differ: {self._difference(other)}",
                hint=f"give one a name, so that it has its own numbers: gc.{kind}(..., name="
                f'"{"second" if not self.optimizer.name else self.optimizer.name + "2"}")',
            )

    def _difference(self, other: Owner) -> str:
        mine, known = self.optimizer, other.optimizer
        if type(mine) is not type(known):
            return f"this plan has {mine}, the other {known}"
        for field in fields(mine):
            here, there = getattr(mine, field.name), getattr(known, field.name)
            if here != there:
                return f"this plan's has {field.name}={here!r}, the other's {field.name}={there!r}"
        name = min(self.trained ^ other.trained)
        return (
            f"{name!r} is trained by {'this plan' if name in self.trained else 'the other'} alone"
        )


MOST_COUNTED = 2**62
"""The number that counters stay below, so that they never wrap."""


class State(Mapping[str, Array]):
    """Named arrays that last between steps; reading one gives a copy.

    Executors write them in place, and hold the `lock` while they run.

    Parameters
    ----------
    nodes
        The parameters and states to make, by name.
    seed
        The seed of initial parameters and random masks.
    lock
        The lock of several states that are written together; by default one of its own.
    memory
        The zeroed bytes for these arrays, 64-byte aligned; by default new ones.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3, name="line"))
    >>> ex = gc.Executor(gc.compile(net, batch=32))
    >>> list(ex.state)
    ['line.weight', 'line.bias', 'draws']
    >>> saved = dict(ex.state)
    >>> ex.state = saved
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        seed: int = 0,
        lock: StateLock | None = None,
        memory: Array | None = None,
    ) -> None:
        self.lock = StateLock() if lock is None else lock
        self.arrays: dict[str, Array] = {}
        self.roles: dict[str, Role] = {}
        """The role of each array."""
        self.seed = seed
        self.owners: list[Owner] = []
        """The optimizers whose rates, counters and slots are in this state."""
        self.columns: Columns | None = None
        """The names of the columns and classes of the table that the state was trained on, if any;
        model files keep them."""
        self.blocks: list[Array] = []
        """The memory that holds the arrays."""
        self.extend(nodes, memory)

    def extend(self, nodes: Mapping[str, Node], memory: Array | None = None) -> None:
        """Make the arrays that do not exist yet, with their initial values.

        Parameters
        ----------
        nodes
            Parameters and states by name.
        memory
            The bytes for them; by default new ones.

        Raises
        ------
        StateError
            If one exists in another shape or dtype; then none is made.
        """
        missing = {name: node for name, node in nodes.items() if name not in self.arrays}
        for name, node in nodes.items():
            if name not in missing:
                self._check(name, node.type)
        if not missing:
            return
        offsets, nbytes = layout(missing)
        memory = block(nbytes) if memory is None else memory
        made: dict[str, Array] = {}
        for name, node in missing.items():
            start = offsets[name]
            raw = memory[start : start + node.type.nbytes(1)]
            shape = tuple(dim for dim in node.type.shape if isinstance(dim, int))
            array = raw.view(node.type.dtype).reshape(shape)
            array[...] = initial_value(node, self.seed)
            made[name] = array
        self.blocks.append(memory)
        self.arrays.update(made)
        self.roles.update((name, node.op.role) for name, node in missing.items())

    def _check(self, name: str, type: TensorType) -> None:
        have = self.arrays[name]
        if have.shape != type.shape or have.dtype.name != type.dtype:
            raise StateError(
                f"the state holds {name!r} as {have.dtype.name}{list(have.shape)}, "
                f"the plan needs {type}",
                hint="share state between plans of one net",
            )

    @property
    def broken(self) -> bool:
        """True if a run that writes failed half-way, so that no number here can be trusted."""
        return self.lock.broken

    @property
    def nbytes(self) -> int:
        """The bytes of all blocks, alignment included."""
        return sum(block_bytes(len(memory)) for memory in self.blocks)

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            raise _unknown(name, self.arrays)
        return readonly(self.arrays[name])

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def copies(self, names: Iterable[str]) -> dict[str, Array]:
        """Copy some arrays while the caller holds the lock.

        Parameters
        ----------
        names
            The names of the arrays.

        Returns
        -------
        dict
            The copies by name.

        Raises
        ------
        StateError
            If the state is broken.
        """
        self.lock.begin(writes=False)
        return {name: self.arrays[name].copy() for name in names}

    @with_shared(copies.__doc__)
    def read(self, names: Iterable[str]) -> dict[str, Array]:
        """Copy some arrays, all of one moment."""
        return self.lock(self.copies, names)

    def assign(self, values: Mapping[str, Any]) -> None:
        """Set some arrays.

        Parameters
        ----------
        values
            The new values by name.

        Raises
        ------
        StateError
            If a value does not fit; then nothing is written.
        """
        self._write({name: self.fit(name, value) for name, value in values.items()})

    def restore(self, values: Mapping[str, Any], needed: Iterable[str], forget: Call) -> None:
        """Set arrays, after which the state is not broken; an interrupt leaves all done or none.

        Parameters
        ----------
        values
            The new values by name.
        needed
            The names that must be given if the state is broken.
        forget
            The call to make before the first array is written.

        Raises
        ------
        StateError
            If a value does not fit, or a needed one is missing; then nothing is written.
        """
        lacking = sorted(set(needed) - values.keys()) if self.broken else []
        if lacking:
            raise StateError(
                f"the state that failed half-way is replaced as a whole, {lacking[0]!r} is missing",
                hint="assign all of a state saved before: saved = dict(ex.state)",
            )
        ready = {name: self.fit(name, value) for name, value in values.items()}
        self._write(ready, forget, mends=True)

    def _write(self, ready: Mapping[str, Array], *before: Call, mends: bool = False) -> None:
        """Set all arrays or, if an interrupt comes first, none."""
        writes = [partial(self.arrays[name].__setitem__, ..., new) for name, new in ready.items()]
        self.lock(self.write, [*before, *writes], mends)

    def write(self, writes: Iterable[Call], mends: bool = False) -> None:
        """Make calls that write arrays while the caller holds the lock.

        The state is broken unless all calls return.

        Parameters
        ----------
        writes
            The calls, in order.
        mends
            Whether a state that was broken before is valid afterwards.
        """
        lock = self.lock
        lock.writing = True
        lock.write(writes, broken=lock.broken and not mends)

    def fit(self, name: str, value: Any) -> Array:
        """Convert a value to the dtype of an array of the state.

        Parameters
        ----------
        name
            The name of the array.
        value
            An array of its shape, or what NumPy converts to one.

        Returns
        -------
        ndarray
            The value, which may be a view of what was given.

        Raises
        ------
        StateError
            For an unknown name, another shape, another kind of numbers, or numbers out of range.
        """
        if name not in self.arrays:
            raise _unknown(name, self.arrays)
        have, array = self.arrays[name], array_of(repr(name), value, StateError)
        if array.shape != have.shape:
            raise StateError(
                f"{name!r} has shape {have.shape}, the value has {array.shape}",
                hint="shapes are fixed by the declaration; nothing was changed",
            )
        if not np.can_cast(array.dtype, have.dtype, "same_kind"):
            raise StateError(
                f"{name!r} is {have.dtype}, the value is {array.dtype}",
                hint=f"convert it: value.astype({have.dtype.name!r})",
            )
        found = _converted(name, array, have.dtype)
        if have.shape == () and have.dtype == np.int64 and not 0 <= found < MOST_COUNTED:
            raise StateError(
                f"{name!r} counts from 0 to below 2**62, the value is {found}",
                hint="nothing was changed",
            )
        return found


def _converted(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array in a dtype; raise StateError if finite numbers become infinite."""
    if array.dtype == dtype or array.dtype.kind != "f":
        return array.astype(dtype, copy=False)
    with np.errstate(over="ignore"):
        found = array.astype(dtype)
    if np.isfinite(array).all() and not np.isfinite(found).all():
        most = np.finfo(dtype).max
        raise StateError(
            f"{name!r} is {dtype}, which holds numbers up to {most:.7g}, the value has larger ones",
            hint="nothing was changed",
        )
    return found


def initial_value(node: Node, seed: int) -> Array:
    """Return the initial value of a parameter or state."""
    if node.op.role.kind == "seed":
        return np.asarray(seed % 2**64, np.uint64)
    if isinstance(node.op, Parameter):
        init = node.op.init
        rng = generator(seed, init.name if isinstance(init, SameAs) else node.name)
        return init.sample(rng, node.op.shape, node.op.dtype)
    assert isinstance(node.op, StateOp)
    if isinstance(node.op.start, FromArray):
        return node.op.start.sample(generator(seed, node.name), node.op.shape, node.op.dtype)
    return np.full(node.op.shape, node.op.start, node.op.dtype)


def readonly(array: Array) -> Array:
    """Return a copy that cannot be written to by mistake."""
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def _unknown(name: str, names: Iterable[str]) -> UnknownName:
    close = close_names(name, names) if isinstance(name, str) else ()
    hint = f"did you mean {' or '.join(close)}?" if close else "ex.state lists the names"
    return UnknownName(f"there is no state {name!r}", hint=hint)
