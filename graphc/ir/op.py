"""The contracts of Op and Layer.  The ops themselves are in `graphc.ops`.

An op is one frozen dataclass: its fields are its attributes, its methods are its rules.
Two ops with equal fields are the same op.  A class that adds no field needs no decorator, which
would only cost time at import.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

from graphc.base.docstrings import with_shared
from graphc.ir.exact import same
from graphc.ir.kernel_rules import Iteration as Iteration
from graphc.ir.kernel_rules import KernelRules, is_by_row
from graphc.ir.tensor_type import Batch, TensorType, dim_at

if TYPE_CHECKING:
    from graphc.ir.build import Builder, Value
    from graphc.ir.graph import Graph, Node
    from graphc.ir.step_graph import StepGraph

Array = NDArray[Any]
Cotangents: TypeAlias = "Sequence[Value | None]"
"""One for each operand, or None for an operand without a gradient."""


class Role(NamedTuple):
    """The purpose of the array of an input or a state, if the program and the executor need it.

    The text of a graph shows it by the name of the node alone; `Op.named` reads it from there.
    """

    kind: Literal[
        "",
        "seed",
        "hyper",
        "slot",
        "gradient",
        "cotangent",
        "first_row",
        "share",
        "divisor",
        "lengths",
    ] = ""
    of: str = ""
    """The parameter, output or inputs that it belongs to; several have commas between them."""
    part: str = ""
    """The name of the slot or of the hyper-parameter, or the kind of the share."""
    optimizer: str = ""
    """The name of the optimizer whose state it is, if that has a name."""


PLAIN = Role()
"""The role of an ordinary input or state."""


@dataclasses.dataclass(frozen=True)
class Op(KernelRules):
    """The computation of a node: an op's attributes are its fields, its rules are its methods.

    `infer` and `reference` are enough to run anywhere; `grad` is called only if the op is
    differentiated.  An op becomes a kernel by one rule: `scalar` (with `iteration` and
    `broadcast_kinds`), `product`, or `gather`; without one it is a call of `reference`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Scale(gc.Op):
    ...     factor: float
    ...     def infer(self, ins):
    ...         return ins[0]
    ...     def reference(self, ins):
    ...         return ins[0] * np.float32(self.factor)
    >>> net = gc.Net("net")
    >>> gc.apply(Scale(2.0), net.input("x", (gc.N, 3)))
    <scale_1: float32[N, 3]>
    """

    name: ClassVar[str] = ""
    roles: ClassVar[tuple[str, ...]] = ()
    """The operands' names in the op's words, for errors and pictures."""
    optional: ClassVar[int] = 0
    """The number of the last operands that may be missing."""
    is_source: ClassVar[bool] = False
    """True if the op has no operands, and its value exists before the program runs."""
    is_input: ClassVar[bool] = False
    """True if its value is fed at each run."""
    is_parameter: ClassVar[bool] = False
    """True if its value is an array that optimizers train."""
    is_state: ClassVar[bool] = False
    """True if its value lasts between runs without being trained."""
    is_constant: ClassVar[bool] = False
    """True if its value is fixed in the graph."""
    is_layer: ClassVar[bool] = False
    """True if it is a user's declaration, which expands to other ops."""
    is_exact: ClassVar[bool] = False
    """True if no result is rounded, because the op only moves, selects or negates numbers."""
    is_linear: ClassVar[bool] = False
    """True if the result of a sum of operands is the sum of their results, but for rounding."""
    only_moves: ClassVar[bool] = False
    """True if it computes no number: its result has the bits of its operands."""
    persistent: ClassVar[bool] = False
    """True if its value lasts between runs, in the state of an executor."""
    is_of_shard: ClassVar[bool] = False
    """True if it is a number about the running shard, which the executor feeds."""
    needs_expansion: ClassVar[bool] = False
    """True if it is a layer that only its expansion can compute."""
    stops_gradients: ClassVar[bool] = False
    """True if a derivative treats its result as constant."""
    takes_pairs: ClassVar[bool] = False
    """True if operands and result may have the batch dimension twice, for pairs of rows."""
    broadcasts: ClassVar[bool] = False
    """True if its operands broadcast, so that gradients are summed to an operand's shape."""
    is_joint: ClassVar[bool] = False
    """True if several nodes over the same operands are results of one computation."""
    takes_positions: ClassVar[bool] = False
    """True if its indices are positions in another operand, not classes."""
    lowering: ClassVar[str] = ""
    """The part of `graphc.features` that lowers its nodes; "" means kernels and calls."""
    finite_hint: ClassVar[str] = ""
    """The advice for a result that is not finite."""
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
        if "__eq__" not in cls.__dict__:  # that of a dataclass takes -0.0 for 0.0, and 1 for True
            cls.__eq__ = Op.__eq__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        """Return whether two ops are of one class, and their attributes equal in every bit."""
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        kind: type = type(self)
        names = _field_names(kind)
        return all(same(getattr(self, name), getattr(other, name)) for name in names)

    @property
    def role(self) -> Role:
        """The purpose of the array of an input or a state."""
        return PLAIN

    def named(self, name: str) -> Op:
        """Return the op as the node of that name has it, after it was read from text.

        Parameters
        ----------
        name
            The name of the node.

        Returns
        -------
        Op
            By default the op itself.
        """
        return self

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of the result.

        Parameters
        ----------
        ins
            The types of the operands.

        Returns
        -------
        TensorType
            Its shape and dtype.

        Raises
        ------
        ValueError
            If the operands do not fit; the first line says why, a second one may be a hint.
        NotImplementedError
            If the op has no such rule.
        """
        raise NotImplementedError(f"op {self.name} has no infer rule")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute the result in plain allocating NumPy, which defines what the op means.

        Parameters
        ----------
        ins
            The operands.

        Returns
        -------
        ndarray
            A new array of the type that `infer` returns.

        Raises
        ------
        NotImplementedError
            If the op has no such rule.
        """
        raise NotImplementedError(f"op {self.name} has no reference rule")

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Compute the result in training or in inference, which only layers distinguish.

        Parameters
        ----------
        ins
            The operands.
        train
            Whether the net is trained.

        Returns
        -------
        ndarray
            By default that of `reference`.
        """
        return self.reference(ins)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        """Return the distances of the operands to where the derivative jumps or is not finite.

        Parameters
        ----------
        ins
            The operands, which are floats.

        Returns
        -------
        ndarray or None
            None if the derivative never jumps.
        """
        return None

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Build the gradient rule.

        Parameters
        ----------
        b
            The builder of the graph, for nodes that no operator makes.
        ins, out
            The operands and the result of the node.
        dout
            The cotangent of the result.

        Returns
        -------
        sequence of Value or None
            A cotangent for each operand, None for an operand without a gradient.

        Raises
        ------
        NotImplementedError
            If the op has no gradient.
        """
        raise NotImplementedError(f"op {self.name} has no gradient")

    @property
    def joint(self) -> Op:
        """The op without its choice of a result, for an op with several: equal for all of them."""
        return self

    @property
    def transfer(self) -> tuple[Literal["send", "receive"], int] | None:
        """The end of a transfer that it is, and the number of all that travels together."""
        return None

    def with_inside(
        self, nodes: Sequence[Node], run: Callable[[Graph], Graph]
    ) -> dict[str, Node | None]:
        """Return the nodes that change if a pass runs on the graph that the op has inside.

        Parameters
        ----------
        nodes
            The results of a joint computation.
        run
            The pass; it returns the same object if it changes nothing.

        Returns
        -------
        dict
            The new nodes by name: none by default.
        """
        return {}

    def pruned(self, nodes: Sequence[Node]) -> dict[str, Node | None]:
        """Return the results of a joint computation without what none of them needs.

        Parameters
        ----------
        nodes
            The results that are read.

        Returns
        -------
        dict
            The new nodes by name: none by default.
        """
        return {}

    def joint_grad(self, b: Builder, nodes: Sequence[Node], douts: Sequence[Value]) -> Cotangents:
        """Build the gradient rule of an op with several results.

        Parameters
        ----------
        b
            The builder of the graph.
        nodes, douts
            The results that have a cotangent, and their cotangents.

        Returns
        -------
        sequence of Value or None
            A cotangent for each operand, which all results share.

        Raises
        ------
        NotImplementedError
            If the op has no gradient.
        """
        raise NotImplementedError(f"op {self.name} has no gradient")

    @property
    def gradient_text(self) -> tuple[str, ...]:
        """The formulas of `grad`, one for each operand; empty for an operand without a gradient.

        In NumPy's notation with the operands' roles, the op's attributes, `out` and its
        cotangent `d_out`; summed to the operand's shape if that was broadcast.  The last formula
        is for all further operands, too.
        """
        return ()

    def by_row(self, ins: Sequence[TensorType]) -> bool:
        """Return whether each row of the result depends on that row of the operands alone.

        It is asked only where every value has the rows of the batch on its first axis, or none.

        Parameters
        ----------
        ins
            The types of the operands.

        Returns
        -------
        bool
            By default what the op's kernel says; False for a call.
        """
        return is_by_row(self, ins, self.infer(ins))

    def at(self, n: int) -> Op:
        """Return the op with every open dimension of its attributes made concrete.

        Parameters
        ----------
        n
            The rows of the batch.

        Returns
        -------
        Op
            The op itself if it has no such attribute.
        """
        kind: type = type(self)
        if not _field_names(kind):
            return self
        fields = attributes(self).items()
        sizes = {name: _concrete(value, n) for name, value in fields if _is_batched(value)}
        return dataclasses.replace(self, **sizes) if sizes else self


@lru_cache(maxsize=1024, typed=True)
def shared(kind: Callable[..., Op], *attributes: float, **named: str | None) -> Op:
    """Return the op of that kind with these attributes, as one object for any number of nodes."""
    return kind(*attributes, **named)


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
    """A user's declaration, which expands to ops that may differ in training and inference.

    Examples
    --------
    >>> from graphc.ops.elementwise import Add
    >>> class Twice(gc.Layer):
    ...     def infer(self, ins):
    ...         return ins[0]
    ...     def expand(self, b, name, ins, train):
    ...         return b.apply(Add(), ins[0], ins[0], name=name)
    >>> net = gc.Net("net")
    >>> gc.apply(Twice(), net.input("x", (gc.N, 3)))
    <twice_1: float32[N, 3]>
    """

    is_layer = True

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build the ops of the layer; the last is named `name`, the others `name.part`.

        Parameters
        ----------
        b
            The builder of the graph.
        name
            The name of the layer's node.
        ins
            The operands.
        train
            Whether the net is trained.

        Returns
        -------
        Value
            The result of the last op.

        Raises
        ------
        NotImplementedError
            If the layer has no such rule.
        """
        raise NotImplementedError(f"layer {self.name} has no expansion")

    @with_shared(Op.reference_in.__doc__)
    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        """Compute the result in training or in inference, which defines what the layer means.

        Returns
        -------
        ndarray
            A new array.

        Raises
        ------
        NotImplementedError
            If the layer has no such rule.
        """
        raise NotImplementedError(f"layer {self.name} has no reference rule")


def formula_of(op: Op, position: int) -> str:
    """Return the formula of an operand's gradient, or "" if no gradient flows to it."""
    texts = op.gradient_text
    return texts[min(position, len(texts) - 1)] if texts else ""


def attributes(op: Op) -> dict[str, Any]:
    """Return the op's attributes by name: the fields by which it equals another op."""
    kind: type = type(op)
    return {name: getattr(op, name) for name in _field_names(kind)}


@lru_cache(maxsize=1024)
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if field.compare)


def inferred(op: Op, ins: Sequence[TensorType]) -> TensorType:
    """Return the type that an op infers.

    Raise ValueError also if a type has the batch dimension twice and the op does not take that.
    """
    found = op.infer(ins)
    if not op.takes_pairs and not op.is_source:
        for type in (*ins, found):
            if type.__class__ is TensorType and type.pairs_rows:
                raise ValueError(
                    f"{op.name} takes the batch on one axis, not {type}\n"
                    "pairs of rows are for products, reductions and functions of each element"
                )
    return found


def step_of(op: Op) -> StepGraph | None:
    """Return the step that an op runs, or None if it runs none."""
    step: StepGraph | None = getattr(op, "step", None) if op.is_joint else None
    return step


def with_step(op: Op, step: StepGraph) -> Op:
    """Return an op that runs another step."""
    changed: dict[str, Any] = {"step": step}
    return dataclasses.replace(op, **changed)


def _is_batched(value: object) -> bool:
    if isinstance(value, tuple):
        return any(_is_batched(part) for part in value)
    return isinstance(value, Batch)


def _concrete(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_concrete(part, n) for part in value)
    return dim_at(value, n) if isinstance(value, Batch) else value
