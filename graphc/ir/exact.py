"""Equality that overlooks nothing, for what is found again by its value.

Python takes 0.0 for -0.0, and 1 for 1.0 and for True; none of them have the same code.
"""

from __future__ import annotations

from struct import pack

import numpy as np


def same(a: object, b: object) -> bool:
    """Return whether two values are equal in type and in every bit."""
    if type(a) is not type(b):
        return False
    if a is b:
        return True
    if isinstance(a, float):
        return pack("d", a) == pack("d", b)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (np.ndarray, np.generic)) and isinstance(b, (np.ndarray, np.generic)):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return bool(a == b)
