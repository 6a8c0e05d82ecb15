"""Machine code as a builtin function of Python, by the interpreter's own PyCFunction_NewEx."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, cast

_ONE_ARGUMENT = 0x0008  # METH_O


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def builtin(
    name: str, address: int, frame: ctypes.Array[ctypes.c_uint64], keep: tuple[Any, ...]
) -> Callable[[Any], Any]:
    """A function of one argument: `ptr code(ptr self, ptr argument)` at `address`.

    `self` is the address of `frame` as an int.  The function keeps alive its frame and `keep`.
    """
    method = _Method(name.encode(), address, _ONE_ARGUMENT, None)
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, *[ctypes.py_object] * 2)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    # The third is the builtin's `__module__`, which may be any object: it lives as long.
    made = new(ctypes.addressof(method), ctypes.addressof(frame), (method, frame, keep))
    return cast("Callable[[Any], Any]", made)
