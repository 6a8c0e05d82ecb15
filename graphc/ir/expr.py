"""Scalar expressions, of which the bodies of kernels are made.

An op's `scalar` rule writes an `Expr`; a `BodyBuilder` collects its steps.  A kernel computes them
at each element of its iteration space, rows i and columns j.  Each step yields one value, whose
broadcast kind gives the indices that it depends on:

    each     i and j: an element of a matrix
    row      i alone: one number for each row, such as a label
    column   j alone: one number for each column, such as a bias
    one      neither: a scalar, such as a learning rate
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import copysign
from typing import Literal, NamedTuple

from graphc.ir.access import AccessMap
from graphc.ir.tensor_type import FLOATS, Batch, Dim

Broadcast = Literal["each", "row", "column", "one"]
Axis = Literal["rows", "columns"]

COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
BOOLEANS = frozenset((*COMPARISONS, "and", "or", "not"))
"""The functions whose values are bools."""

OTHER_STEPS = (
    *("load", "fetch", "offset", "const", "index", "size", "product", "scatter_add"),
    *("sum", "max", "philox"),
)
"""The steps that are not scalar functions."""

Attribute = int | float | bool | str | AccessMap | Batch | tuple[int, ...] | None


class Step(NamedTuple):
    """One value of a body: an op of earlier steps, by their numbers.

    Besides the scalar functions (see `graphc.kernels.interpret`) the ops are

        load      the element of `buffer` at (i, j), (i), (j) or () by the broadcast kind
        fetch     a gathered element of `buffer`, by the access map `value`; see `Loop.places`.  Its
                  argument, if any, is the index of the first dimension (of kind row, int64)
        offset    the offset of a row within its tile of sizes `value`, int32
        const     the number `value`
        index     the number of the row (kind row) or column (kind column), int64
        size      the number of rows or columns that the kernel runs over, by `value`
                  ("rows", "columns"), or of a batch dimension
        product   the element of the matrix product; only in a Gemm, and only once
        scatter_add  the element of the sum of rows; only in a ScatterAdd, and only once
        sum, max  of the argument, with the reduction axis `value`
        philox    the random word of (i, j) of stream `value`; its arguments are seed and draws,
                  and the number of row 0 in the batch if that is not 0
    """

    op: str
    args: tuple[int, ...]
    broadcast: Broadcast
    dtype: str
    buffer: str = ""
    value: Attribute = None

    @property
    def reduces(self) -> bool:
        """True of a sum or a maximum."""
        return self.op in ("sum", "max")


class Store(NamedTuple):
    """A write of the value of a step to a buffer, at the indices of the broadcast kind.

    A value that varies over fewer indices is broadcast.
    """

    buffer: str
    step: int
    broadcast: Broadcast


@dataclass(frozen=True)
class Body:
    """The body of a kernel: steps in order, then stores.

    No step reads a buffer that a store of the kernel changed before: a kernel loads all that it
    needs of an element before it stores that element.
    """

    steps: tuple[Step, ...]
    stores: tuple[Store, ...]

    @cached_property
    def readers(self) -> tuple[int, ...]:
        """The numbers of the steps that read a buffer."""
        return tuple([number for number, step in enumerate(self.steps) if step.buffer])

    @property
    def loads(self) -> tuple[str, ...]:
        """The buffers that are read, each once."""
        return tuple(dict.fromkeys([self.steps[number].buffer for number in self.readers]))

    @property
    def written(self) -> tuple[str, ...]:
        """The buffers that are written."""
        return tuple([store.buffer for store in self.stores])

    def renamed(self, names: Mapping[str, str]) -> Body:
        """Return the body with other names of its buffers."""
        steps = list(self.steps)
        for number in self.readers:
            op, args, broadcast, dtype, buffer, value = steps[number]
            steps[number] = Step(op, args, broadcast, dtype, names[buffer], value)
        stores = [Store(names[buffer], step, broadcast) for buffer, step, broadcast in self.stores]
        made = Body(tuple(steps), tuple(stores))
        vars(made)["readers"] = self.readers
        return made

    def with_own_products(self, stored: Container[str]) -> Body:
        """Return the body in which products stored besides `stored` are computed once more.

        A product with one user is rounded together with the sum that uses it; a store would be
        another user, and the product would be rounded by itself.
        """
        steps, stores = list(self.steps), []
        for store in self.stores:
            step = steps[store.step]
            if store.buffer not in stored and step.op == "mul":
                store = store._replace(step=len(steps))
                steps.append(step)
            stores.append(store)
        return Body(tuple(steps), tuple(stores))


Number = int | float | bool


class BodyBuilder:
    """A body under construction; equal steps become one."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.stores: list[Store] = []
        self._known: dict[Step, int] = {}

    def step(self, step: Step) -> Expr:
        """Return the value of a step, new or known."""
        number = self._known.get(step)
        if number is None:
            number = self._known[step] = len(self.steps)
            self.steps.append(step)
        return Expr(self, number, step)

    def load(self, buffer: str, broadcast: Broadcast, dtype: str) -> Expr:
        """Return an element of a buffer."""
        return self.step(Step("load", (), broadcast, dtype, buffer))

    def fetch(self, buffer: str, at: AccessMap, dtype: str, *index: Expr) -> Expr:
        """Return a gathered element of a buffer; `index` is the first index, if that is given."""
        args = tuple(number.number for number in index)
        return self.step(Step("fetch", args, "each", dtype, buffer, at))

    def offset(self, tile: tuple[int, ...]) -> Expr:
        """Return the offset of the row within its tile of places."""
        return self.step(Step("offset", (), "row", "int32", value=tile))

    def const(self, value: Number, dtype: str) -> Expr:
        """Return a number as a value."""
        number = _in_kind(value, dtype)
        if number == 0 and copysign(1, number) < 0:  # it equals 0.0: they would be one constant
            return call("neg", self.const(0.0, dtype))
        return self.step(Step("const", (), "one", dtype, value=number))

    def product(self, dtype: str) -> Expr:
        """Return the element of the matrix product."""
        return self.step(Step("product", (), "each", dtype))

    def scatter_add(self, dtype: str) -> Expr:
        """Return the element of the sum of rows."""
        return self.step(Step("scatter_add", (), "each", dtype))

    def index(self, axis: Axis) -> Expr:
        """Return the number of the row, or of the column."""
        return self.step(Step("index", (), "row" if axis == "rows" else "column", "int64"))

    def size(self, axis: Axis, dtype: str) -> Expr:
        """Return the number of rows or columns that the kernel runs over."""
        return self.step(Step("size", (), "one", dtype, value=axis))

    def dim(self, dim: Dim, dtype: str) -> Expr:
        """Return the size of a dimension: a number, or that of a batch dimension in a run."""
        if isinstance(dim, int):
            return self.const(dim, dtype)
        return self.step(Step("size", (), "one", dtype, value=dim))

    def store(self, value: Expr, buffer: str, broadcast: Broadcast) -> None:
        """Write a value at the end."""
        self.stores.append(Store(buffer, value.number, broadcast))

    def body(self) -> Body:
        """Return the body without the steps that no store needs."""
        read = {store.step for store in self.stores}.union(*[step.args for step in self.steps])
        if len(read) == len(self.steps):  # the last step that is not needed would not be read
            return Body(tuple(self.steps), tuple(self.stores))
        needed: set[int] = set()
        todo = [store.step for store in self.stores]
        while todo:
            number = todo.pop()
            if number not in needed:
                needed.add(number)
                todo.extend(self.steps[number].args)
        order = sorted(needed)
        place = {old: new for new, old in enumerate(order)}
        steps = tuple(_renumbered(self.steps[old], place) for old in order)
        stores = tuple(Store(s.buffer, place[s.step], s.broadcast) for s in self.stores)
        return Body(steps, stores)


def _in_kind(value: Number, dtype: str) -> Number:
    """Return the number as a float, an integer or a bool, so that equal constants are equal."""
    if dtype in FLOATS:
        return float(value)
    return bool(value) if dtype == "bool" else int(value)


def _renumbered(step: Step, place: dict[int, int]) -> Step:
    args = tuple(place[a] for a in step.args)
    return Step(step.op, args, step.broadcast, step.dtype, step.buffer, step.value)


class Expr:
    """The value of a step; arithmetic with it adds steps."""

    __slots__ = ("builder", "number", "step")

    def __init__(self, builder: BodyBuilder, number: int, step: Step) -> None:
        self.builder, self.number, self.step = builder, number, step

    @property
    def broadcast(self) -> Broadcast:
        """The broadcast kind of the value."""
        return self.step.broadcast

    @property
    def dtype(self) -> str:
        """The dtype of the value."""
        return self.step.dtype

    def lift(self, other: Expr | Number) -> Expr:
        """Return a number as a constant of this value's dtype."""
        return other if isinstance(other, Expr) else self.builder.const(other, self.dtype)

    def __add__(self, other: Expr | Number) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Number) -> Expr:
        return call("add", self.lift(other), self)

    def __sub__(self, other: Expr | Number) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Number) -> Expr:
        return call("sub", self.lift(other), self)

    def __mul__(self, other: Expr | Number) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Number) -> Expr:
        return call("mul", self.lift(other), self)

    def __truediv__(self, other: Expr | Number) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Number) -> Expr:
        return call("div", self.lift(other), self)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __lt__(self, other: Expr | Number) -> Expr:
        return call("less", self, other)

    def __le__(self, other: Expr | Number) -> Expr:
        return call("less_equal", self, other)

    def __gt__(self, other: Expr | Number) -> Expr:
        return call("greater", self, other)

    def __ge__(self, other: Expr | Number) -> Expr:
        return call("greater_equal", self, other)

    def equals(self, other: Expr | Number) -> Expr:
        """Return whether the values are equal, as a value."""
        return call("equal", self, other)

    def cast(self, dtype: str) -> Expr:
        """Return the value in another dtype."""
        if dtype == self.dtype:
            return self
        return self.builder.step(Step("cast", (self.number,), self.broadcast, dtype))

    def sum(self, axis: Axis) -> Expr:
        """Return the sum over the rows or the columns."""
        return self._reduced("sum", axis)

    def max(self, axis: Axis) -> Expr:
        """Return the largest over the rows or the columns; NaN if there is one."""
        return self._reduced("max", axis)

    def mean(self, axis: Axis) -> Expr:
        """Return the sum over an axis, divided by the size of the axis."""
        return self.sum(axis) / self.builder.size(axis, self.dtype)

    def _reduced(self, op: str, axis: Axis) -> Expr:
        broadcast: Broadcast = "row" if axis == "columns" else "column"
        return self.builder.step(Step(op, (self.number,), broadcast, self.dtype, value=axis))


def call(function: str, *args: Expr | Number, value: Attribute = None) -> Expr:
    """Return a scalar function of values; numbers get the dtype of the first value."""
    first = args[0] if isinstance(args[0], Expr) else next(a for a in args if isinstance(a, Expr))
    builder, own = first.builder, first.step.dtype
    numbers: list[int] = []
    kind: Broadcast = "one"
    dtype = own
    for arg in args:
        expr = arg if isinstance(arg, Expr) else builder.const(arg, own)
        step = expr.step
        numbers.append(expr.number)
        dtype = step.dtype
        kind = kind if step.broadcast == kind else join(kind, step.broadcast)
    dtype = "bool" if function in BOOLEANS else dtype
    return builder.step(Step(function, tuple(numbers), kind, dtype, "", value))


def select(condition: Expr, a: Expr | Number, b: Expr | Number) -> Expr:
    """Return `a` where the condition holds, else `b`."""
    like = a if isinstance(a, Expr) else b
    assert isinstance(like, Expr), "one of the two is a value"
    return call("select", condition, like.lift(a), like.lift(b))


def philox(seed: Expr, draws: Expr, stream: int, *first_row: Expr) -> Expr:
    """Return the random word of an element, uint32; `first_row` is row 0's number, by default 0."""
    args = (seed.number, draws.number, *(first.number for first in first_row))
    return seed.builder.step(Step("philox", args, "each", "uint32", value=stream))


def join(a: Broadcast, b: Broadcast) -> Broadcast:
    """Return the broadcast kind of a value that depends on values of these kinds."""
    if a == b or b == "one":
        return a
    return b if a == "one" else "each"
