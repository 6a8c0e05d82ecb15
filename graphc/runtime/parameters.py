"""Parameters and hyper-parameters as users read and set them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from graphc.base.arguments import checked_number, lost_in
from graphc.base.errors import StateError, UnknownName
from graphc.declare.optim.optimizer import AVERAGE, AVERAGES_MADE
from graphc.ir.op import Array
from graphc.ir.plan import Plan
from graphc.runtime.state import State, readonly

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor


T = TypeVar("T")


class _ByName(MutableMapping[str, T]):
    """The parts of a mapping that depend on its names alone."""

    _names: Collection[str]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Parameters(_ByName[Array]):
    """The parameters of a net by name.  Reading one copies it; assigning checks, then sets."""

    def __init__(self, state: State, names: Sequence[str]) -> None:
        self._state = state
        self._names: tuple[str, ...] = tuple(names)

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise self._unknown(name)
        return self._state.lock(readonly, self._state.arrays[name])

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._names:
            raise self._unknown(name)
        self._state.assign({name: value})

    def __delitem__(self, name: str) -> None:
        raise StateError(
            f"parameter {name!r} cannot be deleted",
            hint="it belongs to the net: declare another net",
        )

    def _unknown(self, name: str) -> UnknownName:
        return UnknownName(f"there is no parameter {name!r}", hint=f"there are: {self._shown()}")

    def _shown(self) -> str:
        return ", ".join(self._names[:6]) + (", ..." if len(self._names) > 6 else "")

    def flat(self) -> Array:
        """Return a copy of all parameters in one vector, in declared order."""
        arrays = [self._state.arrays[name].reshape(-1) for name in self._names]
        return self._state.lock(np.concatenate, arrays) if arrays else np.empty(0, np.float32)

    def load_flat(self, vector: Any) -> None:
        """Set all parameters from one vector in the order of `flat`."""
        values = np.asarray(vector)
        sizes = [self._state.arrays[name].size for name in self._names]
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
        self, other: Mapping[str, Any], mix: float = 1.0, names: str | Sequence[str] | None = None
    ) -> None:
        """Move towards another's parameters: new = (1 - mix) * own + mix * other.

        `names` are patterns such as "actor/*"; by default all names that both have.
        """
        if not isinstance(other, Mapping):
            raise StateError(
                f"copy_from takes parameters, not {type(other).__name__}",
                hint="ex.parameters.copy_from(other.parameters)",
            )
        shared = self._shared(other, names)
        if isinstance(other, Parameters):
            new = other._state.lock(other._copies, shared)
        else:
            new = {name: np.asarray(other[name]) for name in shared}
        self._state.lock(self._mixed_in, new, mix)

    def _copies(self, names: Sequence[str]) -> dict[str, Array]:
        """Return copies of some parameters; under the lock they are all of one moment."""
        return {name: self._state.arrays[name].copy() for name in names}

    def _mixed_in(self, new: Mapping[str, Array], mix: float) -> None:
        if mix != 1.0:
            own = self._state.arrays
            for name, value in new.items():
                self._state.fit(name, value)  # refuses other shapes and kinds
            new = {name: _mixed(own[name], value, mix) for name, value in new.items()}
        self._state.assign(new)

    def _shared(self, other: Mapping[str, Any], names: str | Sequence[str] | None) -> list[str]:
        """Return the parameters of both that match; raise StateError if there are none."""
        patterns = ("*",) if names is None else (names,) if isinstance(names, str) else tuple(names)
        shared = [
            name
            for name in self._names
            if name in other and any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        if not shared:
            raise StateError(
                f"no parameter matches {', '.join(patterns)}", hint=f"there are: {self._shown()}"
            )
        return shared


def _mixed(own: Array, other: Array, mix: float) -> Array:
    """Return (1 - mix) * own + mix * other, in the dtype of `own`."""
    weight = own.dtype.type
    return np.asarray(own * weight(1 - mix) + other * weight(mix))


class Hyper(_ByName[float]):
    """The hyper-parameters of the optimizer; a new value is used from the next step on."""

    def __init__(self, plan: Plan, state: State) -> None:
        """Find those of a plan's optimizer; without one, of all plans that share the state."""
        self._state = state
        optimizer = plan.optimizer
        states = state.arrays if optimizer is None else plan.state_nodes
        end = "" if optimizer is None else optimizer.state("")
        found = (name for name in states if name.startswith("hyper."))
        self._names: dict[str, str] = {name[6:].removesuffix(end): name for name in found}

    def __getitem__(self, name: str) -> float:
        return float(self._state.arrays[self._known(name)])

    def __setitem__(self, name: str, value: float) -> None:
        state = self._known(name)
        hint = "to change it over time give the optimizer a schedule"
        number = checked_number(f"hyper-parameter {name!r}", value, hint=hint, error=StateError)
        held = self._state.arrays[state]
        if lost := lost_in(held.dtype, number):
            raise StateError(
                f"hyper-parameter {name!r} is {value!r}, which is {lost} in {held.dtype}",
                hint="nothing was changed",
            )
        self._state.lock(held.__setitem__, ..., number)

    def _known(self, name: str) -> str:
        if name not in self._names:
            known = ", ".join(self._names) or "none, since no plan of this state has an optimizer"
            raise UnknownName(f"there is no hyper-parameter {name!r}", hint=f"there are: {known}")
        return self._names[name]

    def __delitem__(self, name: str) -> None:
        raise StateError(
            f"hyper-parameter {name!r} cannot be deleted", hint="it belongs to the optimizer"
        )


def averaged(ex: Executor) -> Executor:
    """Return the executor that `Executor.averaged` describes; raise StateError without averages."""
    optimizer = ex.plan.optimizer
    if optimizer is None or optimizer.ema is None:
        raise StateError(
            "averaged: the optimizer keeps no averages of the weights",
            hint="compile with one that does: gc.SGD(lr=0.1, ema=0.999)",
        )
    twin = deepcopy(ex)
    arrays = twin.state.arrays
    if arrays[optimizer.state(AVERAGES_MADE)]:
        kept = {name: optimizer.state(f"{name}.{AVERAGE}") for name in twin.parameters}
        averages = {name: arrays.get(slot) for name, slot in kept.items()}
        twin.state.assign({name: a for name, a in averages.items() if a is not None})
    return twin
