"""The converter of Einsum: sums of products over named axes, as matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count as numbers

import graphc as gc
from graphc.ir.build import Value
from graphc.ir.tensor_type import Shape, count
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported


def _einsum(call: Call) -> Value:
    values = call.values()
    terms, result = _terms(call.required("equation"), [v.type.rank for v in values])
    left = [_single(v, t) for v, t in zip(values, terms, strict=True)]
    value, names = left.pop(0)
    while left:
        other, its = left.pop(0)
        later = set(result).union(*(names for _, names in left))
        value, names = _contracted(value, names, other, its, later)
    gone = tuple(i for i, name in enumerate(names) if name not in result)
    if gone:
        value = gc.sum(value, gone)
        names = [name for name in names if name in result]
    order = [names.index(name) for name in result]
    return value if order == list(range(len(order))) else gc.transpose(value, order)


def _terms(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Return the axis names of each operand and of the result; axes of an ellipsis are digits."""
    text = equation.replace(" ", "")
    inputs, arrow, output = text.partition("->")
    parts = inputs.split(",")
    if len(parts) != len(ranks):
        raise NotSupported(f"the equation {equation!r} for {len(ranks)} operands")
    most = max(
        (rank - len(part) + 3 for part, rank in zip(parts, ranks, strict=True) if "..." in part),
        default=0,
    )
    terms = []
    for part, rank in zip(parts, ranks, strict=True):
        own = rank - len(part) + 3 if "..." in part else 0
        terms.append(_names(part, most, own))
        if len(terms[-1]) != rank:
            raise NotSupported(f"{part!r} names no axes of a value of rank {rank}")
    if arrow:
        return terms, _names(output, most, most)
    every = [name for term in terms for name in term]
    once = sorted(name for name in set(every) if every.count(name) == 1 and not name.isdigit())
    return terms, [*map(str, range(most)), *once]


def _names(part: str, most: int, own: int) -> list[str]:
    before, dots, behind = part.partition("...")
    between = [str(i) for i in range(most - own, most)] if dots else []
    return [*before, *between, *behind]


def _single(value: Value, names: list[str]) -> tuple[Value, list[str]]:
    """Return the diagonal over axes of the same name, and the names that remain."""
    for position in numbers():
        if position >= len(names):
            return value, names
        name = names[position]
        if names.count(name) == 1:
            continue
        second = names.index(name, position + 1)
        size = value.shape[position]
        if not isinstance(size, int) or value.shape[second] != size:
            raise NotSupported(f"a diagonal of axes {position} and {second} of {value.type}")
        order = [i for i in range(len(names)) if i not in (position, second)]
        moved = gc.transpose(value, [*order, position, second])
        flat = gc.reshape(moved, (*moved.shape[:-2], size * size))
        value = flat[..., :: size + 1]
        names = [*(names[i] for i in order), name]
    raise AssertionError


def _contracted(
    a: Value, names: list[str], b: Value, its: list[str], later: set[str]
) -> tuple[Value, list[str]]:
    """Return the product of two operands, summed over the shared axes that are not needed later."""
    both = [name for name in names if name in its]
    kept = [name for name in both if name in later]
    summed = [name for name in both if name not in later]
    rows = [name for name in names if name not in its]
    columns = [name for name in its if name not in names]
    left, right = _ordered(a, names, kept, rows, summed), _ordered(b, its, kept, summed, columns)
    product = gc.matmul(left, right)
    sizes = dict(zip([*its, *names], [*b.shape, *a.shape], strict=True))
    result = [*kept, *rows, *columns]
    return gc.reshape(product, tuple(sizes[name] for name in result)), result


def _ordered(x: Value, names: list[str], *groups: list[str]) -> Value:
    """Return x permuted and reshaped so that each group of axes is one dimension."""
    order = [names.index(name) for group in groups for name in group]
    moved = x if order == list(range(len(order))) else gc.transpose(x, order)
    sizes = dict(zip(names, x.shape, strict=True))
    shape: Shape = tuple(count(tuple(sizes[name] for name in group)) for group in groups)
    return moved if moved.shape == shape else gc.reshape(moved, shape)


CONVERTERS: dict[str, Callable[[Call], Result]] = {"Einsum": _einsum}
