"""The contracts of Op and Layer.  None of either lives here.

An op is one frozen dataclass: its fields are its attributes, its methods are its rules.
Two ops with equal fields are the same op.  A class that adds no field needs no decorator, which
would only cost time at import.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray

from graphc.tensor_type import Batch, TensorType, dim_at

if TYPE_CHECKING:
    from graphc.build import Builder, Value
    from graphc.kernels.body import Axis, Span
    from graphc.kernels.expr import Expr
    from graphc.plan import Emitter

Array = NDArray[Any]

Along = Literal["elements", "rows", "columns", "all", "call"]
"""How an op goes through its values when it is fused into a kernel of rows and columns:

    elements  each element of the result by itself
    rows      it reduces along the rows: each column of its first operand by itself
    columns   it reduces along the columns: each row of its first operand by itself
    all       it reduces all elements to one number
    call      not in such a kernel

A value of rank 2 and more is the matrix of its first dimensions by all others.
"""


@dataclasses.dataclass(frozen=True)
class Op:
    """What a node does to its operands.

    `infer` and `reference` are enough to run anywhere; `grad` is asked only when the op is
    differentiated; `lower` only chooses a faster kernel, and `along`, `spans` and `scalar` only
    let the op be fused into one.
    """

    name: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ()
    """The operands' names in the op's words, for errors and pictures."""
    optional: ClassVar[int] = 0
    """How many of the last operands may be missing."""
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

    @property
    def gradient_text(self) -> tuple[str, ...]:
        """What `grad` computes, a formula for each operand; empty where none flows.

        In NumPy's notation with the operands' roles, the op's attributes, `out` and its
        cotangent `d_out`; summed down to the operand's shape where that was broadcast.  The
        last formula serves all further operands.
        """
        return ()

    def lower(self, em: Emitter, ins: Sequence[str], out: str) -> None:
        """The instructions that compute `out`; one call of the kernel of the op's name."""
        em.call(self.name, ins, out)

    def along(self, ins: Sequence[TensorType]) -> Along:
        """How the op goes through operands of these types in a fused kernel."""
        return "call"

    def lead(self, ins: Sequence[TensorType]) -> int:
        """How many of the first dimensions are the rows of the op's matrix."""
        return 1

    def spans(self, ins: Sequence[TensorType]) -> tuple[Span, ...] | None:
        """How each operand stands in the op's matrix; None: as it broadcasts to the result.

        An op on elements that says it is at home in the matrix of its result alone.
        """
        return None

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """The result as an expression of the operands, in the result's dtype.

        Reductions run along `axis`; those of all elements along the columns of one row.
        """
        raise NotImplementedError(f"op {self.name} has no scalar rule")

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        """For operands that index something: how many entries there are."""
        return {}

    def at(self, n: int) -> Op:
        """The op with every open dimension of its attributes made concrete."""
        told = attributes(self).items()
        sizes = {name: _concrete(value, n) for name, value in told if _is_batched(value)}
        return dataclasses.replace(self, **sizes) if sizes else self


@lru_cache(maxsize=1024, typed=True)
def shared(kind: Callable[..., Op], *attributes: bool | float) -> Op:
    """The op of that kind with these attributes, as one object for any number of nodes."""
    return kind(*attributes)


def _frozen(op: Op, name: str, value: object) -> None:
    kind = type(op).__name__
    raise dataclasses.FrozenInstanceError(
        f"an op does not change: {kind}.{name} cannot be set; what an op depends on are fields of "
        f"the class, so put @dataclass(frozen=True) before class {kind}, and {name}: ... into it"
    )


# A frozen dataclass guards objects of its own class; this guards those of classes without fields.
Op.__setattr__ = _frozen  # type: ignore[method-assign,assignment]


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
    """The op's attributes by name."""
    kind: type = type(op)
    return {name: getattr(op, name) for name in _field_names(kind)}


@lru_cache(maxsize=1024)
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _is_batched(value: object) -> bool:
    if isinstance(value, tuple):
        return any(_is_batched(part) for part in value)
    return isinstance(value, Batch)


def _concrete(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_concrete(part, n) for part in value)
    return dim_at(value, n) if isinstance(value, Batch) else value
