"""The rules by which an op becomes a kernel: iteration, expression, product, gather, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

from graphc.base.docstrings import with_shared
from graphc.ir.expr import BodyBuilder
from graphc.ir.tensor_type import Batch, Dim, TensorType, shape_at

if TYPE_CHECKING:
    from graphc.ir.expr import Axis, Broadcast, Expr, Step
    from graphc.ir.forms import GatherRule, Product

Iteration = Literal["elements", "rows", "columns", "all", "call"]
"""The iteration of an op over its values in a fused kernel of rows and columns:

    elements  each element of the result by itself
    rows      the rows are its reduction axis: each column of its first operand by itself
    columns   the columns are its reduction axis: each row of its first operand by itself
    all       it reduces all elements to one number
    call      not in such a kernel

A value of rank 2 and more is the matrix of its first dimensions by all others.
"""

_RULE = with_shared("""
Parameters
----------
ins
    The types of the operands.
result
    The type of the result.
""")


class KernelRules:
    """The rules of an op for kernels, and the facts about its result and its cost.

    An op has a kernel by one rule: `scalar` (with `iteration` and `broadcast_kinds`), `product`, or
    `gather`.  By default it has none, and is a call of its `reference`.

    Examples
    --------
    >>> from graphc.ops.functions import Tanh
    >>> Tanh().iteration([gc.TensorType((gc.N, 3), "float32")])
    'elements'
    """

    name: ClassVar[str] = ""
    alias: ClassVar[bool] = False
    """True if the result is the first operand itself: the same bytes."""
    is_random: ClassVar[bool] = False
    """True if the op draws random numbers."""
    is_control: ClassVar[bool] = False
    """True if operands after the first are control dependencies, which it does not read."""
    inplace: ClassVar[tuple[int, ...]] = ()
    """The positions of the operands whose memory the kernel may write its result to."""
    operations: ClassVar[int] = 1
    """The operations for each element of its largest operand or result, whichever is larger."""

    @_RULE
    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        """Return how the op iterates over its operands in a fused kernel.

        Returns
        -------
        str
            One of `Iteration`; "call" if it has no such form.
        """
        return "call"

    @_RULE
    def may_be_view(self, ins: Sequence[TensorType]) -> bool:
        """Return whether kernels may read the result from the bytes of the first operand.

        Returns
        -------
        bool
            By default `alias`.
        """
        return self.alias

    @_RULE
    def lead(self, ins: Sequence[TensorType]) -> int:
        """Return how many of the first dimensions are the rows of the op's matrix.

        Returns
        -------
        int
            By default 1: all other dimensions are columns.
        """
        return 1

    @_RULE
    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        """Return how each operand varies over the elements of the op's matrix.

        An op on elements that returns kinds can only be fused in the matrix of its own result.

        Returns
        -------
        tuple of str or None
            The broadcast kind of each operand; None if each broadcasts to the result.
        """
        return None

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        """Return the result as an expression of the operands, in the result's dtype.

        Parameters
        ----------
        ins
            The operands' elements.
        axis
            The reduction axis; reductions of all elements run over the columns of one row.

        Returns
        -------
        Expr
            The result's element.

        Raises
        ------
        NotImplementedError
            If the op has no such rule.
        """
        raise NotImplementedError(f"op {self.name} has no scalar rule")

    @_RULE
    def product(self, ins: Sequence[TensorType]) -> Product | None:
        """Return the op as a matrix product of its first two operands.

        Returns
        -------
        Product or None
            None if it is not such a product.
        """
        return None

    def epilogue(self, product: Expr, ins: Sequence[Expr]) -> Expr:
        """Return the result as an expression of an element of the product.

        Parameters
        ----------
        product
            The element of the product.
        ins
            The elements of the other operands.

        Returns
        -------
        Expr
            By default the product itself.
        """
        return product

    @_RULE
    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return how the op computes its result by indexed reads.

        Returns
        -------
        GatherRule or None
            None if it does not.
        """
        return None

    @_RULE
    def is_scatter_add(self, result: TensorType) -> bool:
        """Return whether the op adds rows of its second operand at the indices in its first.

        Returns
        -------
        bool
            By default False.
        """
        return False

    @property
    def permutation(self) -> tuple[int, ...] | None:
        """The order of its operand's axes in the result, if the op only permutes them."""
        return None

    def box_start(self, x: TensorType) -> tuple[int, ...] | None:
        """Return where the result starts in the operand, if it is a box of it.

        A box is a part of x without gaps, or x with zeros around it: then it starts before x.

        Parameters
        ----------
        x
            The type of the operand.

        Returns
        -------
        tuple of int or None
            The start in each dimension; None if the result is not a box.
        """
        return None

    @_RULE
    def operand_starts(self, ins: Sequence[TensorType]) -> list[tuple[int, ...]] | None:
        """Return where each operand starts in the result, if the op only copies its operands there.

        Returns
        -------
        list of tuple or None
            The starts in each dimension; the rest of the result is zero.
        """
        return None

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return how many operations the op takes.

        They are those of the mathematics: a multiply-add is two, any other function of an element,
        whether exp or max, is one.

        Parameters
        ----------
        ins
            The types of the operands.
        out
            The type of the result.
        n
            The rows of the batch.

        Returns
        -------
        tuple of two int
            The operations besides matrix products, and those of matrix products.
        """
        return self.operations * max(prod(shape_at(x.shape, n)) for x in (out, *ins)), 0

    @_RULE
    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, Dim]:
        """Return how many entries the operands that are indices may index.

        Returns
        -------
        mapping
            From the position of such an operand to the number of entries.
        """
        return {}


def is_by_row(op: KernelRules, ins: Sequence[TensorType], result: TensorType) -> bool:
    """Return whether the op's kernel reads no other row of the batch for a row of the result.

    All values have the rows on their first axis, or none.  Nothing is known of a call.
    """
    moves = op.alias or op.permutation is not None or op.operand_starts(ins) is not None
    if moves or op.gather(ins, result) is not None:  # the batch is read in order
        return True
    builder = BodyBuilder()
    if op.product(ins) is not None:
        product = builder.product(result.dtype)
        op.epilogue(product, [builder.load(str(i), "each", x.dtype) for i, x in enumerate(ins[2:])])
    elif op.iteration(ins) in ("elements", "columns"):
        op.scalar([builder.load(str(i), "each", x.dtype) for i, x in enumerate(ins)], "columns")
    else:
        return False
    return not any(map(_tells_rows_apart, builder.steps))


def _tells_rows_apart(step: Step) -> bool:
    """Return whether a step depends on which row it is, or on how many there are."""
    if step.op == "size":
        return step.value == "rows" or isinstance(step.value, Batch)
    return step.op == "philox" or (step.op == "index" and step.broadcast == "row")
