"""The type of NumPy kernels: they bind arrays once, to calls that are made at every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.op import Array, Op

Call = Callable[[], object]
Kernel = Callable[[Op, Sequence[Array], Array, Sequence[Array]], Sequence[Call]]
"""kernel(op, ins, out, scratch): the calls, in order, that compute `out`.

The op is concrete (`op.at(n)`); the arrays are C-contiguous views of memory whose contents
change between runs; scratch is what the op's `lower` asked for, in that order.  A kernel
allocates no array at run time.  `out` may be the memory of an operand that the op lists in
`inplace`, and of no other.

Methods such as `x.dot` are bound rather than functions such as `np.dot`, which first check every
argument for an override: 0.1 us a call."""


def number(value: float, like: Array) -> Array:
    """Return a number as an array without axes: a ufunc converts any other number at each call."""
    return np.array(value, like.dtype)
