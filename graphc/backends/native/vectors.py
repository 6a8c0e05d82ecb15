"""Vectors of elements: memory, lanes, scalar functions, and the steps of a kernel's body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Sequence

from graphc.backends.native import maths
from graphc.backends.native.ir import Value
from graphc.backends.native.registers import FLOATS, UNSIGNED, Registers, element_type
from graphc.ir.expr import COMPARISONS, Body, Step
from graphc.ir.tensor_type import ITEMSIZE

LEAVES = ("load", "fetch", "offset", "index", "size", "product", "sum", "max", "philox")
"""The ops of steps that the caller of `evaluate` emits."""

Leaf = Callable[[Step], Value]


class Vectors(Registers):
    """The emitter of a kernel's vectors; `Registers` has types, constants and arithmetic."""

    # ------------------------------------------------------------------ memory

    def mask_below(self, count: Value | int) -> Value:
        """Return the mask of the lanes whose number is below `count` (i64)."""
        if not str(count).startswith("%"):
            return self.mask(lane < int(count) for lane in range(self.lanes))
        # Lanes of 32 bits make half the compares; the count must fit them.
        fit = self.function.smaller(self.function.larger(count, 0), self.lanes)
        narrow = self.function.value(f"trunc i64 {fit} to i32")
        numbers = self.lane_numbers("int32")
        return self.compare("less", numbers, self.splat(narrow, "int32"), "int32")

    def load(self, pointer: Value, dtype: str, mask: Value | None = None) -> Value:
        """Read consecutive elements; lanes outside the mask are not read, and are 0."""
        type, align = self._memory_type(dtype), ITEMSIZE[dtype]
        if mask is None:
            x = self.function.value(f"load {type}, ptr {pointer}, align {align}")
        else:
            masks = self.type("bool")
            symbol = f"@llvm.masked.load.{self._memory_suffix(dtype)}.p0"
            self.function.module.declare(f"declare {type} {symbol}(ptr, i32, {masks}, {type})")
            x = self.function.value(
                f"call {type} {symbol}(ptr {pointer}, i32 {align}, {masks} {mask}, "
                f"{type} zeroinitializer)"
            )
        return self.function.value(f"icmp ne {type} {x}, zeroinitializer") if _byte(dtype) else x

    def store(self, x: Value, pointer: Value, dtype: str, mask: Value | None = None) -> None:
        """Write consecutive elements; lanes outside the mask are not touched."""
        type, align = self._memory_type(dtype), ITEMSIZE[dtype]
        if _byte(dtype):
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
        if _byte(dtype):
            x = self.function.value(f"icmp ne i8 {x}, 0")
        return self.splat(x, dtype)

    def gather(self, base: Value, offsets: Value, dtype: str, mask: Value | None) -> Value:
        """Read the elements at offsets (int64) from `base`; lanes outside the mask are 0."""
        type, align, pointers = self._memory_type(dtype), ITEMSIZE[dtype], f"<{self.lanes} x ptr>"
        element, numbers = element_type(dtype), self.type("int64")
        places = self.function.value(f"getelementptr {element}, ptr {base}, {numbers} {offsets}")
        masks = self.type("bool")
        symbol = f"@llvm.masked.gather.{self._memory_suffix(dtype)}.v{self.lanes}p0"
        self.function.module.declare(f"declare {type} {symbol}({pointers}, i32, {masks}, {type})")
        x = self.function.value(
            f"call {type} {symbol}({pointers} {places}, i32 {align}, "
            f"{masks} {self.mask_below(self.lanes) if mask is None else mask}, "
            f"{type} zeroinitializer)"
        )
        return self.function.value(f"icmp ne {type} {x}, zeroinitializer") if _byte(dtype) else x

    def store_first(self, x: Value, pointer: Value, dtype: str) -> None:
        """Write lane 0 as one element."""
        scalar = self.first(x, dtype)
        if _byte(dtype):
            scalar = self.function.value(f"zext i1 {scalar} to i8")
        element = element_type(dtype)
        self.function.do(f"store {element} {scalar}, ptr {pointer}, align {ITEMSIZE[dtype]}")

    def each(self, count: Value | int, visit: Callable[[Value, Value | None], None]) -> None:
        """Emit `visit(first, mask)` for each vector of `count` elements; the last may be masked."""
        f = self.function
        full = f.even(count, self.lanes)
        f.loop(0, full, self.lanes, lambda i, _: visit(i, None))
        rest = f.sub(count, full)
        if rest.startswith("%"):
            f.when(f.less(0, rest), lambda: visit(full, self.mask_below(rest)))
        elif rest != "0":
            visit(full, self.mask_below(rest))

    def copy(self, source: Value, target: Value, count: Value | int, dtype: str) -> None:
        """Copy `count` neighbours in memory, which do not overlap the target."""
        element = element_type(dtype)

        def piece(i: Value, mask: Value | None) -> None:
            x = self.load(self.function.address(source, i, element), dtype, mask)
            self.store(x, self.function.address(target, i, element), dtype, mask)

        self.each(count, piece)

    def clear(self, target: Value, count: Value | int, dtype: str) -> None:
        """Write `count` zeros to an address, rounded up to full vectors."""
        f, element = self.function, element_type(dtype)

        def zeros(i: Value, _: list[Value]) -> None:
            self.store(self.const(0, dtype), f.address(target, i, element), dtype)

        f.loop(0, count, self.lanes, zeros)

    def prefetch(self, pointer: Value, *, write: bool) -> None:
        """Prefetch a cache line: to the first cache if it will be written, else to the second."""
        self.function.module.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        hints = "i32 1, i32 3" if write else "i32 0, i32 2"
        self.function.do(f"call void @llvm.prefetch.p0(ptr {pointer}, {hints}, i32 1)")

    def _memory_type(self, dtype: str) -> str:
        return f"<{self.lanes} x {element_type(dtype)}>"

    def _memory_suffix(self, dtype: str) -> str:
        return f"v{self.lanes}i8" if _byte(dtype) else self.mangled(dtype)

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

    # ------------------------------------------------------------------ scalar functions

    def apply(
        self, function: str, args: Sequence[Value], dtypes: Sequence[str], dtype: str
    ) -> Value:
        """Apply a function of `graphc.kernels.functions.FUNCTIONS` to `args` of these `dtypes`.

        The result is of `dtype`.
        """
        if function in COMPARISONS:
            return self.compare(function, args[0], args[1], dtypes[0])
        if function in ("and", "or", "not"):
            masks = [self.truth(x, t) for x, t in zip(args, dtypes, strict=True)]
            return _logic(self, function, masks)
        if function == "select":
            return self.select(self.truth(args[0], dtypes[0]), args[1], args[2], dtype)
        if function == "cast":
            return self.cast(args[0], dtypes[0], dtype)
        if len(args) == 1:
            return _unary(self, function, args[0], dtype)
        return _binary(self, function, args[0], args[1], dtype)

    def evaluate(
        self, body: Body, numbers: Iterable[int], values: MutableMapping[int, Value], leaf: Leaf
    ) -> None:
        """Emit the steps with these numbers, in order, and add their vectors to `values`.

        Arguments and steps already known are in `values`.  `leaf` returns the vector of a step
        whose op is in `LEAVES`.  Every step rounds by itself, so that its value does not depend on
        the other steps of the kernel.
        """
        for number in numbers:
            if number in values:
                continue
            step = body.steps[number]
            if step.op == "const":
                assert isinstance(step.value, int | float), "a constant is a number"
                values[number] = self.const(step.value, step.dtype)
            elif step.op in LEAVES:
                values[number] = leaf(step)
            else:
                args = [values[a] for a in step.args]
                dtypes = [body.steps[a].dtype for a in step.args]
                values[number] = self.apply(step.op, args, dtypes, step.dtype)


def _byte(dtype: str) -> bool:
    return dtype == "bool"


_MATHS: dict[str, Callable[[Registers, Value, str], Value]] = {
    "exp": maths.exp,
    "log": maths.log,
    "tanh": maths.tanh,
    "sigmoid": maths.sigmoid,
    "erf": maths.erf,
}
_INTRINSICS = {
    "sqrt": "sqrt",
    "cos": "cos",
    "floor": "floor",
    "ceil": "ceil",
    "round": "roundeven",
}
_PRODUCTS = 8  # integer exponents up to this are products


def _logic(v: Registers, function: str, args: Sequence[Value]) -> Value:
    if function == "not":
        return v.binary("xor", args[0], v.const(True, "bool"), "bool")
    return v.binary(function, args[0], args[1], "bool")


def _unary(v: Registers, function: str, x: Value, dtype: str) -> Value:
    if function in _MATHS:
        return _MATHS[function](v, x, dtype)
    if function == "neg":
        return v.neg(x, dtype)
    if function == "abs":
        return _absolute(v, x, dtype)
    return v.intrinsic(_INTRINSICS[function], (x,), dtype)


def _absolute(v: Registers, x: Value, dtype: str) -> Value:
    if dtype in FLOATS:
        return v.intrinsic("fabs", (x,), dtype)
    if dtype in UNSIGNED:
        return x
    return v.maximum(x, v.neg(x, dtype), dtype)


def _binary(v: Registers, function: str, a: Value, b: Value, dtype: str) -> Value:
    if function == "pow":
        exponent = v.number(b, dtype)
        return _general_power(v, a, b, dtype) if exponent is None else _power(v, a, exponent, dtype)
    if function == "floor_div":
        return _floor_division(v, a, b, dtype)
    simple: dict[str, Callable[[Value, Value, str], Value]] = {
        name: getattr(v, name) for name in ("add", "sub", "mul", "div", "maximum", "minimum")
    }
    return simple[function](a, b, dtype)


def _floor_division(v: Registers, a: Value, b: Value, dtype: str) -> Value:
    """Emit a // b, 0 where b is 0 as in NumPy; for floats, the floor of the quotient."""
    if dtype in FLOATS:
        return v.intrinsic("floor", (v.div(a, b, dtype),), dtype)
    zero, one = v.const(0, dtype), v.const(1, dtype)
    if dtype in UNSIGNED:
        by_zero = v.compare("equal", b, zero, dtype)
        quotient = v.binary("udiv", a, v.select(by_zero, one, b, dtype), dtype)
        return v.select(by_zero, zero, quotient, dtype)
    # Division by 0, and of the smallest integer by -1, is undefined in LLVM: divide by 1.
    by_minus_one = v.compare("equal", b, v.const(-1, dtype), dtype)
    by_zero = v.compare("equal", b, zero, dtype)
    divisor = v.select(v.binary("or", by_zero, by_minus_one, "bool"), one, b, dtype)
    quotient = v.binary("sdiv", a, divisor, dtype)
    rest = v.sub(a, v.mul(quotient, divisor, dtype), dtype)
    uneven = v.compare("not_equal", rest, zero, dtype)
    apart = v.compare("less", v.binary("xor", rest, divisor, dtype), zero, dtype)
    down = v.cast(v.binary("and", uneven, apart, "bool"), "bool", dtype)
    floor = v.sub(quotient, down, dtype)
    floor = v.select(by_minus_one, v.neg(a, dtype), floor, dtype)
    return v.select(by_zero, zero, floor, dtype)


def _power(v: Registers, x: Value, exponent: float, dtype: str) -> Value:
    """Emit x to a constant exponent: by products, a root and a quotient where these suffice."""
    size = abs(exponent)
    if size == 0.5 and dtype in FLOATS:
        result = v.intrinsic("sqrt", (x,), dtype)
    elif size == int(size) and size <= _PRODUCTS:
        result = _product(v, x, int(size), dtype)
    else:
        return _general_power(v, x, v.const(exponent, dtype), dtype)
    return v.div(v.const(1, dtype), result, dtype) if exponent < 0 else result


def _product(v: Registers, x: Value, times: int, dtype: str) -> Value:
    """Emit the product of `times` factors x, by repeated squaring."""
    if times == 0:
        return v.const(1, dtype)
    if times == 1:
        return x
    half = _product(v, x, times // 2, dtype)
    square = v.mul(half, half, dtype)
    return v.mul(square, x, dtype) if times % 2 else square


def _general_power(v: Registers, x: Value, y: Value, dtype: str) -> Value:
    return v.intrinsic("pow", (x, y), dtype)
