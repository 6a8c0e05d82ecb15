"""Parameters and hyper-parameters as users read and set them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from graphc.base.arguments import array_of, checked_number, lost_in
from graphc.base.errors import StateError, UnknownName
from graphc.compiler.plan import Plan
from graphc.declare.optim.optimizer import AVERAGE, AVERAGES_MADE, owned_by
from graphc.declare.selection import counterparts
from graphc.ir.op import Array
from graphc.ir.tensor_type import align
from graphc.runtime.state import State, readonly

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor


T = TypeVar("T")
KNOWN_SETS = 64
"""The most sets of parameters whose vectors are kept."""


class ByName(Mapping[str, T]):
    """A mapping with the keys `_names`; subclasses define its values."""

    _names: Collection[str]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _unknown(self, what: str, name: str) -> UnknownName:
        """Return the error for a name that is not among them."""
        return UnknownName(f"there is no {what} {name!r}", hint=f"there are: {self._shown()}")

    def _shown(self) -> str:
        names = tuple(self._names)
        return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def vectors(state: State, names: Sequence[str]) -> list[Array]:
    """Return the memory of some arrays as few vectors, so that few NumPy calls mix them.

    Arrays of one dtype that are adjacent, but for padding, are one vector, padding included.
    """
    runs: list[tuple[int, int, int, np.dtype[Any]]] = []
    for name in names:
        array = state.arrays[name]
        block = next(i for i, b in enumerate(state.blocks) if np.may_share_memory(array, b))
        start = array.ctypes.data - state.blocks[block].ctypes.data
        stop = start + array.nbytes
        if runs and (block, start, array.dtype) == (runs[-1][0], align(runs[-1][2]), runs[-1][3]):
            start = runs.pop()[1]
        runs.append((block, start, stop, array.dtype))
    return [state.blocks[block][start:stop].view(dtype) for block, start, stop, dtype in runs]


class Parameters(ByName[Array], MutableMapping[str, Array]):
    """The parameters of a net by name; `ex.parameters` makes it.

    Reading one copies it; assigning checks the value, then sets it.

    Parameters
    ----------
    state
        The state that holds them.
    names
        Their names, in declared order.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3, name="line"))
    >>> ex = gc.Executor(gc.compile(net, batch=32))
    >>> ex.parameters["line.bias"] = [1.0, 2.0, 3.0]
    >>> ex.parameters["line.bias"]
    array([1., 2., 3.], dtype=float32)
    """

    def __init__(self, state: State, names: Sequence[str]) -> None:
        self._state = state
        self._names: tuple[str, ...] = tuple(names)
        self._vectors: dict[tuple[str, ...], list[Array]] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise self._unknown("parameter", name)
        return self._state.lock(readonly, self._state.arrays[name])

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._names:
            raise self._unknown("parameter", name)
        self._state.assign({name: value})

    def __delitem__(self, name: str) -> None:
        raise StateError(
            f"parameter {name!r} cannot be deleted",
            hint="it belongs to the net: declare another net",
        )

    def flat(self) -> Array:
        """Copy all parameters into one vector.

        Returns
        -------
        ndarray
            The numbers in declared order, each parameter in C order.
        """
        arrays = [array.reshape(-1) for array in self._arrays(self._names)]
        return self._state.lock(np.concatenate, arrays) if arrays else np.empty(0, np.float32)

    def load_flat(self, vector: Any) -> None:
        """Set all parameters from one vector.

        Parameters
        ----------
        vector
            The numbers in the order of `flat`.

        Raises
        ------
        StateError
            If the vector has another length, or its numbers do not fit; then nothing is set.
        """
        values = array_of("the vector", vector, StateError)
        sizes = [array.size for array in self._arrays(self._names)]
        if values.shape != (sum(sizes),):
            raise StateError(
                f"the vector has shape {values.shape}, the parameters take ({sum(sizes)},)",
                hint="it is what ex.parameters.flat() gives for the same net",
            )
        parts = np.split(values, np.cumsum(sizes)[:-1]) if sizes else []
        self._state.assign(
            {
                name: part.reshape(self._state.arrays[name].shape)
                for name, part in zip(self._names, parts, strict=True)
            }
        )

    def copy_from(
        self,
        other: Mapping[str, Any],
        mix: float = 1.0,
        names: str | Sequence[str] | Mapping[str, str] | None = None,
    ) -> None:
        """Move towards other parameters: new = (1 - mix) * own + mix * other.

        Parameters
        ----------
        other
            The parameters of another executor, or arrays by name.
        mix
            The weight of the others; 1 copies them.
        names
            A pattern such as "actor/*", or several; by default all names that both have.  A
            mapping renames: {"target/*": "critic/*"} sets target/w by the other's critic/w.

        Raises
        ------
        StateError
            If no parameter matches, or an array does not fit.
        """
        if not isinstance(other, Mapping):
            raise StateError(
                f"copy_from takes parameters, not {type(other).__name__}",
                hint="ex.parameters.copy_from(other.parameters)",
            )
        pairs = self._pairs(other, names)
        mine, named = tuple(pairs), tuple(pairs.values())
        if isinstance(other, Parameters):
            own, theirs = self._vectors_of(mine), other._vectors_of(named)
            if self._shapes(mine) == other._shapes(named) and _sizes(own) == _sizes(theirs):
                values = other._state.lock(_copies, theirs)
                self._state.lock(self._mix_vectors, own, values, mix)
                return
            new = dict(zip(mine, other._state.lock(_copies, other._arrays(named)), strict=True))
        else:
            new = {name: np.asarray(other[theirs]) for name, theirs in pairs.items()}
        self._state.lock(self._mixed_in, new, mix)

    def _vectors_of(self, names: tuple[str, ...]) -> list[Array]:
        """Return some parameters as vectors, which never move."""
        found = self._vectors.get(names)
        if found is None:
            if len(self._vectors) >= KNOWN_SETS:
                self._vectors.clear()
            found = self._vectors[names] = vectors(self._state, names)
        return found

    def _arrays(self, names: Sequence[str]) -> list[Array]:
        return [self._state.arrays[name] for name in names]

    def _shapes(self, names: Sequence[str]) -> list[tuple[int, ...]]:
        return [array.shape for array in self._arrays(names)]

    def _mix_vectors(self, owns: Sequence[Array], values: Sequence[Array], mix: float) -> None:
        """Write (1 - mix) * own + mix * value into all vectors, under the state's lock."""
        mixed = values if mix == 1.0 else map(_mixed, owns, values, repeat(mix))
        writes = [partial(o.__setitem__, ..., v) for o, v in zip(owns, mixed, strict=True)]
        self._state.write(writes)

    def _mixed_in(self, new: Mapping[str, Array], mix: float) -> None:
        if mix != 1.0:
            own = self._state.arrays
            for name, value in new.items():
                self._state.fit(name, value)  # refuses other shapes and kinds
            new = {name: _mixed(own[name], value, mix) for name, value in new.items()}
        self._state.assign(new)

    def _pairs(
        self, other: Mapping[str, Any], names: str | Sequence[str] | Mapping[str, str] | None
    ) -> dict[str, str]:
        """Return the parameters to set, each with its name in `other`; raise StateError if none."""
        if names is None and isinstance(other, Parameters) and other._names == self._names:
            return dict(zip(self._names, self._names, strict=True))
        if isinstance(names, Mapping):
            patterns = tuple(names)
            found = {k: v for p in names.items() for k, v in counterparts(*p, self._names).items()}
            for name, theirs in found.items():
                if theirs not in other:
                    raise StateError(f"there is no parameter {theirs!r} to set {name!r} by")
        else:
            patterns = (
                ("*",) if names is None else (names,) if isinstance(names, str) else (*names,)
            )
            both = (name for name in self._names if name in other)
            found = {n: n for n in both if any(fnmatchcase(n, pattern) for pattern in patterns)}
        if not found:
            raise StateError(
                f"no parameter matches {', '.join(patterns)}", hint=f"there are: {self._shown()}"
            )
        return found


def _sizes(vectors: Sequence[Array]) -> list[tuple[int, np.dtype[Any]]]:
    return [(vector.size, vector.dtype) for vector in vectors]


def _copies(arrays: Sequence[Array]) -> list[Array]:
    """Return copies; under the lock of a state they are all of one moment."""
    return [array.copy() for array in arrays]


def _mixed(own: Array, other: Array, mix: float) -> Array:
    """Return (1 - mix) * own + mix * other, in the dtype of `own`."""
    weight = own.dtype.type
    return np.asarray(own * weight(1 - mix) + other * weight(mix))


class Hyper(ByName[float], MutableMapping[str, float]):
    """The hyper-parameters of an optimizer by name; `ex.hyper` makes it.

    A new value is used from the next step on.

    Parameters
    ----------
    plan
        The plan whose optimizers it is of; if it has none, all optimizers of the state are meant.
    state
        The state that holds the numbers.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> loss = net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 2)), 1)))
    >>> ex = gc.Executor(gc.compile(net, batch=32, optimizer=gc.SGD(lr=0.5)))
    >>> ex.hyper["lr"] /= 2
    >>> dict(ex.hyper)
    {'lr': 0.25}
    """

    def __init__(self, plan: Plan, state: State) -> None:
        self._state = state
        alone = len(plan.rules) == 1
        own = {name: node.op.role for name, node in plan.state_nodes.items()}
        roles = own if plan.rules else state.roles
        self._names: dict[str, str] = {
            role.part if alone else owned_by(role.optimizer, role.part): name
            for name, role in roles.items()
            if role.kind == "hyper"
        }

    def state_of(self, name: str) -> str:
        """Return the name of the state that holds a hyper-parameter.

        Parameters
        ----------
        name
            The name of the hyper-parameter, such as "lr".

        Returns
        -------
        str
            The name in `ex.state`, such as "hyper.lr".

        Raises
        ------
        UnknownName
            If there is no such hyper-parameter.
        """
        if name not in self._names:
            known = ", ".join(self._names) or "none, since no plan of this state has an optimizer"
            hint = f"there are: {known}"
            if self._names and str(name).startswith("weight_decay"):
                hint = "declare one above 0, such as weight_decay=1e-4, which may then be set to 0"
            raise UnknownName(f"there is no hyper-parameter {name!r}", hint=hint)
        return self._names[name]

    def __getitem__(self, name: str) -> float:
        return float(self._state.arrays[self.state_of(name)])

    def __setitem__(self, name: str, value: float) -> None:
        held = self._state.arrays[self.state_of(name)]
        writes = [partial(held.__setitem__, ..., self.fit(name, value))]
        self._state.lock(self._state.write, writes)

    def fit(self, name: str, value: Any) -> float:
        """Check a value of a hyper-parameter.

        Parameters
        ----------
        name
            The name of the hyper-parameter.
        value
            A finite number of 0 or more; a clip norm is above 0.

        Returns
        -------
        float
            The number.

        Raises
        ------
        StateError
            If it is not such a number, or one that the dtype cannot hold.
        """
        state = self.state_of(name)
        held, what = self._state.arrays[state], f"hyper-parameter {name!r}"
        above = 0.0 if self._state.roles[state].part == "clip_norm" else -math.inf
        hint = "to change it over time give the optimizer a schedule"
        number = checked_number(what, value, above=above, least=0, hint=hint, error=StateError)
        if lost := lost_in(held.dtype, number):
            raise StateError(
                f"hyper-parameter {name!r} is {value!r}, which is {lost} in {held.dtype}",
                hint="nothing was changed",
            )
        return number

    def __delitem__(self, name: str) -> None:
        raise StateError(
            f"hyper-parameter {name!r} cannot be deleted", hint="it belongs to the optimizer"
        )


def averaged(ex: Executor) -> Executor:
    """Return the executor that `Executor.averaged` describes; raise StateError without averages."""
    averaging = [rule.optimizer for rule in ex.plan.rules if rule.optimizer.ema is not None]
    if not averaging:
        raise StateError(
            "averaged: the optimizer keeps no averages of the weights",
            hint="compile with one that does: gc.SGD(lr=0.1, ema=0.999)",
        )
    twin = deepcopy(ex)
    arrays = twin.state.arrays
    for optimizer in averaging:
        if not arrays[optimizer.state(AVERAGES_MADE)]:
            continue
        kept = {name: optimizer.state(f"{name}.{AVERAGE}") for name in twin.parameters}
        averages = {name: arrays.get(slot) for name, slot in kept.items()}
        twin.state.assign({name: a for name, a in averages.items() if a is not None})
    return twin
