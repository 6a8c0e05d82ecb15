"""A move of vectors towards others, in one pass: own = own * (1 - mix) + other * mix."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from string import Template

import numpy as np

from graphc.backends.native.builtin import builtin
from graphc.backends.native.ir import Module
from graphc.backends.native.jit import Library, load
from graphc.backends.native.target import host
from graphc.ir.op import Array

_PYTHON = (
    "declare ptr @PyLong_AsVoidPtr(ptr)",
    "declare double @PyFloat_AsDouble(ptr)",
    "declare ptr @PyErr_Occurred()",
    "declare ptr @Py_NewRef(ptr)",
)

# Each product and the sum is rounded by itself, as NumPy rounds them.
_MOVE = """\
define internal void @move_$type(ptr %own, ptr %other, i64 %count, $type %keep, $type %mix) #0 {
entry:
  %keep.0 = insertelement <16 x $type> poison, $type %keep, i64 0
  %keeps = shufflevector <16 x $type> %keep.0, <16 x $type> poison, <16 x i32> zeroinitializer
  %mix.0 = insertelement <16 x $type> poison, $type %mix, i64 0
  %mixes = shufflevector <16 x $type> %mix.0, <16 x $type> poison, <16 x i32> zeroinitializer
  %blocks = and i64 %count, -16
  br label %block
block:
  %i = phi i64 [ 0, %entry ], [ %i.next, %more ]
  %inside = icmp ult i64 %i, %blocks
  br i1 %inside, label %more, label %rest
more:
  %own_at = getelementptr $type, ptr %own, i64 %i
  %other_at = getelementptr $type, ptr %other, i64 %i
  %a = load <16 x $type>, ptr %own_at, align $align
  %b = load <16 x $type>, ptr %other_at, align $align
  %a.part = fmul <16 x $type> %a, %keeps
  %b.part = fmul <16 x $type> %b, %mixes
  %sum = fadd <16 x $type> %a.part, %b.part
  store <16 x $type> %sum, ptr %own_at, align $align
  %i.next = add i64 %i, 16
  br label %block
rest:
  %j = phi i64 [ %blocks, %block ], [ %j.next, %one ]
  %left = icmp ult i64 %j, %count
  br i1 %left, label %one, label %done
one:
  %own_one = getelementptr $type, ptr %own, i64 %j
  %other_one = getelementptr $type, ptr %other, i64 %j
  %x = load $type, ptr %own_one, align $align
  %y = load $type, ptr %other_one, align $align
  %x.part = fmul $type %x, %keep
  %y.part = fmul $type %y, %mix
  %total = fadd $type %x.part, %y.part
  store $type %total, ptr %own_one, align $align
  %j.next = add i64 %j, 1
  br label %rest
done:
  ret void
}"""

# `self` is the address, as an int, of: ptr None, i64 pairs, then for each pair
# ptr own, ptr other, i64 count, i64 bytes of an element (4 or 8).
_MIX = """\
define ptr @mix(ptr %self, ptr %share) #0 {
entry:
  %frame = call ptr @PyLong_AsVoidPtr(ptr %self)
  %mix = call double @PyFloat_AsDouble(ptr %share)
  %error = call ptr @PyErr_Occurred()
  %failed = icmp ne ptr %error, null
  br i1 %failed, label %raise, label %start
raise:
  ret ptr null
start:
  %keep = fsub double 1.0, %mix
  %mix4 = fptrunc double %mix to float
  %keep4 = fptrunc double %keep to float
  %none = load ptr, ptr %frame
  %pairs_at = getelementptr i8, ptr %frame, i64 8
  %pairs = load i64, ptr %pairs_at
  br label %next
next:
  %i = phi i64 [ 0, %start ], [ %following, %moved ]
  %more = icmp ult i64 %i, %pairs
  br i1 %more, label %pair, label %done
pair:
  %far = shl i64 %i, 5
  %offset = add i64 %far, 16
  %own_at = getelementptr i8, ptr %frame, i64 %offset
  %own = load ptr, ptr %own_at
  %other_at = getelementptr i8, ptr %own_at, i64 8
  %other = load ptr, ptr %other_at
  %count_at = getelementptr i8, ptr %own_at, i64 16
  %count = load i64, ptr %count_at
  %bytes_at = getelementptr i8, ptr %own_at, i64 24
  %bytes = load i64, ptr %bytes_at
  %wide = icmp eq i64 %bytes, 8
  br i1 %wide, label %doubles, label %floats
doubles:
  call void @move_double(ptr %own, ptr %other, i64 %count, double %keep, double %mix)
  br label %moved
floats:
  call void @move_float(ptr %own, ptr %other, i64 %count, float %keep4, float %mix4)
  br label %moved
moved:
  %following = add i64 %i, 1
  br label %next
done:
  %result = call ptr @Py_NewRef(ptr %none)
  ret ptr %result
}"""


def mixing_ir() -> str:
    """Return the module of `mix`, a builtin of one argument."""
    module = Module()
    for declaration in _PYTHON:
        module.declare(declaration)
    for type, align in (("float", 4), ("double", 8)):
        module.functions.append(Template(_MOVE).substitute(type=type, align=align))
    module.functions.append(_MIX)
    return module.text()


def bind_mixing(pairs: Sequence[tuple[Array, Array]]) -> Callable[[float], None]:
    """Return `mix(share)`: it moves the first of each pair towards the second by that share.

    The two are contiguous vectors of one length and dtype; the caller keeps them alive.  Raise
    TypeError unless they are both float32 or both float64.
    """
    words = [id(None), len(pairs)]
    for own, other in pairs:
        if own.dtype != other.dtype or own.dtype not in (np.float32, np.float64):
            raise TypeError(f"cannot mix {own.dtype} and {other.dtype}")
        words += [own.ctypes.data, other.ctypes.data, own.size, own.itemsize]
    frame = (ctypes.c_uint64 * len(words))(*words)
    library = _library()
    return builtin("mix", library.address("mix"), frame, (library,))


@lru_cache
def _library() -> Library:
    return load(mixing_ir(), ("mix",), host())
