"""The evaluation of a kernel's body on vectors, shared by loops and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping

from graphc.backends.native.ir import Value
from graphc.backends.native.vectors import Vectors
from graphc.kernels.body import Body, Step

LEAVES = ("load", "fetch", "offset", "index", "size", "product", "sum", "max", "philox")
"""The ops of the steps whose values the kernel around the body provides."""

Leaf = Callable[[Step], Value]


def evaluate(
    v: Vectors, body: Body, numbers: Iterable[int], values: MutableMapping[int, Value], leaf: Leaf
) -> None:
    """Emit the steps with these numbers, in order, and add their vectors to `values`.

    Arguments are found in `values`, as are steps already known.  `leaf` gets a step whose op is
    in `LEAVES` and returns its vector.  Every step rounds by itself, so that the value of a step
    does not depend on the other steps of the kernel.
    """
    for number in numbers:
        if number in values:
            continue
        step = body.steps[number]
        if step.op == "const":
            values[number] = v.const(_number(step), step.dtype)
        elif step.op in LEAVES:
            values[number] = leaf(step)
        else:
            args = [values[a] for a in step.args]
            dtypes = [body.steps[a].dtype for a in step.args]
            values[number] = v.apply(step.op, args, dtypes, step.dtype)


def _number(step: Step) -> float:
    assert isinstance(step.value, int | float), "a constant is a number"
    return step.value
