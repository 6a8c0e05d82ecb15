"""A kernel's body in vectors: what loops and matrix products share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping

from graphc.backends.native.ir import Value
from graphc.backends.native.registers import FLOATS
from graphc.backends.native.vectors import Vectors
from graphc.kernels.body import Body, Step

LEAVES = ("load", "index", "size", "product", "sum", "max", "philox")
"""The steps that only the kernel around the body knows how to get."""

Leaf = Callable[[Step], Value]


def evaluate(
    v: Vectors, body: Body, numbers: Iterable[int], values: MutableMapping[int, Value], leaf: Leaf
) -> None:
    """Emit the steps with these numbers, in order, and add them to `values`.

    Arguments are found in `values`, as are steps already known.  `leaf` gets a step that is no
    function of others (see LEAVES) and yields its vector.  A product that has one user, a sum or a
    difference of the same dtype and span, becomes a fused multiply-add there.
    """
    numbers = [n for n in numbers if n not in values]
    fused = {
        n: product for n in numbers if (product := _fused_product(body, n, values)) is not None
    }
    inside = set(fused.values()) & set(numbers)
    for number in numbers:
        step = body.steps[number]
        if number in inside:
            continue
        if step.op == "const":
            values[number] = v.const(_number(step), step.dtype)
        elif step.op in LEAVES:
            values[number] = leaf(step)
        elif number in fused:
            values[number] = _multiply_add(v, body, step, fused[number], values)
        else:
            args = [values[a] for a in step.args]
            dtypes = [body.steps[a].dtype for a in step.args]
            values[number] = v.apply(step.op, args, dtypes, step.dtype)


def _number(step: Step) -> float:
    assert isinstance(step.value, int | float), "a constant is a number"
    return step.value


def _fused_product(body: Body, number: int, values: MutableMapping[int, Value]) -> int | None:
    """The product that the step takes into itself, or None."""
    step = body.steps[number]
    if step.op not in ("add", "sub") or step.dtype not in FLOATS:
        return None
    for arg in step.args:
        product = body.steps[arg]
        if (
            product.op == "mul"
            and product.span == step.span
            and arg not in values
            and _users(body, arg) == 1
        ):
            return arg
    return None


def _users(body: Body, number: int) -> int:
    """How often a step is read, by steps and by stores."""
    return sum(step.args.count(number) for step in body.steps) + sum(
        store.step == number for store in body.stores
    )


def _multiply_add(
    v: Vectors, body: Body, step: Step, product: int, values: MutableMapping[int, Value]
) -> Value:
    """a * b + c, a * b - c or c - a * b."""
    a, b = (values[arg] for arg in body.steps[product].args)
    first = step.args[0] == product
    other = values[step.args[1 if first else 0]]
    if step.op == "sub" and first:
        other = v.apply("neg", [other], [step.dtype], step.dtype)
    elif step.op == "sub":
        a = v.apply("neg", [a], [step.dtype], step.dtype)
    return v.fma(a, b, other, step.dtype)
