"""The contracts of Op and Layer.  The ops themselves are in `graphc.ops`.

An op is one frozen dataclass: its fields are its attributes, its methods are its rules.
Two ops with equal fields are the same op.  A class that adds no field needs no decorator, which
would only cost time at import.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from graphc.ir.tensor_type import Batch, TensorType, dim_at, shape_at

if TYPE_CHECKING:
    from graphc.ir.build import Builder, Value
    from graphc.ir.expr import Axis, Broadcast, Expr
    from graphc.ir.forms import GatherRule, Product

Array = NDArray[Any]
Cotangents: TypeAlias = "Sequence[Value | None]"
"""One for each operand, or None for an operand without a gradient."""

Iteration = Literal["elements", "rows", "columns", "all", "call"]
"""The iteration of an op over its values in a fused kernel of rows and columns:

    elements  each element of the result by itself
    rows      the rows are its reduction axis: each column of its first operand by itself
    columns   the columns are its reduction axis: each row of its first operand by itself
    all       it reduces all elements to one number
    call      not in such a kernel

A value of rank 2 and more is the matrix of its first dimensions by all others.
"""


class Role(NamedTuple):
    """The purpose of the array of an input or a state, if the program and the executor need it.

    The text of a graph shows it by the name of the node alone; `Op.named` reads it from there.
    """

    kind: Literal[
        "", "seed", "hyper", "slot", "gradient", "cotangent", "first_row", "share", "divisor"
    ] = ""
    of: str = ""
    """The parameter or output that it belongs to."""
    part: str = ""
    """The name of the slot or of the hyper-parameter, or the kind of the share."""
    optimizer: str = ""
    """The name of the optimizer whose state it is, if that has a name."""


PLAIN = Role()
"""The role of an ordinary input or state."""


@dataclasses.dataclass(frozen=True)
class Op:
    """The computation of a node: an op's attributes are its fields, its rules are its methods.

    `infer` and `reference` are enough to run anywhere; `grad` is called only if the op is
    differentiated.  An op becomes a kernel by one rule: `scalar` (with `iteration` and
    `broadcast_kinds`), `product`, or `gather`; without one it is a call of `reference`.
    """

    name: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ()
    """The operands' names in the op's words, for errors and pictures."""
    optional: ClassVar[int] = 0
    """The number of the last operands that may be missing."""
    is_source: ClassVar[bool] = False
    """Whether the op has no operands, and its value exists before the program runs."""
    is_input: ClassVar[bool] = False
    """Whether its value is fed at each run."""
    is_parameter: ClassVar[bool] = False
    """Whether its value is an array that optimizers train."""
    is_state: ClassVar[bool] = False
    """Whether its value lasts between runs without being trained."""
    is_constant: ClassVar[bool] = False
    """Whether its value is fixed in the graph."""
    is_layer: ClassVar[bool] = False
    """Whether it is a user's declaration, which expands to other ops."""
    inplace: ClassVar[tuple[int, ...]] = ()
    """The positions of the operands whose memory the kernel may write its result to."""
    alias: ClassVar[bool] = False
    """Whether the result is the first operand itself: the same bytes."""
    is_exact: ClassVar[bool] = False
    """Whether no result is rounded, because the op only moves, selects or negates numbers."""
    is_random: ClassVar[bool] = False
    """Whether the op draws random numbers."""
    is_control: ClassVar[bool] = False
    """Whether operands after the first are control dependencies, which it does not read."""
    is_linear: ClassVar[bool] = False
    """Whether the result of a sum of operands is the sum of their results, but for rounding."""
    only_moves: ClassVar[bool] = False
    """Whether it computes no number: its result has the bits of its operands."""
    persistent: ClassVar[bool] = False
    """Whether its value lasts between runs, in the state of an executor."""
    operations: ClassVar[int] = 1
    """The operations for each element of its largest operand or result, whichever is larger."""
    is_of_shard: ClassVar[bool] = False
    """Whether it is a number about the running shard, which the executor feeds."""
    needs_expansion: ClassVar[bool] = False
    """Whether it is a layer that only its expansion can compute."""
    stops_gradients: ClassVar[bool] = False
    """Whether a derivative treats its result as constant."""
    broadcasts: ClassVar[bool] = False
    """Whether its operands broadcast, so that gradients are summed to an operand's shape."""
    finite_hint: ClassVar[str] = ""
    """What to write where the result is not finite."""
    onnx: ClassVar[str] = ""
    """The equivalent operator of ONNX, if there is one and the op has no attributes."""

    def __init_subclass__(cls, base: bool = False, **kwargs: Any) -> None:
        """Name the op after its class, and register graphc's own, except a `base` of ops.

        The words of graphc's names are joined by underscores: `SgdStep` is `sgd_step`.
        """
        super().__init_subclass__(**kwargs)
        own = cls.__module__.startswith("graphc.ops.")
        if "name" not in cls.__dict__:
            words = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__) if own else cls.__name__
            cls.name = words.lower()
        if not base and own:
            BUILT_IN[f"layer {cls.name}" if issubclass(cls, Layer) else cls.name] = cls
        if "along" in cls.__dict__:  # the former name, in ops that users wrote
            cls.iteration = cls.__dict__["along"]  # type: ignore[method-assign]

    @property
    def role(self) -> Role:
        """The purpose of the array of an input or a state."""
        return PLAIN

    def named(self, name: str) -> Op:
        """Return the op as the node of that name has it, after it was read from text."""
        return self

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the result; raise ValueError, in the op's words, for bad operands."""
        raise NotImplementedError(f"op {self.name} has no infer rule")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the result in plain allocating NumPy, which defines what the op means."""
        raise NotImplementedError(f"op {self.name} has no reference rule")

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Return the result in training or in inference, which only layers distinguish."""
        return self.reference(ins)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        """Return the distances of operands to where the derivative jumps; None if it never does.

        A place where the derivative is not finite counts too.  The operands are floats.
        """
        return None

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return one cotangent for each operand, or None for an operand without a gradient."""
        raise NotImplementedError(f"op {self.name} has no gradient")

    @property
    def gradient_text(self) -> tuple[str, ...]:
        """The formulas of `grad`, one for each operand; empty for an operand without a gradient.

        In NumPy's notation with the operands' roles, the op's attributes, `out` and its
        cotangent `d_out`; summed to the operand's shape if that was broadcast.  The last formula
        is for all further operands, too.
        """
        return ()

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return how the op iterates over operands of these types in a fused kernel."""
        return "call"

    def may_be_view(self, ins: Sequence[TensorType]) -> bool:
        """Return whether kernels may read the result from the bytes of the first operand."""
        return self.alias

    def lead(self, ins: Sequence[TensorType]) -> int:
        """Return how many of the first dimensions are the rows of the op's matrix."""
        return 1

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        """Return the broadcast kind of each operand, or None if each broadcasts to the result.

        An op on elements that returns kinds can only be fused in the matrix of its own result.
        """
        return None

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the result as an expression of the operands, in the result's dtype.

        `axis` is the reduction axis; reductions of all elements run over the columns of one row.
        """
        raise NotImplementedError(f"op {self.name} has no scalar rule")

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        """Return the op as a matrix product of its first two operands, or None."""
        return None

    def epilogue(self, product: Expr, ins: Sequence[Expr]) -> Expr:
        """Return the result from an element of the product; `ins` are the other operands'."""
        return product

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return how the op computes its result by indexed reads, or None."""
        return None

    def is_scatter_add(self, result: TensorType) -> bool:
        """Return whether the op adds rows of its second operand at the indices in its first."""
        return False

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return the operations besides matrix products, and those of matrix products.

        They are those of the mathematics for a batch of `n` rows: a multiply-add is two, any other
        function of an element, whether exp or max, is one.
        """
        return self.operations * max(prod(shape_at(x.shape, n)) for x in (out, *ins)), 0

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The order of its operand's axes in the result, if the op only permutes them."""
        return None

    def box_start(self, x: TensorType) -> tuple[int, ...] | None:
        """Return where the result starts in x, in each dimension, or None if it is not a box of x.

        A box is a part of x without gaps, or x with zeros around it: then it starts before x.
        """
        return None

    def operand_starts(self, ins: Sequence[TensorType]) -> list[tuple[int, ...]] | None:
        """Return where each operand starts in the result, in each dimension, or None.

        An op that returns them copies its operands there; the rest of its result is zero.
        """
        return None

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        """Return, for operands that are indices, how many entries they may index."""
        return {}

    def at(self, n: int) -> Op:
        """Return the op with every open dimension of its attributes made concrete."""
        fields = attributes(self).items()
        sizes = {name: _concrete(value, n) for name, value in fields if _is_batched(value)}
        return dataclasses.replace(self, **sizes) if sizes else self


@lru_cache(maxsize=1024, typed=True)
def shared(kind: Callable[..., Op], *attributes: bool | float) -> Op:
    """Return the op of that kind with these attributes, as one object for any number of nodes."""
    return kind(*attributes)


def _frozen(op: Op, name: str, value: object) -> None:
    kind = type(op).__name__
    raise dataclasses.FrozenInstanceError(
        f"an op cannot be changed: {kind}.{name} cannot be set; what an op depends on must be a "
        f"field of the class, so put @dataclass(frozen=True) before class {kind}, and {name}: "
        "... into it"
    )


# A frozen dataclass guards objects of its own class; this guards those of classes without fields.
Op.__setattr__ = _frozen  # type: ignore[method-assign,assignment]


BUILT_IN: dict[str, type[Op]] = {}
"""The ops of `graphc.ops` by name; a layer, which may share an op's name, as `layer name`."""


class Source(Op):
    """An op without operands whose value exists before the program runs."""

    is_source = True
    only_moves = True


class NoGradient(Op):
    """An op through which no gradient flows, as one of whole numbers, bools or steps."""

    gradient_text: ClassVar[tuple[str, ...]] = ("",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return None for each operand."""
        return (None,) * len(ins)


class Layer(Op):
    """A user's declaration, which expands to ops that may differ in training and inference."""

    is_layer = True

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build the ops of the layer; the last is named `name`, the others `name.part`."""
        raise NotImplementedError(f"layer {self.name} has no expansion")

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Return the result in training or in inference, which defines what the layer means."""
        raise NotImplementedError(f"layer {self.name} has no reference rule")


def attributes(op: Op) -> dict[str, Any]:
    """Return the op's attributes by name: the fields by which it equals another op."""
    kind: type = type(op)
    return {name: getattr(op, name) for name in _field_names(kind)}


@lru_cache(maxsize=1024)
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)


def _is_batched(value: object) -> bool:
    if isinstance(value, tuple):
        return any(_is_batched(part) for part in value)
    return isinstance(value, Batch)


def _concrete(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_concrete(part, n) for part in value)
    return dim_at(value, n) if isinstance(value, Batch) else value
