"""The contracts of Op and Layer.  None of either lives here.

An op is one frozen dataclass: its fields are its attributes, its methods are its rules.
Two ops with equal fields are the same op.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from graphc.tensor_type import Batch, TensorType, dim_at

if TYPE_CHECKING:
    from graphc.build import Builder, Value
    from graphc.plan import Emitter

Array = NDArray[Any]


class Op:
    """What a node does to its operands.

    `infer` and `reference` are enough to run anywhere; `grad` is asked only when the op is
    differentiated; `lower` only chooses a faster kernel.
    """

    name: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ()
    """The operands' names in the op's words, for errors and pictures."""
    inplace: ClassVar[tuple[int, ...]] = ()
    """Operands whose memory the kernel may write its result to."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__.lower()

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """The result's type; ValueError in the op's own words."""
        raise NotImplementedError(f"op {self.name} has no infer rule")

    def reference(self, ins: Sequence[Array]) -> Array:
        """The meaning, in plain allocating NumPy."""
        raise NotImplementedError(f"op {self.name} has no reference rule")

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        """One cotangent for each operand, or None where none flows."""
        raise NotImplementedError(f"op {self.name} has no gradient")

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        """The instructions that compute `out`; one call of the kernel of the op's name."""
        em.call(self.name, ins, out)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        """For operands that index something: how many entries there are."""
        return {}

    def at(self, n: int) -> Op:
        """The op with every open dimension of its attributes made concrete."""
        names = _batched_fields(self)
        if not names:
            return self
        sizes = {name: _concrete(getattr(self, name), n) for name in names}
        return dataclasses.replace(self, **sizes)  # type: ignore[type-var]


class Source(Op):
    """An op without operands whose value is there before the program runs."""

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        """A source is bound by the executor; it needs no instruction."""


class Layer(Op):
    """What a user declares: it becomes ops, which may differ in training and inference."""

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build the ops of the layer; the last is named `name`, the others `name.part`."""
        raise NotImplementedError(f"layer {self.name} has no expansion")

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """The meaning in training or in inference."""
        raise NotImplementedError(f"layer {self.name} has no reference rule")


def attributes(op: Op) -> dict[str, Any]:
    """The op's attributes by name; empty for an op that is no dataclass."""
    if not dataclasses.is_dataclass(op):
        return {}
    return {name: getattr(op, name) for name in _field_names(type(op))}


@lru_cache(maxsize=1024)
def _field_names(cls: type[Op]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]


def _batched_fields(op: Op) -> tuple[str, ...]:
    if not dataclasses.is_dataclass(op):
        return ()
    return tuple(n for n in _field_names(type(op)) if _is_batched(getattr(op, n)))


def _is_batched(value: object) -> bool:
    if isinstance(value, tuple):
        return any(_is_batched(part) for part in value)
    return isinstance(value, Batch)


def _concrete(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_concrete(part, n) for part in value)
    return dim_at(value, n) if isinstance(value, Batch) else value
