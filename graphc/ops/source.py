"""Values that exist before a program runs: inputs, parameters, states, constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from graphc.base.arguments import array_of
from graphc.base.errors import GraphError
from graphc.ir import init as initial
from graphc.ir.build import Builder, Value
from graphc.ir.init import FromArray, Initializer, OutAt, Zeros, resolve
from graphc.ir.op import PLAIN, Array, Op, Role, Source
from graphc.ir.tensor_type import Shape, TensorType, numpy_dtype

ANY_ORDER = FromArray, Zeros, initial.Ones, initial.Constant, initial.Normal, initial.Uniform
"""The initializers that do not depend on the axis of a weight's outputs."""


ROLES: tuple[Literal["gradient", "cotangent", "lengths"], ...]
ROLES = "gradient", "cotangent", "lengths"
"""The roles of inputs that their names say, as in "lengths:x"."""


class TypedSource(Source, base=True):
    """The base of sources whose attributes say their type."""

    shape: Shape
    dtype: str

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type that the attributes say."""
        return TensorType(self.shape, self.dtype)


@dataclass(frozen=True)
class Input(TypedSource):
    """An array fed at each run."""

    is_input: ClassVar[bool] = True
    shape: Shape
    dtype: str
    role: Role = field(default=PLAIN, compare=False, repr=False)

    def named(self, name: str) -> Input:
        """Return the input with the role that its name says."""
        kind, _, of = name.partition(":")
        for role in ROLES:
            if of and kind == role:
                return replace(self, role=Role(role, of))
        return self


@dataclass(frozen=True)
class Parameter(TypedSource):
    """A trainable array of the state, filled by `init` at the start."""

    shape: tuple[int, ...]
    dtype: str
    init: Initializer
    is_parameter: ClassVar[bool] = True
    persistent: ClassVar[bool] = True


@dataclass(frozen=True)
class State(TypedSource):
    """An array of the state that no optimizer trains: a running mean, a counter, a slot.

    It starts at one number everywhere, or at an array.
    """

    shape: tuple[int, ...]
    dtype: str
    start: float | FromArray = 0.0
    role: Role = field(default=PLAIN, compare=False, repr=False)
    is_state: ClassVar[bool] = True
    persistent: ClassVar[bool] = True

    def named(self, name: str) -> State:
        """Return the state with the role that its name says; that of a slot only orders a plan."""
        if name == "seed":
            return replace(self, role=Role("seed"))
        if name.startswith(HYPER):
            part, _, optimizer = name.removeprefix(HYPER).partition(":")
            return replace(self, role=Role("hyper", part=part, optimizer=optimizer))
        return self


@dataclass(frozen=True)
class Constant(TypedSource):
    """An array fixed in the graph; the bytes are in C order."""

    is_exact = True
    is_constant: ClassVar[bool] = True
    shape: tuple[int, ...]
    dtype: str
    data: bytes = field(repr=False)
    label: str = ""
    """The name of the parameter or state frozen into it; such constants are never merged."""

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the array."""
        return self.array()

    def array(self) -> Array:
        """Return the array, read-only."""
        return np.frombuffer(self.data, numpy_dtype(self.dtype)).reshape(self.shape)


def start_of(op: Op) -> FromArray | None:
    """Return the array that a parameter or state starts at, or None if a rule fills it."""
    start = getattr(op, "init" if op.is_parameter else "start", None)
    return start if isinstance(start, FromArray) else None


def with_start(op: Op, start: FromArray | None) -> Op:
    """Return a parameter or state that starts at an array, or at zeros."""
    given: dict[str, Any] = (
        {"init": start or Zeros()} if op.is_parameter else {"start": start or 0.0}
    )
    return replace(op, **given)


def check_plain_name(op: Input | State, name: str) -> None:
    """Raise GraphError for the name of a source that says a role that it does not have."""
    if op.named(name).role == op.role:
        return
    hint = "declare lengths by gc.lengths(x)" if name.startswith("lengths:") else ""
    raise GraphError(
        f"{op.name} {name!r}: graphc gives such names itself, to what is not fed or kept as others",
        hint=hint or "choose another name",
    )


def constant_op(value: Any, dtype: str | None = None, floats: str = "float32") -> Constant:
    """Return a Constant of an array or number, with Python's floats as `floats`.

    Raise ValueError for a dtype that graphc does not have.
    """
    held = array_of("its value", value) if hasattr(value, "__array__") else value
    array = np.asarray(held, dtype)
    if dtype is None and array.dtype == np.float64 and not isinstance(value, np.ndarray):
        array = array.astype(floats)
    kept = TensorType(array.shape, array.dtype.name).dtype
    return Constant(array.shape, kept, np.ascontiguousarray(array).tobytes())


def constant(b: Builder, value: Any, dtype: str | None = None, name: str | None = None) -> Value:
    """Return a fixed value in the graph."""
    return b.apply(constant_op(value, dtype, b.dtype), name=name)


def parameter(
    b: Builder, name: str, shape: Shape, dtype: str, init: Any, out: int | None = None
) -> Value:
    """Return a new parameter; raise GraphError if `init` does not fit.

    `out` is the axis of the outputs, if it is not the last.
    """
    sizes = tuple(dim for dim in shape if isinstance(dim, int))
    try:
        found = resolve(init, sizes)
        if out is not None and not isinstance(found, ANY_ORDER):
            found = OutAt(found, out)
        TensorType(sizes, dtype)
    except ValueError as error:
        raise GraphError(f"parameter {name!r}: {error}") from None
    return b.apply(Parameter(sizes, dtype, found), name=name)


def state(b: Builder, name: str, type: TensorType, start: float = 0.0, role: Role = PLAIN) -> Value:
    """Return the state of that name, which is added if it does not exist.

    Raise GraphError if another node has the name.
    """
    if name not in b.nodes:
        shape = tuple(dim for dim in type.shape if isinstance(dim, int))
        return b.apply(State(shape, type.dtype, start, role), name=name)
    node = b.nodes[name]
    op = node.op
    own = op.label == name if isinstance(op, Constant) else op.is_state and op.role == role
    if not own or node.type != type:
        raise GraphError(
            f"the name {name!r} is taken, but graphc gives it to a state of its own",
            operands=[node.described("node")],
            hint="choose another name",
        )
    return b.value(name)


HYPER = "hyper."
"""The beginning of the names of states that are hyper-parameters."""
COUNTERS = "draws", "updates"
"""The names of the states that count training forwards and updates."""
SEED = TensorType((), "uint64")
COUNTER = TensorType((), "int64")


def seed(b: Builder) -> Value:
    """Return the seed of all random numbers."""
    return global_state(b, "seed", SEED, role=Role("seed"))


def draws(b: Builder) -> Value:
    """Return the counter of training forwards, which keys the random masks."""
    return global_state(b, "draws", COUNTER)


def updates(b: Builder) -> Value:
    """Return the counter of optimizer updates, which drives schedules and Adam."""
    return global_state(b, "updates", COUNTER)


def hyper(b: Builder, name: str, dtype: str, start: float) -> Value:
    """Return the state that holds a hyper-parameter, which `ex.hyper[name]` reads and sets."""
    role = Role("hyper", part=name)
    return global_state(b, f"{HYPER}{name}", TensorType((), dtype), start, role)


def global_state(
    b: Builder, name: str, type: TensorType, start: float = 0.0, role: Role = PLAIN
) -> Value:
    """Return a state outside all blocks and loops, without a source line."""
    if b.outer is not None:
        return b.captured(global_state(b.outer, name, type, start, role))
    prefix, locs = b.prefix, b.locs
    b.prefix, b.locs = "", ()
    try:
        return state(b, name, type, start, role)
    finally:
        b.prefix, b.locs = prefix, locs
