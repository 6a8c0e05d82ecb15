"""The actions of a kernel's steps: the calls of NumPy that write each step's value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from math import prod
from typing import NamedTuple

import numpy as np

from graphc.backends.backend import Call
from graphc.backends.numpy import access, functions, products
from graphc.backends.numpy.values import Part, Sizes, Value
from graphc.base.door import higher
from graphc.ir.expr import Attribute, Broadcast, Step
from graphc.ir.op import Array
from graphc.ir.tensor_type import FLOATS, ORDERED, dim_at
from graphc.kernels.kernel import Gemm, Kernel, ScatterAdd

ONES = 4096
"""The number of shared ones: sums are products with ones."""
NARROW = 64
"""The most columns of a narrow kernel: NumPy is slow at many short rows."""


class Work(NamedTuple):
    """A temporary of one action: its dtype, and its shape for a part."""

    dtype: str
    shape: Callable[[Sizes, Part], tuple[int, ...]]


class Action(NamedTuple):
    """The calls that write `out`: `rule(sizes, part, out, *ins, *work)`."""

    rule: Callable[..., Sequence[Call]]
    out: Value
    ins: tuple[Value, ...] = ()
    work: tuple[Work, ...] = ()


def copied(sizes: Sizes, part: Part, out: Array, value: Array) -> Sequence[Call]:
    """Return the call that copies a value to where it is stored."""
    return (partial(np.copyto, out, value, casting="unsafe"),)


class Form(NamedTuple):
    """The function and the arguments of a step, or of a cheaper equivalent."""

    name: str
    args: tuple[int, ...]
    rule: functions.Rule | None = None
    """The rule, if a constant is bound into it."""


def form_of(steps: Sequence[Step], step: Step) -> Form:
    """Return the cheapest form of a step."""
    op, args = step.op, step.args
    constants = {at: steps[a].value for at, a in enumerate(args) if steps[a].op == "const"}
    if op == "cast" and step.dtype == ORDERED:
        return Form(f"to_{ORDERED}", args)
    if op == "select":
        return _form_of_select(steps, step, constants)
    if op == "pow" and step.dtype in FLOATS:
        cheap = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
        name = cheap.get(constants.get(1))  # type: ignore[arg-type]
        return Form(op, args) if name is None else Form(name, args[:1])
    if op in ("maximum", "minimum") and step.dtype in FLOATS and step.broadcast == "each":
        bound = constants.get(1)
        if isinstance(bound, float) and bound == bound:
            ends = (bound, np.inf) if op == "maximum" else (-np.inf, bound)
            return Form("clip", args[:1], partial(functions.clip, low=ends[0], high=ends[1]))
    return Form(op, args)


def _form_of_select(steps: Sequence[Step], step: Step, constants: Mapping[int, Attribute]) -> Form:
    """Return the cheapest form of a select, such as a clip for ReLU."""
    condition, _, other = step.args
    if constants.get(2) == 0:
        return Form("select_or_zero", step.args[:2])
    test = steps[condition]
    # select(0 > x, 0, x), as relu's rule writes it: the order keeps NaN, and so does clip.
    if constants.get(1) == 0 and test.op == "greater" and test.args[1] == other:
        bound = steps[test.args[0]]
        if bound.op == "const" and bound.value == 0:
            return Form("clip", (other,), partial(functions.clip, low=0.0, high=np.inf))
    return Form("select", step.args)


def action_of(kernel: Kernel, step: Step, form: Form, out: Value, ins: Sequence[Value]) -> Action:
    """Return the action that writes a step to `out`."""
    if step.op in ("sum", "max"):
        return _reduction(kernel, step, out, ins[0])
    if step.op == "product":
        assert isinstance(kernel, Gemm), "only a Gemm has a product"
        work = tuple(Work(dtype, shape) for dtype, shape in products.works(kernel))
        factors = _raw(kernel.a), _raw(kernel.b)
        return Action(partial(products.multiply, kernel), out, factors, work)
    if step.op == "fetch":
        rule = access.take_rows if ins else access.fetch
        return Action(partial(rule, step), out, (_raw(step.buffer), *ins))
    if step.op == "scatter_add":
        assert isinstance(kernel, ScatterAdd), "only a scatter-add has sums of rows"
        work = (Work("int64", partial(_places_shape, kernel)),)
        return Action(access.scatter_add, out, (_raw(kernel.source), _raw(kernel.indices)), work)
    if step.op == "philox":
        work = tuple(Work("uint64", partial(_random_shape, i)) for i in range(2))
        return Action(partial(_random, step), out, tuple(ins), work)
    return _elementwise(kernel, step, form, out, ins)


def _raw(buffer: str) -> Value:
    """Return a whole buffer, in no iteration space."""
    return Value("buffer", buffer, "one", "")


def _elementwise(
    kernel: Kernel, step: Step, form: Form, out: Value, ins: Sequence[Value]
) -> Action:
    function = functions.function(form.name)
    assert function is not None, "a step of a kernel is a function"
    rule = partial(_by_function, form.rule or function.rule)
    work = tuple(
        Work(dtype or step.dtype, partial(_like, step.broadcast)) for dtype in function.work
    )
    natural = _natural(form.name, ins)
    if natural not in ("", step.dtype):
        made = Work(natural, partial(_like, step.broadcast))
        return Action(partial(_converted, rule), out, tuple(ins), (made,))
    columns = [at for at, value in enumerate(ins) if value.broadcast == "column"]
    if columns and not work and step.broadcast == "each" and _is_narrow(kernel):
        at = columns[0]
        tile = Work(ins[at].dtype, _tile_shape)
        return Action(partial(_tiled, rule, at), out, tuple(ins), (tile,))
    return Action(rule, out, tuple(ins), work)


def _tile_shape(sizes: Sizes, part: Part) -> tuple[int, ...]:
    """Return the shape of one line of rows, or an empty one if lines are short or few."""
    rows = prod(sizes.places)
    return (1, *sizes.places, part.width) if rows >= NARROW and part.height > 2 else (0,)


def _tiled(
    rule: Callable[..., Sequence[Call]],
    at: int,
    sizes: Sizes,
    part: Part,
    out: Array,
    *arrays: Array,
) -> Sequence[Call]:
    """Return the calls of a rule that reads a number for each of few columns.

    They first copy these to all rows of a line: NumPy is slow at many short rows.
    """
    *ins, tile = arrays
    if not tile.size:
        return rule(sizes, part, out, *ins)
    copy = partial(np.copyto, tile, ins[at])
    ins[at] = tile
    return copy, *rule(sizes, part, out, *ins)


def _natural(name: str, ins: Sequence[Value]) -> str:
    """Return the dtype that NumPy gives a function's result, or "" if it takes any."""
    ufunc = functions.UFUNCS.get(name)
    if ufunc is None:
        return ""
    types = [np.dtype(value.dtype) for value in ins]
    return str(ufunc.resolve_dtypes((*types, *[None] * ufunc.nout))[-1])


def _like(broadcast: Broadcast, sizes: Sizes, part: Part) -> tuple[int, ...]:
    return () if broadcast == "one" else sizes.shape(broadcast, part)


def _by_function(
    rule: functions.Rule, sizes: Sizes, part: Part, out: Array, *operands: Array
) -> Sequence[Call]:
    """Return the calls of a rule on arrays of the shapes that NumPy is quickest at.

    NumPy starts faster if arrays have few axes, and if an operand that is overwritten is the same
    object as the result.
    """
    arrays = list(operands)
    whole = [out, *(array for array in arrays if array.ndim)]
    if out.ndim and all(a.shape == out.shape and a.flags.c_contiguous for a in whole):
        shape = () if out.size == 1 else (-1,)
        out, *arrays = (a.reshape(shape) if a.ndim else a for a in (out, *arrays))
    return rule(out, *(out if _is_same(array, out) else array for array in arrays))


def _is_same(a: Array, b: Array) -> bool:
    """Return whether two arrays are the same memory, read in the same way."""
    alike = (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    return alike and a.ctypes.data == b.ctypes.data


def _converted(
    rule: Callable[..., Sequence[Call]], sizes: Sizes, part: Part, out: Array, *arrays: Array
) -> Sequence[Call]:
    """Return the calls of a rule whose result has another dtype than the step."""
    *ins, made = arrays
    return *rule(sizes, part, made, *ins), *functions.cast(out, made)


def _reduction(kernel: Kernel, step: Step, out: Value, x: Value) -> Action:
    ufunc = np.add if step.op == "sum" else np.maximum
    axis = str(step.value)
    if step.op == "sum" and step.dtype in FLOATS and x.broadcast == "each":
        return Action(
            partial(_summed, axis), out, (x,), (Work(step.dtype, partial(_ones_shape, axis)),)
        )
    if step.op == "max" and axis == "columns" and x.broadcast == "each" and _is_narrow(kernel):
        return Action(_largest, out, (x,), (Work(step.dtype, _narrow_shape),))
    return Action(partial(_reduced, ufunc, axis), out, (x,))


def _is_narrow(kernel: Kernel) -> bool:
    """Return whether a kernel has few columns and several rows."""
    rows, columns = kernel.space
    return isinstance(columns, int) and 1 < columns <= NARROW and rows != 1


def _many_summed(axis: str, sizes: Sizes, part: Part) -> int:
    """Return the number of elements of each sum."""
    return part.width if axis == "columns" else part.height * prod(sizes.places)


def _ones_shape(axis: str, sizes: Sizes, part: Part) -> tuple[int]:
    """Return the shape of the ones of a sum that is longer than the shared ones."""
    many = _many_summed(axis, sizes, part)
    return (many if many > ONES and not _is_line(sizes, part) else 0,)


def _is_line(sizes: Sizes, part: Part) -> bool:
    return 1 in (part.height * prod(sizes.places), part.width)


@cache
def _shared_ones(dtype: str) -> Array:
    ones = np.ones(ONES, dtype)
    ones.flags.writeable = False
    return ones


def _summed(
    axis: str, sizes: Sizes, part: Part, out: Array, x: Array, ones: Array
) -> Sequence[Call]:
    """Return the calls that sum over an axis: a product with ones, which is quicker.

    NumPy adds a long line of numbers pairwise, which is more exact.
    """
    whole = np.broadcast_to(x, sizes.shape("each", part))
    many = _many_summed(axis, sizes, part)
    dense = whole.flags.c_contiguous and out.flags.c_contiguous
    if not dense or not whole.size or (many > ONES and not ones.size):
        return _reduced(np.add, axis, sizes, part, out, x)
    matrix, right = whole.reshape(-1, whole.shape[-1]), ones
    calls: list[Call] = [partial(ones.fill, 1)] if ones.size else []
    if not ones.size:
        right = _shared_ones(str(out.dtype))[:many]
    left, right = (matrix, right) if axis == "columns" else (right, matrix)
    return *calls, partial(left.dot, right, out.reshape(-1))


def _reduced(
    ufunc: np.ufunc, axis: str, sizes: Sizes, part: Part, out: Array, x: Array
) -> Sequence[Call]:
    """Return the call that reduces an axis."""
    whole = np.broadcast_to(x, sizes.shape("each", part))
    axes = (whole.ndim - 1,) if axis == "columns" else tuple(range(whole.ndim - 1))
    return (partial(ufunc.reduce, whole, axes, out.dtype, out, keepdims=True),)


def _narrow_shape(sizes: Sizes, part: Part) -> tuple[int, ...]:
    return part.width, part.height * prod(sizes.places)


def _largest(sizes: Sizes, part: Part, out: Array, x: Array, transposed: Array) -> Sequence[Call]:
    """Return the calls for the maximum of few columns, by a transposed copy."""
    source = x.reshape(transposed.shape[::-1]).T
    largest = partial(np.maximum.reduce, transposed, 0, None, out.reshape(-1))
    return partial(np.copyto, transposed, source), largest


def _places_shape(added: ScatterAdd, sizes: Sizes, part: Part) -> tuple[int, int]:
    return dim_at(added.count, sizes.n), sizes.columns


def _random_shape(number: int, sizes: Sizes, part: Part) -> tuple[int, ...]:
    shapes = higher("philox").mask_scratch(part.height * prod(sizes.places), part.width)
    shape: tuple[int, ...] = shapes[number][0]
    return shape


def _random(
    step: Step, sizes: Sizes, part: Part, out: Array, seed: Array, draws: Array, *rest: Array
) -> Sequence[Call]:
    """Return the call that writes the random words of a part."""
    first, scratch = rest[:-2], rest[-2:]
    words = out.reshape(-1, out.shape[-1])
    row = part.rows.start * prod(sizes.places)
    assert isinstance(step.value, int), "the value is the stream"
    return (partial(_fill, words, step.value, row, scratch, seed, draws, *first),)


def _fill(words: Array, stream: int, row: int, scratch: Sequence[Array], *keys: Array) -> None:
    seed, draws, *first = (int(key.item()) for key in keys)
    higher("philox").fill_words(words, seed, stream, draws, scratch, sum(first) + row)
