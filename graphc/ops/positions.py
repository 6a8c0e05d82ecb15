"""The position of each row in a sequence: as numbers to add, or as a rotation."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Value, as_value
from graphc.ir.init import Normal, resolve
from graphc.ir.op import Array
from graphc.ops.concat import concat
from graphc.ops.elementwise import add, mul, neg
from graphc.ops.source import Parameter, constant

PERIOD = 10000.0
"""The longest wavelength in both papers, in units of 2 pi."""
NORMAL = Normal(0.02)
"""The initial values of learned positions, as in GPT-2."""


def sinusoidal_positions(x: Value, *, name: str | None = None) -> Value:
    """Add sin(t / 10000**(2i / C)) to columns 2i of x (..., T, C), and cos to columns 2i + 1.

    Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.  Raise GraphError unless C is even.
    """
    steps, width = _sizes("sinusoidal_positions", x)
    angles = _angles(steps, width)
    table = np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(steps, width)
    return add(x, constant(x.builder, table, x.dtype), name=name)


def learned_positions(x: Value, *, init: Any = NORMAL, name: str | None = None) -> Value:
    """Add `<node>.weight` (T, C), a trained row for each position, to x (..., T, C)."""
    b = as_value("learned_positions", x).builder
    steps, width = _sizes("learned_positions", x, even=False)
    node = b.free_name("learned_positions", name)
    with b.all_or_nothing():
        table = _table(f"{node}.weight", (steps, width), x.dtype, init)
        return add(x, b.apply(table, name=f"{node}.weight"), name=node)


def _table(name: str, sizes: tuple[int, int], dtype: str, init: Any) -> Parameter:
    try:
        return Parameter(sizes, dtype, resolve(init, sizes))
    except ValueError as error:
        raise GraphError(f"parameter {name!r}: {error}", loc=caller_loc()) from None


def rotary_positions(x: Value, *, name: str | None = None) -> Value:
    """Rotate each pair of columns (i, i + C/2) of x (..., T, C) by t / 10000**(2i / C).

    For queries and keys of each head: their products then depend only on the distance of positions
    (Su et al. 2021, arXiv:2104.09864; halves as pairs, as in GPT-NeoX and Llama).  Raise GraphError
    unless C is even.
    """
    steps, width = _sizes("rotary_positions", x)
    b, half = x.builder, width // 2
    angles = np.tile(_angles(steps, width), 2)
    with b.all_or_nothing():
        turned = concat([neg(x[..., half:]), x[..., :half]], axis=-1)
        cos, sin = (constant(b, part, x.dtype) for part in (np.cos(angles), np.sin(angles)))
        return add(mul(x, cos), mul(turned, sin), name=name)


def _angles(steps: int, width: int) -> Array:
    """Return the angle of each position and wave: (steps, width / 2)."""
    waves = PERIOD ** (-np.arange(0, width, 2) / width)
    return np.asarray(np.arange(steps)[:, None] * waves)


def _sizes(what: str, x: Value, *, even: bool = True) -> tuple[int, int]:
    """Return the number of positions and the width of x; raise GraphError if x does not fit."""
    steps, width = as_value(what, x).shape[-2:] if x.type.rank > 2 else (None, None)
    fits = x.type.is_float and isinstance(width, int) and not (even and width % 2)
    if fits and isinstance(steps, int) and isinstance(width, int):
        return steps, width
    raise GraphError(
        f"{what}: x is {x.type}",
        operands=[x.node.described("x")],
        loc=caller_loc(),
        hint=f"it must be floats of shape (..., T, C){' with an even C' if even else ''}",
    )
