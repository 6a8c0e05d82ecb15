"""Values, constants and scalar functions in C99."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import inf, isnan
from re import search

import numpy as np

from graphc.backends import maths
from graphc.backends.arithmetic import FLOATS, LONG, Arithmetic, Value
from graphc.backends.c.inline import inlined
from graphc.backends.c.target import own_instruction
from graphc.backends.c.tile import PLAIN_DEPTH, block_head, present_function, product_function
from graphc.backends.interface import C_TYPES
from graphc.backends.softfloat import ARITY, computed
from graphc.ir.expr import Step
from graphc.ir.narrow import narrow
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Batch, Dim, numpy_dtype
from graphc.kernels.philox import MULTIPLIERS, ROUNDS, WEYL

_SUFFIX = {"float32": "f", "float64": ""}
_SIGNS = {
    "fadd": "+", "fsub": "-", "fmul": "*", "fdiv": "/", "add": "+", "sub": "-", "mul": "*",
    "shl": "<<", "ashr": ">>", "lshr": ">>",
    "udiv": "/", "sdiv": "/", "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
_CALLED = re.compile(r"\bgc_\w+")
_ARGUMENTS = {1: ("x",), 2: ("a", "b"), 3: ("a", "b", "c")}
_COMPARED = {
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==",
    "not_equal": "!=",
}  # fmt: skip


def dim_text(dim: Dim) -> str:
    """Return the size of a dimension: a number, or a multiple of `n`."""
    if not isinstance(dim, Batch):
        return str(dim)
    rows = " * ".join(["n"] * dim.power)
    return rows if (dim.factor, dim.power) == (1, 1) else f"({dim.factor} * {rows})"


def literal(value: float, dtype: str) -> Value:
    """Return a number as a constant of C, with as few digits as give it back."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype not in FLOATS:
        return _whole(int(value), dtype)
    with np.errstate(over="ignore"):  # a number beyond the largest becomes infinite
        number = np.dtype(dtype).type(value)
    if isnan(number):
        return "GC_NAN" if dtype == "float32" else "(double)GC_NAN"
    if number in (inf, -inf):
        sign = "-" if number < 0 else ""
        return f"{sign}GC_INFINITY" if dtype == "float32" else f"{sign}(double)GC_INFINITY"
    return f"{number!s}{_SUFFIX[dtype]}"


def _whole(value: int, dtype: str) -> Value:
    dtype = numpy_dtype(dtype)
    if value == np.iinfo(dtype).min and value < 0:
        return f"{dtype.upper()}_MIN"
    return f"{dtype.upper()}_C({value})" if ITEMSIZE[dtype] > 2 else str(value)


def array_text(name: str, array: Array) -> str:
    """Return the definition of a constant array."""
    dtype = array.dtype.name
    rows = "\n".join(f"    {line}" for line in _lines(np.asarray(array).reshape(-1), dtype))
    return f"static const {C_TYPES[dtype]} {name}[{max(array.size, 1)}] = {{\n{rows}\n}};\n"


def _lines(flat: Array, dtype: str) -> Iterator[str]:
    for start in range(0, len(flat), 8):
        yield ", ".join(literal(x, dtype) for x in flat[start : start + 8].tolist()) + ","


FRAME = 128
"""The bytes that a call takes besides the variables of the function, at most."""


def frame(text: str) -> int:
    """Return the bytes of stack that a function takes at most, without its arrays."""
    return FRAME + 8 * (text.partition(")")[0].count(",") + 1 + text.count(" = "))


class Code:
    """The lines of a C function under construction, and the functions that it calls."""

    def __init__(self, functions: Functions, depth: int = 1) -> None:
        self.functions = functions
        self.lines: list[str] = []
        self._depth, self._count = depth, 0
        self.arrays = 0
        """The bytes of the function's arrays, without vectors."""

    def function(self, head: str, end: Sequence[str] = ()) -> tuple[str, int]:
        """Return the function, and the bytes of stack of a call with all that it calls, at most."""
        text = "\n".join([head, "{", *inlined([*self.lines, *end]), "}"])
        return text, self.arrays + frame(text) + self.functions.below(text)

    def do(self, line: str) -> None:
        """Append a line."""
        self.lines.append(f"{'    ' * self._depth}{line}")

    def fresh(self, stem: str = "v") -> str:
        """Return a new name."""
        self._count += 1
        return f"{stem}{self._count}"

    def value(self, expression: str, dtype: str, const: str = "const ") -> Value:
        """Append the definition of a value, and return its name."""
        name = self.fresh()
        self.do(f"{const}{C_TYPES[dtype]} {name} = {expression};")
        return name

    def array(self, stem: str, dtype: str, size: int, shown: str = "") -> str:
        """Declare an array and return its new name; `shown` is its size with vectors, too."""
        name = self.fresh(stem)
        self.arrays += size * ITEMSIZE[dtype]
        self.do(f"{C_TYPES[dtype]} {name}[{shown or size}];")
        return name

    @contextmanager
    def defined(self, name: str, definition: str) -> Iterator[None]:
        """Append the lines of the `with` statement, after a definition if they use its name."""
        self.do(definition)
        start = len(self.lines)
        yield
        if not any(search(rf"\b{name}\b", line) for line in self.lines[start:]):
            del self.lines[start - 1]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Append a head and the lines of the `with` statement in braces."""
        self.do(f"{head} {{")
        self._depth += 1
        yield
        self._depth -= 1
        self.do("}")

    def loop(
        self, name: str, end: str, start: str = "0", step: int | str = 1
    ) -> AbstractContextManager[None]:
        """Append a loop over an index, with the lines of the `with` statement as its body."""
        up = f"++{name}" if step == 1 else f"{name} += {step}"
        return self.block(f"for (ptrdiff_t {name} = {start}; {name} < {end}; {up})")


class Scalars(Arithmetic):
    """C statements, one for each operation, appended to some code."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self._numbers: dict[tuple[Value, str], float] = {}

    @property
    def fused(self) -> bool:
        """True if multiply-adds are fused, by the contract of the file."""
        return self.code.functions.fused

    def const(self, number: float, dtype: str) -> Value:
        """Return a constant."""
        text = literal(number, dtype)
        self._numbers[text, dtype] = number
        return text

    def number(self, x: Value, dtype: str) -> float | None:
        """Return the number that `const` got, or None."""
        return self._numbers.get((x, dtype))

    def binary(self, operation: str, a: Value, b: Value, dtype: str) -> Value:
        """Append an operation of two values; integers are computed as unsigned ones, which wrap."""
        sign = _SIGNS[operation]
        if dtype == "bool":
            sign = {"and": "&&", "or": "||", "xor": "!="}[operation]
        elif dtype not in FLOATS and operation in ("add", "sub", "mul", "shl"):
            wide = f"uint{8 * max(ITEMSIZE[dtype], 4)}_t"
            return self.code.value(f"({C_TYPES[dtype]})(({wide}){a} {sign} ({wide}){b})", dtype)
        elif dtype not in FLOATS and ITEMSIZE[dtype] < 4:
            return self.code.value(f"({C_TYPES[dtype]})({a} {sign} {b})", dtype)
        return self.code.value(f"{a} {sign} {b}", dtype)

    def select(self, condition: Value, a: Value, b: Value, dtype: str) -> Value:
        """Append the choice of one of two values."""
        # Not const: clang tries to evaluate constants, and of a choice both values.
        return self.code.value(f"{condition} ? {a} : {b}", dtype, const="")

    def compare(self, function: str, a: Value, b: Value, dtype: str) -> Value:
        """Append a comparison; compilers warn of one that is decided."""
        if a == b and dtype not in FLOATS:
            self.code.do(f"(void){a};")
            return literal(function in ("equal", "less_equal", "greater_equal"), "bool")
        return self.code.value(f"{a} {_COMPARED[function]} {b}", "bool")

    def is_nan(self, x: Value, dtype: str) -> Value:
        """Append the test for NaN."""
        return self.code.value(f"{x} != {x}", "bool")

    def neg(self, a: Value, dtype: str) -> Value:
        """Append the negation of a value."""
        if dtype in FLOATS:
            return self.code.value(f"-({a})" if a.startswith("-") else f"-{a}", dtype)
        return self.sub(self.const(0, dtype), a, dtype)

    def cast(self, x: Value, source: str, dtype: str) -> Value:
        """Append a conversion."""
        if dtype == "bool":
            return self.truth(x, source)
        if source == dtype:
            return x
        if dtype == "bfloat16":
            return self.code.value(f"{self.code.functions.to_bfloat16()}({x})", dtype)
        if source in FLOATS and dtype not in FLOATS:
            return self.code.value(f"{self.code.functions.saturated(source, dtype)}({x})", dtype)
        return self.code.value(f"({C_TYPES[dtype]}){x}", dtype)

    def bitcast(self, x: Value, source: str, dtype: str) -> Value:
        """Append the reading of a value's bits as another dtype."""
        return self.code.value(f"{self.code.functions.bits(source, dtype)}({x})", dtype)

    def applied(
        self, function: str, args: Sequence[Value], dtypes: Sequence[str], dtype: str
    ) -> Value:
        """Append a scalar function; a long one, and a division of integers, as a call."""

        def rule(v: Arithmetic, *args: Value) -> Value:
            return maths.apply(v, function, args, dtypes, dtype)

        if function in LONG or (function == "floor_div" and dtype not in FLOATS):
            return self.apart(function, rule, args, dtype)
        return rule(self, *args)

    def intrinsic(
        self, name: str, args: Sequence[Value], dtype: str, result: str | None = None
    ) -> Value:
        """Append the call of a function of the file: the target's instruction, or its rule."""
        called = self.code.functions.intrinsic(name, dtype)
        return self.code.value(f"{called}({', '.join(args)})", result or dtype)

    def apart(
        self, name: str, rule: Callable[..., Value], args: Sequence[Value], dtype: str
    ) -> Value:
        """Append the call of a function of the file, which follows a rule."""
        called = self.code.functions.rule(name, rule, len(args), dtype)
        return self.code.value(f"{called}({', '.join(args)})", dtype)


class Functions:
    """The functions of a file besides its kernels: each once, after those that it calls."""

    def __init__(self, fused: bool) -> None:
        """Start without functions; multiply-adds are fused or not, by the contract of a plan."""
        self.fused = fused
        self.texts: dict[str, str] = {}
        self._stacks: dict[str, int] = {}
        """The bytes of stack of a call of each function, at most."""

    def below(self, text: str) -> int:
        """Return the bytes of stack that the functions need at most that some code calls."""
        return max((self._stacks.get(name, 0) for name in _CALLED.findall(text)), default=0)

    def rule(self, name: str, rule: Callable[..., Value], arity: int, dtype: str) -> str:
        """Return the name of the function of values of one dtype that follows a rule."""
        names = _ARGUMENTS[arity]
        listed = ", ".join(f"{C_TYPES[dtype]} {x}" for x in names)
        return self._add(
            f"gc_{name}_{dtype}",
            C_TYPES[dtype],
            listed,
            lambda code: rule(Scalars(code), *names),
        )

    def intrinsic(self, name: str, dtype: str) -> str:
        """Return the name of the function of a floating-point operation that targets may lack."""
        names, kind = _ARGUMENTS[ARITY[name]], C_TYPES[dtype]

        def write(code: Code) -> Value:
            code.lines += own_instruction(name, dtype, ", ".join(names)).splitlines()
            return computed(Scalars(code), name, names, dtype)

        listed = ", ".join(f"{kind} {x}" for x in names)
        return self._add(f"gc_{name}{_SUFFIX[dtype]}", kind, listed, write, "\n#endif")

    def bits(self, source: str, dtype: str) -> str:
        """Return the name of the function that reads a value's bits as another dtype."""

        def write(code: Code) -> Value:
            code.do(f"union {{ {C_TYPES[source]} before; {C_TYPES[dtype]} after; }} both;")
            code.do("both.before = x;")
            return "both.after"

        return self._add(f"gc_{dtype}_of_{source}", C_TYPES[dtype], f"{C_TYPES[source]} x", write)

    def saturated(self, source: str, dtype: str) -> str:
        """Return the name of the function that truncates a float: 0 for NaN, the nearest bound."""
        bounds = np.iinfo(dtype)

        def write(code: Code) -> Value:
            code.do("if (x != x) return 0;")
            code.do(f"if (x <= {literal(bounds.min, source)}) return {_whole(bounds.min, dtype)};")
            above = literal(float(bounds.max) + 1, source)
            code.do(f"if (x >= {above}) return {_whole(bounds.max, dtype)};")
            return f"({C_TYPES[dtype]})x"

        return self._add(f"gc_{dtype}_from_{source}", C_TYPES[dtype], f"{C_TYPES[source]} x", write)

    def to_bfloat16(self) -> str:
        """Return the name of the function that rounds as `Narrow.rounded` does."""

        def write(code: Code) -> Value:
            code.do(f"if (x != x) return {narrow().NAN};")
            least = literal(narrow().LEAST, "float32")
            code.do(f"if (-{least} < x && x < {least}) return 0;")
            code.do(f"const uint32_t w = {self.bits('float32', 'uint32')}(x);")
            return "(uint16_t)((w + 0x7fffu + (w >> 16 & 1u)) >> 16)"

        return self._add("gc_bfloat16", "uint16_t", "float x", write)

    def floor_division(self) -> str:
        """Return the name of the function that divides indices, rounding down."""
        return self._add(
            "gc_floor_div", "ptrdiff_t", "ptrdiff_t a, ptrdiff_t b", lambda _: "a / b - (a % b < 0)"
        )

    def philox(self) -> str:
        """Return the name of the function that returns a random word."""
        arguments = "uint64_t seed, uint32_t draws, uint32_t stream, uint32_t row, uint32_t column"
        return self._add("gc_philox", "uint32_t", arguments, _philox)

    def random_word(self, step: Step, known: Mapping[int, str]) -> Value:
        """Return the random word of row `i` and column `j` of a step."""
        seed, draws, *first = (known[arg] for arg in step.args)
        row = f"({first[0]} + i)" if first else "i"
        stream = f"UINT32_C({step.value})"
        return (
            f"{self.philox()}((uint64_t){seed}, (uint32_t){draws}, {stream}, (uint32_t){row}, "
            "(uint32_t)j)"
        )

    def product(self, dtype: str) -> None:
        """Add the function that adds products to the sums of a block: see `product_function`."""
        if called := {"pairs": "float32", "blocks": "pairs"}.get(dtype):
            self.product(called)
        if self.fused and dtype in FLOATS:
            self.intrinsic("fma", dtype)  # for a target without vectors
        self.block()
        name = f"gc_product_{dtype}"
        if name not in self.texts:
            self.texts[name], plain = product_function(dtype, self.fused)
            arrays = ITEMSIZE["float32"] * {"pairs": 2 * PLAIN_DEPTH, "blocks": 2}.get(dtype, 0)
            self._stacks[name] = frame(plain) + arrays + self.below(plain)

    def present(self, dtype: str) -> str:
        """Return the name of the function that adds products to the rows that are present."""
        self.product(dtype)
        name = f"gc_present_{dtype}"
        if name not in self.texts:
            text = self.texts[name] = present_function(dtype)
            self._stacks[name] = frame(text) + ITEMSIZE[dtype] + self.below(text)
        return name

    def block(self) -> str:
        """Return the name of the number of columns of a block, which is 1 without vectors."""
        self.texts.setdefault("gc_block", block_head(self.fused))
        return "GC_BLOCK"

    def _add(
        self,
        name: str,
        result: str,
        arguments: str,
        write: Callable[[Code], Value],
        end: str = "",
    ) -> str:
        if name not in self.texts:
            code = Code(self)
            returned = write(code)
            head = f"GC_FUNCTION {result} {name}({arguments})"
            last = f"    return {returned};{end}".split("\n")
            self.texts[name], self._stacks[name] = code.function(head, last)
        return name


def _philox(code: Code) -> Value:
    """Write Philox4x32-10 of Salmon and others (SC11); see `graphc.kernels.philox`."""
    code.do("uint32_t x0 = 16u * (column / 64u) + column % 16u, x1 = row, x2 = draws, x3 = stream;")
    code.do("uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);")
    with code.block(f"for (int round = 0; round < {ROUNDS}; ++round)"):
        code.do(f"const uint64_t p0 = UINT64_C({MULTIPLIERS[0]}) * x0;")
        code.do(f"const uint64_t p1 = UINT64_C({MULTIPLIERS[1]}) * x2;")
        code.do("x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;")
        code.do("x1 = (uint32_t)p1;")
        code.do("x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;")
        code.do("x3 = (uint32_t)p0;")
        code.do(f"k0 += UINT32_C({WEYL[0]});")
        code.do(f"k1 += UINT32_C({WEYL[1]});")
    code.do("const uint32_t part = column % 64u / 16u;")
    return "part < 2u ? (part == 0u ? x0 : x1) : (part == 2u ? x2 : x3)"
