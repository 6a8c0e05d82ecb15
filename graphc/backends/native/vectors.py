"""Vectors of elements: types, constants, instructions, memory and lanes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from graphc.backends import softfloat
from graphc.backends.arithmetic import FLOATS, LONG, UNSIGNED, Arithmetic
from graphc.backends.native.ir import Function, Value
from graphc.ir.narrow import narrow
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.kernel import LANES

_REGISTER = {
    "float32": "float",
    "float64": "double",
    "bfloat16": "i16",
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
    with np.errstate(over="ignore"):  # a number beyond the largest becomes infinite
        number = float(np.dtype(dtype).type(number))
    number = np.nan if np.isnan(number) else number  # there are many
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


class Vectors(Arithmetic):
    """The emitter of instructions on vectors of `lanes` elements, in a function."""

    def __init__(self, function: Function, lanes: int) -> None:
        """Append to `function`; `lanes` is a power of two."""
        self.function, self.lanes = function, lanes
        self._numbers: dict[tuple[Value, str], float] = {}

    @property
    def narrow(self) -> bool:
        """True if loops of the module have vectors of fewer lanes than sums."""
        return self.function.module.lanes < LANES

    @property
    def fused(self) -> bool:
        """True if multiply-adds are fused, by the contract of the module."""
        return self.function.module.fused

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

    def splat_int(self, number: Value | int, dtype: str) -> Value:
        """Return a whole number, an i64, in all lanes."""
        if not str(number).startswith("%"):
            return self.const(int(number), dtype)
        return self.cast(self.splat(str(number), "int64"), "int64", dtype)

    # ------------------------------------------------------------------ arithmetic

    def binary(self, operation: str, a: Value, b: Value, dtype: str) -> Value:
        """Emit an instruction of two vectors: `fadd`, `xor`, ..."""
        return self.function.value(f"{operation} {self.type(dtype)} {a}, {b}")

    def neg(self, a: Value, dtype: str) -> Value:
        """Return -a; integers wrap."""
        if dtype in FLOATS:
            return self.function.value(f"fneg {self.type(dtype)} {a}")
        return self.sub(self.const(0, dtype), a, dtype)

    def select(self, mask: Value, a: Value, b: Value, dtype: str) -> Value:
        """Return `a` in the lanes where the mask is set, else `b`."""
        type = self.type(dtype)
        return self.function.value(f"select {self.type('bool')} {mask}, {type} {a}, {type} {b}")

    def compare(self, function: str, a: Value, b: Value, dtype: str) -> Value:
        """Return the mask of "less", "equal", ...; with NaN only `not_equal` holds."""
        ordered, signed, unsigned = _COMPARED[function]
        if dtype in FLOATS:
            return self.binary(f"fcmp {ordered}", a, b, dtype)
        return self.binary(f"icmp {unsigned if dtype in UNSIGNED else signed}", a, b, dtype)

    def is_nan(self, x: Value, dtype: str) -> Value:
        """Return the mask of the lanes that are NaN."""
        return self.binary("fcmp uno", x, x, dtype)

    # ------------------------------------------------------------------ conversion

    def cast(self, x: Value, source: str, dtype: str) -> Value:
        """Return x in another dtype.

        Floats are truncated to integers and saturate, and NaN becomes 0; integers wrap.  Those of
        bfloat16, which are their bits, are from float32 or become it.
        """
        if dtype == "bfloat16" != source:
            return self._rounded(x)
        if source == "bfloat16" != dtype:
            words = self._shifted("shl", self.cast(x, "uint16", "int32"))
            return self.bitcast(words, "int32", "float32")
        before, after = self.type(source), self.type(dtype)
        if dtype == "bool":
            return self.truth(x, source)
        if source in FLOATS and dtype not in FLOATS:
            if ITEMSIZE[dtype] < 4:
                return self._narrowed(x, source, dtype)
            name = "fptoui.sat" if dtype in UNSIGNED else "fptosi.sat"
            return self.intrinsic(name, (x,), source, dtype)
        if before == after:
            return x
        return self.function.value(f"{_conversion(source, dtype)} {before} {x} to {after}")

    def _rounded(self, x: Value) -> Value:
        """Return floats rounded to bfloat16: `graphc/features/precision/bfloat16.py` says how."""
        words = self.bitcast(x, "float32", "int32")
        upper = self._shifted("lshr", words)
        tie = self.binary("and", upper, self.const(1, "int32"), "int32")
        bits = self.add(words, self.add(tie, self.const(0x7FFF, "int32"), "int32"), "int32")
        bits = self.cast(self._shifted("lshr", bits), "int32", "uint16")
        size = self.intrinsic("fabs", (x,), "float32")
        small = self.compare("less", size, self.const(narrow().LEAST, "float32"), "float32")
        bits = self.select(small, self.const(0, "uint16"), bits, "uint16")
        nan = self.is_nan(x, "float32")
        return self.select(nan, self.const(narrow().NAN, "uint16"), bits, "uint16")

    def _shifted(self, operation: str, words: Value) -> Value:
        return self.binary(operation, words, self.const(16, "int32"), "int32")

    def _narrowed(self, x: Value, source: str, dtype: str) -> Value:
        """Return floats as integers of 8 or 16 bits: LLVM would convert them one by one."""
        limits = np.iinfo(dtype)
        x = self.maximum(x, self.const(float(limits.min), source), source)
        x = self.minimum(x, self.const(float(limits.max), source), source)
        number = self.binary("fcmp ord", x, x, source)
        x = self.select(number, x, self.const(0, source), source)
        whole = self.function.value(f"fptosi {self.type(source)} {x} to {self.type('int32')}")
        return self.cast(whole, "int32", dtype)

    def bitcast(self, x: Value, source: str, dtype: str) -> Value:
        """Return the same bits as another dtype of the same size."""
        return self.function.value(f"bitcast {self.type(source)} {x} to {self.type(dtype)}")

    # ------------------------------------------------------------------ functions

    def shared(
        self,
        stem: str,
        args: Sequence[Value],
        dtypes: Sequence[str],
        dtype: str,
        write: Callable[[Vectors, list[Value]], Value],
    ) -> Value:
        """Call a function of the module that `write` writes once, for vectors of these lanes."""
        names = [f"%x{i}" for i in range(len(args))]
        typed = [f"{self.type(t)} {x}" for t, x in zip(dtypes, names, strict=True)]
        name = self.function.module.function(
            stem,
            ", ".join(typed),
            lambda f: write(Vectors(f, self.lanes), names),
            (stem, self.lanes, *dtypes, dtype),
            self.type(dtype),
        )
        return self.function.call_for(self.type(dtype), name, *args)

    def applied(
        self, function: str, args: Sequence[Value], dtypes: Sequence[str], dtype: str
    ) -> Value:
        """Return a scalar function of vectors; a long one is a call where registers are narrow."""
        from graphc.backends.maths import apply  # programs with a cached object never import it

        def write(v: Vectors, args: Sequence[Value]) -> Value:
            return apply(v, function, args, dtypes, dtype)

        if self.narrow and function in LONG:
            return self.shared(function, args, dtypes, dtype, write)
        return write(self, args)

    def intrinsic(
        self, name: str, args: Sequence[Value], dtype: str, result: str | None = None
    ) -> Value:
        """Call `llvm.<name>` of vectors of `dtype`; `result` is the result's dtype, if another.

        What the machine lacks is a function of the module.
        """
        if f"{name}.{dtype}" in self.function.module.lacks:
            dtypes = [dtype] * len(args)
            return self.shared(
                name, args, dtypes, dtype, lambda v, x: softfloat.RULES[name](v, *x, dtype)
            )
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

    # ------------------------------------------------------------------ memory

    def mask_below(self, count: Value | int) -> Value:
        """Return the mask of the lanes whose number is below `count` (i64)."""
        if not str(count).startswith("%"):
            return self.mask(lane < int(count) for lane in range(self.lanes))
        # Lanes of 32 bits make half the compares; the count must fit them.
        # The count is negative for vectors of a block that lie past the end.
        fit = self.function.smaller(self.function.larger(count, 0), self.lanes)
        narrow = self.function.value(f"trunc i64 {fit} to i32")
        numbers = self.lane_numbers("int32")
        return self.compare("less", numbers, self.splat(narrow, "int32"), "int32")

    def load(self, pointer: Value, dtype: str, mask: Value | None = None) -> Value:
        """Read consecutive elements; lanes outside the mask are not read, and are 0."""
        if mask is not None:
            return self._masked_read("load", "ptr", pointer, dtype, mask)
        type = self._memory_type(dtype)
        x = self.function.value(f"load {type}, ptr {pointer}, align {ITEMSIZE[dtype]}")
        return self._from_memory(x, dtype)

    def store(self, x: Value, pointer: Value, dtype: str, mask: Value | None = None) -> None:
        """Write consecutive elements; lanes outside the mask are not touched.

        Write a known single lane as a scalar: for AVX-512, LLVM 22 turns a masked store of one lane
        of narrowed numbers into a store of the wide number.
        """
        if mask == self.mask_below(1):
            self.store_first(x, pointer, dtype)
            return
        type, align = self._memory_type(dtype), ITEMSIZE[dtype]
        if dtype == "bool":
            x = self.function.value(f"zext {self.type(dtype)} {x} to {type}")
        if mask is None:
            self.function.do(f"store {type} {x}, ptr {pointer}, align {align}")
            return
        masks = self.type("bool")
        symbol = f"@llvm.masked.store.{self._memory_suffix(dtype)}.p0"
        self.function.module.declare(f"declare void {symbol}({type}, ptr, i32, {masks})")
        self.function.do(
            f"call void {symbol}({type} {x}, ptr {pointer}, i32 {align}, {masks} {mask})"
        )

    def load_splat(self, pointer: Value, dtype: str) -> Value:
        """Read one element into all lanes."""
        element = element_type(dtype)
        x = self.function.value(f"load {element}, ptr {pointer}, align {ITEMSIZE[dtype]}")
        if dtype == "bool":
            x = self.function.value(f"icmp ne i8 {x}, 0")
        return self.splat(x, dtype)

    def gather(self, base: Value, offsets: Value, dtype: str, mask: Value | None) -> Value:
        """Read the elements at offsets (int64) from `base`; lanes outside the mask are 0."""
        element, numbers = element_type(dtype), self.type("int64")
        places = self.function.value(f"getelementptr {element}, ptr {base}, {numbers} {offsets}")
        mask = self.mask_below(self.lanes) if mask is None else mask
        return self._masked_read("gather", f"<{self.lanes} x ptr>", places, dtype, mask)

    def _masked_read(
        self, name: str, pointers: str, places: Value, dtype: str, mask: Value
    ) -> Value:
        type, masks, align = self._memory_type(dtype), self.type("bool"), ITEMSIZE[dtype]
        space = "p0" if pointers == "ptr" else f"v{self.lanes}p0"
        symbol = f"@llvm.masked.{name}.{self._memory_suffix(dtype)}.{space}"
        self.function.module.declare(f"declare {type} {symbol}({pointers}, i32, {masks}, {type})")
        given = f"{pointers} {places}, i32 {align}, {masks} {mask}, {type} zeroinitializer"
        return self._from_memory(self.function.value(f"call {type} {symbol}({given})"), dtype)

    def _from_memory(self, x: Value, dtype: str) -> Value:
        """Return elements that were read; bool is a byte in memory."""
        if dtype != "bool":
            return x
        return self.function.value(f"icmp ne {self._memory_type(dtype)} {x}, zeroinitializer")

    def store_first(self, x: Value, pointer: Value, dtype: str) -> None:
        """Write lane 0 as one element."""
        scalar = self.first(x, dtype)
        if dtype == "bool":
            scalar = self.function.value(f"zext i1 {scalar} to i8")
        element = element_type(dtype)
        self.function.do(f"store {element} {scalar}, ptr {pointer}, align {ITEMSIZE[dtype]}")

    def prefetch(self, pointer: Value, *, write: bool) -> None:
        """Prefetch a cache line: to the first cache if it will be written, else to the second."""
        self.function.module.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        hints = "i32 1, i32 3" if write else "i32 0, i32 2"
        self.function.do(f"call void @llvm.prefetch.p0(ptr {pointer}, {hints}, i32 1)")

    def _memory_type(self, dtype: str) -> str:
        return f"<{self.lanes} x {element_type(dtype)}>"

    def _memory_suffix(self, dtype: str) -> str:
        return f"v{self.lanes}i8" if dtype == "bool" else self.mangled(dtype)

    # ------------------------------------------------------------------ across lanes

    def first(self, x: Value, dtype: str) -> Value:
        """Return lane 0, a scalar."""
        return self.function.value(f"extractelement {self.type(dtype)} {x}, i64 0")

    def sum(self, x: Value, dtype: str) -> Value:
        """Return the sum of the lanes, a scalar: lane l with l + lanes/2, then halves of halves."""
        return self._reduced(x, dtype, lambda half, a, b: half.add(a, b, dtype))

    def max(self, x: Value, dtype: str) -> Value:
        """Return the largest lane, a scalar; NaN if any lane is."""
        return self._reduced(x, dtype, lambda half, a, b: half.maximum(a, b, dtype))

    def _reduced(
        self, x: Value, dtype: str, join: Callable[[Vectors, Value, Value], Value]
    ) -> Value:
        if self.lanes == 1:
            return self.first(x, dtype)
        middle = self.lanes // 2
        half = Vectors(self.function, middle)
        low = self.shuffle(x, "poison", range(middle), dtype)
        high = self.shuffle(x, "poison", range(middle, self.lanes), dtype)
        return half._reduced(join(half, low, high), dtype, join)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int], dtype: str) -> Value:
        """Return chosen lanes of `a`, and of `b` numbered after those of `a`."""
        type, indices = self.type(dtype), ", ".join(f"i32 {lane}" for lane in lanes)
        return self.function.value(
            f"shufflevector {type} {a}, {type} {b}, <{len(lanes)} x i32> <{indices}>"
        )

    def transpose(self, rows: Sequence[Value], dtype: str) -> list[Value]:
        """Return the columns of a square of `lanes` rows, by log2(lanes) stages of shuffles."""
        rows = list(rows)
        block = 4 if ITEMSIZE[dtype] == 4 and self.lanes >= 4 else 1
        distance = self.lanes // 2
        while distance >= block:
            rows = self._exchanged(rows, distance, dtype)
            distance //= 2
        return self._blocks_of_four(rows, dtype) if block == 4 else rows

    def _exchanged(self, rows: list[Value], distance: int, dtype: str) -> list[Value]:
        """Transpose each square of 2 x 2 blocks of `distance` lanes, which stay whole."""
        upper, lower = [], []
        for lane in range(self.lanes):
            odd = lane & distance
            upper.append(lane if not odd else self.lanes + lane - distance)
            lower.append(lane + distance if not odd else self.lanes + lane)
        result = list(rows)
        for i in (i for i in range(self.lanes) if not i & distance):
            a, b = rows[i], rows[i + distance]
            result[i] = self.shuffle(a, b, upper, dtype)
            result[i + distance] = self.shuffle(a, b, lower, dtype)
        return result

    def _blocks_of_four(self, rows: list[Value], dtype: str) -> list[Value]:
        """Transpose each block of 4 x 4 with the unpack instructions of x86."""

        def blocks(*lanes: int) -> list[int]:
            return [
                base + lane % 4 + (self.lanes if lane >= 4 else 0)
                for base in range(0, self.lanes, 4)
                for lane in lanes
            ]

        low, high = blocks(0, 4, 1, 5), blocks(2, 6, 3, 7)
        left, right = blocks(0, 1, 4, 5), blocks(2, 3, 6, 7)
        result: list[Value] = []
        for i in range(0, self.lanes, 4):
            a, b, c, d = rows[i : i + 4]
            for half in (low, high):
                upper, lower = self.shuffle(a, b, half, dtype), self.shuffle(c, d, half, dtype)
                result += [self.shuffle(upper, lower, side, dtype) for side in (left, right)]
        return result


def _conversion(source: str, dtype: str) -> str:
    """Return the instruction between floats, from integers to floats, or between integer sizes."""
    if source in FLOATS:
        return "fpext" if dtype == "float64" else "fptrunc"
    if dtype in FLOATS:
        return "uitofp" if source in UNSIGNED else "sitofp"
    if source != "bool" and ITEMSIZE[dtype] < ITEMSIZE[source]:
        return "trunc"
    return "zext" if source in UNSIGNED else "sext"
