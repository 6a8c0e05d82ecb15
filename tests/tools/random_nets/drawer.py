"""What a net is drawn with: the values so far, and how one is chosen or made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

import graphc as gc

from .calls import Call, Ref, Rows, change, leaves, make

Dim = int | Rows
Shape = tuple[Dim, ...]
T = TypeVar("T")


class Skip(Exception):
    """Nothing fits here: the net goes on without."""


class Feed(NamedTuple):
    """An input: its shape, and how its numbers are drawn (see `feeds.py`)."""

    shape: Shape
    kind: str
    count: int = 0

    @property
    def batched(self) -> bool:
        """Whether it has rows of the batch."""
        return any(isinstance(dim, Rows) for dim in self.shape)


@dataclass(frozen=True)
class Var:
    """A value of the net, and what is known of it.

    `real`: it has the net's own floats.  `mixed`: rows are not apart in it.  `trained`: a
    gradient flows from it to a parameter.
    `smooth` names the values that a gradient flows to.
    """

    name: str
    shape: Shape
    dtype: str
    real: bool
    mixed: bool
    trained: bool
    smooth: frozenset[str]

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def batched(self) -> bool:
        """Whether rows of the batch are its first axis, each for itself."""
        return bool(self.shape) and self.shape[0] == Rows() and self.fixed(1)

    def fixed(self, start: int = 0) -> bool:
        """Return whether the axes from one on have fixed sizes."""
        return not any(isinstance(dim, Rows) for dim in self.shape[start:])

    @property
    def width(self) -> int:
        """How many entries a row has."""
        return int(np.prod([d.times if isinstance(d, Rows) else d for d in self.shape]))


@dataclass
class Drawer:
    """A net that is being drawn."""

    rng: np.random.Generator
    dtype: str
    calls: list[Call] = field(default_factory=list)
    pool: list[Var] = field(default_factory=list)
    inputs: dict[str, Feed] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    masks: dict[str, tuple[Shape, float]] = field(default_factory=dict)
    losses: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, int | None] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)
    pooled: bool = False
    mode: str = "whole"
    values: dict[str, gc.Value] = field(default_factory=dict)
    counter: int = 0

    def __post_init__(self) -> None:
        self.net = gc.Net("random", dtype=self.dtype)

    # Chance.

    def chance(self, share: float) -> bool:
        """Return True in a share of all cases."""
        return bool(self.rng.random() < share)

    def one(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self.rng.integers(len(items)))]

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        return int(self.rng.integers(low, high + 1))

    def number(self, low: float = -2, high: float = 2) -> float:
        """Return a number with few digits."""
        return round(float(self.rng.uniform(low, high)), 2)

    def size(self) -> int:
        """Return a dimension: small as a rule, 1 often, up to 70."""
        kind = self.rng.random()
        if kind < 0.15:
            return 1
        return self.whole(2, 9) if kind < 0.9 else self.whole(10, 70)

    def sizes(self, rank: int, most: int = 300) -> tuple[int, ...]:
        """Return dimensions with at most so many entries together."""
        shape = tuple(self.size() for _ in range(rank))
        while np.prod(shape) > most:
            shape = tuple(max(1, size // 2) for size in shape)
        return shape

    # Calls.

    def name(self, stem: str) -> str:
        """Return a new name."""
        self.counter += 1
        return f"{stem}{self.counter}"

    def call(
        self, function: str, *args: Any, mixed: bool = False, trained: bool = False, **kwargs: Any
    ) -> Any:
        """Make a call on Vars; returns its result, or all where there are several.

        `mixed` says that it brings rows together, `trained` that it makes parameters.
        """
        if self.mode == "fixed" and any(isinstance(leaf, Rows) for leaf in leaves((args, kwargs))):
            raise Skip
        operands = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Var)]
        refs = change(
            (args, kwargs), lambda leaf: Ref(leaf.name) if isinstance(leaf, Var) else leaf
        )
        found = make(self.net, self.values, Call((), function, *refs))
        names = tuple(self.name("v") for _ in found)
        self.calls.append(Call(names, function, *refs))
        self.values.update(zip(names, found, strict=True))
        if "name" in kwargs and trained:
            self.owners |= dict.fromkeys(names, f"{kwargs['name']}.*")
        self.pooled |= function == "gc.batchnorm" and mixed
        made = [
            self._var(n, v, function, operands, mixed, trained)
            for n, v in zip(names, found, strict=True)
        ]
        self.pool.extend(made)
        return made[0] if len(made) == 1 else made

    def _var(
        self,
        name: str,
        value: gc.Value,
        function: str,
        operands: list[Var],
        mixed: bool,
        trained: bool,
    ) -> Var:
        shape = shape_of(value)
        smooth = value.dtype.startswith("float") and function not in FLAT
        rows = [at for at, dim in enumerate(shape) if isinstance(dim, Rows)]
        lost = not rows and any(not operand.fixed() for operand in operands)
        mixed = mixed or lost or rows not in ([], [0]) or any(v.mixed for v in operands)
        reached = frozenset({name}).union(*(v.smooth for v in operands)) if smooth else frozenset()
        trained = smooth and (trained or any(v.trained for v in operands))
        return Var(name, shape, value.dtype, value.dtype == self.dtype, mixed, trained, reached)

    # Leaves.

    def input(self, shape: Shape, kind: str = "normal", count: int = 0) -> Var:
        """Return a new input."""
        if self.mode != "whole" and any(isinstance(dim, Rows) for dim in shape):
            return self._spread(shape, kind)
        dtype = {"ids": "int64", "labels": "int64", "bools": "bool"}.get(kind, self.dtype)
        name = self.name("x")
        self.inputs[name] = Feed(shape, kind, count)
        return self.call("net.input", name, shape, dtype=dtype)

    def _spread(self, shape: Shape, kind: str) -> Var:
        """Return what stands for an input in a net that reads none with a batch."""
        if kind != "normal" or self.mode == "fixed":
            raise Skip
        row = self.parameter(tuple(dim for dim in shape if isinstance(dim, int)))
        return self.call("gc.broadcast_to", row, shape)  # type: ignore[no-any-return]

    def parameter(self, shape: tuple[int, ...]) -> Var:
        """Return a parameter: a new one, or one that is there already."""
        same = [v for v in self.pool if v.name in self.parameters and v.shape == shape]
        if same and self.chance(0.4):
            return self.one(same)
        made: Var = self.call("net.parameter", self.name("p"), shape, init=0.5, trained=True)
        self.parameters.add(made.name)
        self.owners[made.name] = str(self.calls[-1].args[0])
        return made

    def constant(self, shape: tuple[int, ...]) -> Var:
        """Return a constant."""
        made: Var = self.call(
            "net.constant", np.round(self.rng.normal(size=shape), 2).astype(self.dtype)
        )
        return made

    def pick(self, fits: Any) -> Var | None:
        """Return one of the values that fit, rather a late one; None where there is none."""
        found = [v for v in self.pool if fits(v) and v.width <= 600]
        if not found:
            return None
        late = found[-4:] if self.chance(0.7) else found
        return self.one(late)

    def real(self, low: int = 0, high: int = 4) -> Var:
        """Return floats of a rank, with a batch or without, whatever else they are."""
        found = self.pick(lambda v: v.real and low <= v.rank <= high)
        if found is not None and self.chance(0.9):
            return found
        rank = self.whole(low, min(high, max(low, 3)))
        if self.chance(0.35):
            return self.parameter(self.sizes(rank))
        if rank and self.mode != "fixed" and self.chance(0.9):
            return self.input((Rows(), *self.sizes(rank - 1)))
        return self.constant(self.sizes(rank)) if self.chance(0.5) else self.input(self.sizes(rank))

    def batched(self, low: int = 1, high: int = 4) -> Var:
        """Return floats with a row for each of the batch, and axes of fixed sizes behind."""
        if self.mode == "fixed":
            raise Skip
        found = self.pick(lambda v: v.real and v.batched and low <= v.rank <= high)
        if found is not None and self.chance(0.9):
            return found
        return self.input((Rows(), *self.sizes(self.whole(low, min(high, max(low, 3))) - 1)))

    def small(self, v: Var) -> Var:
        """Return the value held within 1, for functions that grow fast."""
        return self.call("gc.tanh", v)

    def above(self, v: Var, least: float = 0.5) -> Var:
        """Return the value made positive."""
        return self.call("gc.add", self.call(self.one(["gc.abs", "gc.softplus"]), v), least)

    def axis(self, v: Var, batch: bool = True) -> int | None:
        """Return one of a value's axes, perhaps counted from the end; None where it has none."""
        axes = [at for at in range(v.rank) if batch or not isinstance(v.shape[at], Rows)]
        if not axes:
            return None
        axis = self.one(axes)
        return axis - v.rank if self.chance(0.5) else axis

    def axes(self, v: Var, batch: bool = True) -> Any:
        """Return None for all axes, one, or several."""
        one = self.axis(v, batch)
        if one is None or (self.chance(0.25) and (batch or v.fixed())):
            return None
        if self.chance(0.3):
            other = self.axis(v, batch)
            if other is not None and other % v.rank != one % v.rank:
                return (one, other)
        return one


FLAT = frozenset(
    f"gc.{name}" for name in ("sign", "floor", "ceil", "round", "stop_gradient", "accuracy", "grad")
) | {
    "gc.floor_div",
    "operator.floordiv",
    "net.constant",
    "gc.one_hot",
    "gc.cast",
}


def touches(v: Var, axes: Any) -> bool:
    """Return whether one of these axes has rows of the batch; None stands for all axes."""
    chosen = range(v.rank) if axes is None else [axes] if isinstance(axes, int) else axes
    return any(isinstance(v.shape[at], Rows) for at in chosen)


def shape_of(value: gc.Value) -> Shape:
    """Return the shape of a value of graphc's as it is written here."""
    one = gc.N
    return tuple(d if isinstance(d, int) else Rows(d.factor) for d in value.shape) if one else ()
