"""Machine code that Python calls as a builtin function."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, cast

_ONE_ARGUMENT = 0x0008  # METH_O


class _Method(ctypes.Structure):
    """The C structure PyMethodDef: name, function, flags and documentation."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def builtin(
    name: str, address: int, frame: ctypes.Array[ctypes.c_uint64], keep: tuple[Any, ...]
) -> Callable[[Any], Any]:
    """Return the code at `address`, `ptr code(ptr self, ptr argument)`, as a Python function.

    `self` is the address of `frame` as an int.  The function keeps its frame and `keep` alive.
    """
    method = _Method(name.encode(), address, _ONE_ARGUMENT, None)
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, *[ctypes.py_object] * 2)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    # The third argument is the builtin's `__module__`, any object: it lives as long as the builtin.
    made = new(ctypes.addressof(method), ctypes.addressof(frame), (method, frame, keep))
    return cast("Callable[[Any], Any]", made)
