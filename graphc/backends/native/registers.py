"""Vectors in registers: types, constants and the arithmetic that takes about one instruction."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from math import isnan

from graphc.backends.native.ir import Function, Value
from graphc.ir.tensor_type import ITEMSIZE

FLOATS = ("float32", "float64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64", "bool")

_REGISTER = {
    "float32": "float",
    "float64": "double",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint64": "i64",
    "uint32": "i32",
    "uint16": "i16",
    "uint8": "i8",
    "bool": "i1",
}
_MANGLED = {"float": "f32", "double": "f64"}
_COMPARED = {  # function: (floats, signed integers, unsigned integers)
    "less": ("olt", "slt", "ult"),
    "less_equal": ("ole", "sle", "ule"),
    "greater": ("ogt", "sgt", "ugt"),
    "greater_equal": ("oge", "sge", "uge"),
    "equal": ("oeq", "eq", "eq"),
    "not_equal": ("une", "ne", "ne"),
}


def element_type(dtype: str) -> str:
    """Return the type of an element in memory: bool is a byte, 0 or 1."""
    return "i8" if dtype == "bool" else _REGISTER[dtype]


def literal(number: float, dtype: str) -> str:
    """Return a scalar constant; floats, rounded to the dtype, as a double's hexadecimal digits."""
    if dtype == "bool":
        return "true" if number else "false"
    if dtype not in FLOATS:
        return str(int(number))
    if dtype == "float32":
        number = _rounded(number)
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


def _rounded(number: float) -> float:
    """Return the nearest float32; an infinity beyond the largest."""
    try:
        nearest: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
    return nearest


class Registers:
    """Instructions on vectors of `lanes` elements, appended to a function."""

    def __init__(self, function: Function, lanes: int) -> None:
        """Append to `function`; `lanes` is a power of two."""
        self.function, self.lanes = function, lanes
        self._numbers: dict[tuple[Value, str], float] = {}

    def type(self, dtype: str) -> str:
        """Return the type of a vector: `<16 x float>`; bool is `<16 x i1>`."""
        return f"<{self.lanes} x {_REGISTER[dtype]}>"

    # ------------------------------------------------------------------ constants

    def const(self, number: float, dtype: str) -> Value:
        """Return the number in all lanes, as literal text."""
        text = f"splat ({_REGISTER[dtype]} {literal(number, dtype)})"
        self._numbers[text, dtype] = number
        return text

    def number(self, x: Value, dtype: str) -> float | None:
        """Return the number that `const` put into all lanes, or None."""
        return self._numbers.get((x, dtype))

    def splat(self, scalar: Value, dtype: str) -> Value:
        """Return a scalar in all lanes."""
        element, type = _REGISTER[dtype], self.type(dtype)
        if not scalar.startswith("%"):
            return f"splat ({element} {scalar})"
        first = self.function.value(f"insertelement {type} poison, {element} {scalar}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.function.value(f"shufflevector {type} {first}, {type} poison, {zeros}")

    def lane_numbers(self, dtype: str = "int64") -> Value:
        """Return 0, 1, ... in the lanes, as literal text."""
        element = _REGISTER[dtype]
        return "<" + ", ".join(f"{element} {lane}" for lane in range(self.lanes)) + ">"

    def mask(self, lanes: Iterable[bool]) -> Value:
        """Return the mask of known lanes, as literal text."""
        return "<" + ", ".join(f"i1 {str(lane).lower()}" for lane in lanes) + ">"

    def numbers_from(self, first: Value) -> Value:
        """Return first, first + 1, ... in the lanes, as int64."""
        return self.add(self.splat(first, "int64"), self.lane_numbers("int64"), "int64")

    def whole(self, number: Value | int, dtype: str) -> Value:
        """Return a whole number, an i64, in all lanes."""
        if not str(number).startswith("%"):
            return self.const(int(number), dtype)
        return self.cast(self.splat(str(number), "int64"), "int64", dtype)

    # ------------------------------------------------------------------ arithmetic

    def binary(self, operation: str, a: Value, b: Value, dtype: str) -> Value:
        """Emit an instruction of two vectors: `fadd`, `xor`, ..."""
        return self.function.value(f"{operation} {self.type(dtype)} {a}, {b}")

    def add(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a + b; integers wrap."""
        return self.binary("fadd" if dtype in FLOATS else "add", a, b, dtype)

    def sub(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a - b; integers wrap."""
        return self.binary("fsub" if dtype in FLOATS else "sub", a, b, dtype)

    def mul(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a * b; integers wrap."""
        return self.binary("fmul" if dtype in FLOATS else "mul", a, b, dtype)

    def div(self, a: Value, b: Value, dtype: str) -> Value:
        """Return a / b of floats."""
        return self.binary("fdiv", a, b, dtype)

    def neg(self, a: Value, dtype: str) -> Value:
        """Return -a; integers wrap."""
        if dtype in FLOATS:
            return self.function.value(f"fneg {self.type(dtype)} {a}")
        return self.sub(self.const(0, dtype), a, dtype)

    def fma(self, a: Value, b: Value, c: Value, dtype: str) -> Value:
        """Return a * b + c of floats, rounded once."""
        return self.intrinsic("fma", (a, b, c), dtype)

    def select(self, mask: Value, a: Value, b: Value, dtype: str) -> Value:
        """Return `a` in the lanes where the mask is set, else `b`."""
        type = self.type(dtype)
        return self.function.value(f"select {self.type('bool')} {mask}, {type} {a}, {type} {b}")

    def both(self, a: Value, b: Value) -> Value:
        """Return the mask of the lanes that are set in both masks."""
        return self.binary("and", a, b, "bool")

    def compare(self, function: str, a: Value, b: Value, dtype: str) -> Value:
        """Return the mask of "less", "equal", ...; with NaN only `not_equal` holds."""
        ordered, signed, unsigned = _COMPARED[function]
        if dtype in FLOATS:
            return self.binary(f"fcmp {ordered}", a, b, dtype)
        return self.binary(f"icmp {unsigned if dtype in UNSIGNED else signed}", a, b, dtype)

    def is_nan(self, x: Value, dtype: str) -> Value:
        """Return the mask of the NaNs of floats."""
        return self.binary("fcmp uno", x, x, dtype)

    def maximum(self, a: Value, b: Value, dtype: str) -> Value:
        """Return the larger; NaN where either is.  Of zeros of both signs, either one."""
        return self._extreme("greater", a, b, dtype)

    def minimum(self, a: Value, b: Value, dtype: str) -> Value:
        """Return the smaller; NaN where either is.  Of zeros of both signs, either one."""
        return self._extreme("less", a, b, dtype)

    def _extreme(self, function: str, a: Value, b: Value, dtype: str) -> Value:
        if self._is_number(b, dtype):
            a, b = b, a
        # The selection yields b when either is NaN, and is one instruction of x86.
        chosen = self.select(self.compare(function, a, b, dtype), a, b, dtype)
        if dtype not in FLOATS or self._is_number(a, dtype):
            return chosen
        return self.select(self.is_nan(a, dtype), a, chosen, dtype)

    def _is_number(self, x: Value, dtype: str) -> bool:
        number = self.number(x, dtype)
        return number is not None and not isnan(number)

    # ------------------------------------------------------------------ conversion

    def truth(self, x: Value, dtype: str) -> Value:
        """Return the mask of the lanes that are not zero; NaN is not zero."""
        if dtype == "bool":
            return x
        return self.compare("not_equal", x, self.const(0, dtype), dtype)

    def cast(self, x: Value, source: str, dtype: str) -> Value:
        """Return x in another dtype.

        Floats are truncated to integers and saturate, and NaN becomes 0; integers wrap.
        """
        before, after = self.type(source), self.type(dtype)
        if dtype == "bool":
            return self.truth(x, source)
        if source in FLOATS and dtype not in FLOATS:
            name = "fptoui.sat" if dtype in UNSIGNED else "fptosi.sat"
            return self.intrinsic(name, (x,), source, dtype)
        if before == after:
            return x
        return self.function.value(f"{_conversion(source, dtype)} {before} {x} to {after}")

    def bits(self, x: Value, source: str, dtype: str) -> Value:
        """Return the same bits as another dtype of the same size."""
        return self.function.value(f"bitcast {self.type(source)} {x} to {self.type(dtype)}")

    # ------------------------------------------------------------------ intrinsics

    def intrinsic(
        self, name: str, args: Sequence[Value], dtype: str, result: str | None = None
    ) -> Value:
        """Call `llvm.<name>` of vectors of `dtype`; `result` is the result's dtype, if another."""
        type, yields = self.type(dtype), self.type(result or dtype)
        suffixes = [self.mangled(dtype)] if result is None else map(self.mangled, (result, dtype))
        symbol = ".".join([f"@llvm.{name}", *suffixes])
        self.function.module.declare(f"declare {yields} {symbol}({', '.join([type] * len(args))})")
        listed = ", ".join(f"{type} {x}" for x in args)
        return self.function.value(f"call {yields} {symbol}({listed})")

    def mangled(self, dtype: str) -> str:
        """Return the suffix of an intrinsic's name: `v16f32`."""
        element = _REGISTER[dtype]
        return f"v{self.lanes}{_MANGLED.get(element, element)}"


def _conversion(source: str, dtype: str) -> str:
    """Return the instruction between floats, from integers to floats, or between integer sizes."""
    if source in FLOATS:
        return "fpext" if dtype == "float64" else "fptrunc"
    if dtype in FLOATS:
        return "uitofp" if source in UNSIGNED else "sitofp"
    if source != "bool" and ITEMSIZE[dtype] < ITEMSIZE[source]:
        return "trunc"
    return "zext" if source in UNSIGNED else "sext"
