"""LLVM functions as text, built instruction by instruction.

A value is the text that names it: `%v3`, or a literal such as `7`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

from graphc.backends.native.module_parts import GLOBAL, declaration, named_by_text
from graphc.backends.native.structures import Structure
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.kernel import LANES

Value = str
"""The SSA name or the literal of a value, without its type."""
Range = tuple[Value, Value]
"""The first value of a range and the first one after it."""
TRUE, FALSE = "true", "false"
"""The conditions that are known when code is emitted."""


EXPECTED = "i64 @llvm.expect.i64"
"""A function that returns its first argument, which is nothing in machine code.

LLVM does not see through it.  So its strength reduction finds no index in a loop that it could
replace by pointers: on x86-64 that takes a fifth of all its time, and makes no code faster.
"""


class Callee(NamedTuple):
    """A kernel's function of the module, and its buffers, in the order of its arguments."""

    name: str
    buffers: tuple[str, ...]
    sizes: tuple[Dim, ...] = ()
    """The last arguments of a function that serves kernels of several sizes."""


class Function:
    """An LLVM function under construction: instructions are appended to the current block."""

    def __init__(
        self,
        module: Module,
        name: str,
        arguments: str,
        *,
        attributes: str = "#0",
        linkage: str = "internal ",
        result: str = "void",
    ) -> None:
        """Start a definition; `arguments` are LLVM text: "ptr %a, i64 %n"."""
        self.module = module
        module.signatures[name] = re.findall(r"(?:^|, )(<[^>]*>|\S+)", arguments)
        self._head = f"define {linkage}{result} @{name}({arguments}) {attributes} {{"
        self._lines = ["entry:", ""]
        self._count = 0
        self._block = "entry"

    @property
    def text(self) -> str:
        """The text of the whole definition."""
        return "\n".join([self._head, *self._lines, "}"])

    def value(self, instruction: str) -> Value:
        """Append an instruction that yields a value, and return the value's new name."""
        name = self._fresh("%v")
        self._lines.append(f"  {name} = {instruction}")
        return name

    def stack(self, type: str) -> Value:
        """Reserve memory for the whole call, and return its address."""
        name = self._fresh("%s")
        self._lines[1] += f"  {name} = alloca {type}, align 16\n"
        return name

    def do(self, instruction: str) -> None:
        """Append an instruction that yields nothing."""
        self._lines.append(f"  {instruction}")

    def ret(self) -> None:
        """Append the return from a void function."""
        self.do("ret void")

    def call(self, name: str, *arguments: Value | int) -> None:
        """Append the call of a void function of the module."""
        self.do(f"call void {self._called(name, arguments)}")

    def call_for(self, result: str, name: str, *arguments: Value | int) -> Value:
        """Append the call of a function of the module, whose result has that type."""
        return self.value(f"call {result} {self._called(name, arguments)}")

    def _called(self, name: str, arguments: Sequence[Value | int]) -> str:
        types = self.module.signatures[name]
        typed = (f"{type} {x}" for type, x in zip(types, arguments, strict=True))
        return f"@{name}({', '.join(typed)})"

    def zero(self, start: Value, nbytes: Value) -> None:
        """Append the setting of bytes to 0."""
        self.module.declare("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        self.do(f"call void @llvm.memset.p0.i64(ptr {start}, i8 0, i64 {nbytes}, i1 false)")

    # ------------------------------------------------------------------ addresses and integers

    def address(self, base: Value, index: Value | int, type: str) -> Value:
        """Append the address `index` elements of `type` ("float", "i8", ...) after `base`."""
        if index in (0, "0"):
            return base
        return self.value(f"getelementptr inbounds {type}, ptr {base}, i64 {index}")

    def field(self, base: Value, structure: Structure, name: str) -> Value:
        """Append the load of a field of the structure at `base`."""
        type, offset = structure[name]
        return self.value(f"load {type}, ptr {self.address(base, offset, 'i8')}")

    def add(self, a: Value | int, b: Value | int) -> Value:
        """Append a + b in i64; two literals yield a literal."""
        return self._integer("add", a, b)

    def sub(self, a: Value | int, b: Value | int) -> Value:
        """Append a - b in i64; two literals yield a literal."""
        return self._integer("sub", a, b)

    def mul(self, a: Value | int, b: Value | int) -> Value:
        """Append a * b in i64; two literals yield a literal."""
        return self._integer("mul", a, b)

    def quotient(self, a: Value | int, b: Value | int) -> Value:
        """Append a / b in i64, rounded down; neither is negative."""
        x, y = _literal(a), _literal(b)
        if y == 1:
            return str(a)
        return self.value(f"udiv i64 {a}, {b}") if x is None or y is None else str(x // y)

    def ceiling(self, a: Value | int, b: int) -> Value:
        """Append a / b in i64, rounded up; neither is negative."""
        return self.quotient(self.add(a, b - 1), b)

    def remainder(self, a: Value | int, b: Value | int) -> Value:
        """Append a - a / b * b in i64; neither is negative."""
        x, y = _literal(a), _literal(b)
        return self.value(f"urem i64 {a}, {b}") if x is None or y is None else str(x % y)

    def round_down(self, a: Value | int, unit: int) -> Value:
        """Append the largest multiple of `unit`, a power of two, that is not above a."""
        x = _literal(a)
        return self.value(f"and i64 {a}, {-unit}") if x is None else str(x & -unit)

    def size(self, dim: Dim) -> Value:
        """Append the size of a dimension, or another number that may scale with the batch."""
        if not isinstance(dim, Batch):
            return str(dim)
        rows: Value = "%n"
        for _ in range(1, dim.power):
            rows = self.mul(rows, "%n")
        return self.mul(rows, dim.factor)

    def indices(self, number: Value, sizes: Sequence[Value | int]) -> list[Value]:
        """Append the index per dimension of a number in C order; `sizes` omits the first one."""
        found: list[Value] = []
        for size in reversed(sizes):
            found.append(self.remainder(number, size))
            number = self.quotient(number, size)
        return [number, *reversed(found)]

    def thread_part(self, count: Value | int, unit: int = 1) -> Range:
        """Append the range of `count` items of thread %tid of %threads, in whole units."""
        units = self.ceiling(count, unit)
        first, last = (
            self.mul(self.quotient(self.mul(thread, units), "%threads"), unit)
            for thread in ("%tid", self.add("%tid", 1))
        )
        return first, last if unit == 1 else self.smaller(last, count)

    def less(self, a: Value | int, b: Value | int) -> Value:
        """Append whether a < b, as an i1, of signed i64; two literals yield a literal."""
        x, y = _literal(a), _literal(b)
        if x is not None and y is not None:
            return TRUE if x < y else FALSE
        return self.value(f"icmp slt i64 {a}, {b}")

    def both(self, a: Value, b: Value) -> Value:
        """Append whether two conditions are true."""
        if TRUE in (a, b):
            return b if a == TRUE else a
        return FALSE if FALSE in (a, b) else self.value(f"and i1 {a}, {b}")

    def select(self, condition: Value, type: str, a: Value | int, b: Value | int) -> Value:
        """Append a if the condition is true, else b."""
        if condition in (TRUE, FALSE):
            return str(a if condition == TRUE else b)
        return self.value(f"select i1 {condition}, {type} {a}, {type} {b}")

    def smaller(self, a: Value | int, b: Value | int) -> Value:
        """Append the smaller of two i64."""
        return self._extreme("smin", min, a, b)

    def larger(self, a: Value | int, b: Value | int) -> Value:
        """Append the larger of two i64."""
        return self._extreme("smax", max, a, b)

    def _integer(self, op: str, a: Value | int, b: Value | int) -> Value:
        x, y = _literal(a), _literal(b)
        if x is not None and y is not None:
            return str({"add": x + y, "sub": x - y, "mul": x * y}[op])
        if (y == 0 and op in ("add", "sub")) or (y == 1 and op == "mul"):
            return str(a)
        if (x == 0 and op == "add") or (x == 1 and op == "mul"):
            return str(b)
        return self.value(f"{op} nsw i64 {a}, {b}")

    def _extreme(
        self, kind: str, fold: Callable[[int, int], int], a: Value | int, b: Value | int
    ) -> Value:
        x, y = _literal(a), _literal(b)
        if x is not None and y is not None:
            return str(fold(x, y))
        return self.value(f"call i64 @llvm.{kind}.i64(i64 {a}, i64 {b})")

    # ------------------------------------------------------------------ control

    def loop(
        self,
        start: Value | int,
        end: Value | int,
        step: Value | int,
        body: Callable[[Value, list[Value]], Sequence[Value] | None],
        carried: Sequence[tuple[str, Value]] = (),
    ) -> list[Value]:
        """Append `for i in range(start, end, step): carried = body(i, carried)`.

        `carried` are (type, initial value) pairs; return their final values.  A body that is known
        to run once, or never, is emitted without a loop.
        """
        once = _runs_once(start, end, step)
        values = [value for _, value in carried]
        if once is not None:
            return list(body(str(start), values) or []) if once else values
        i, names, leave = self._enter(start, end, step, carried)
        leave(body(i, names) or [])
        return names

    def each(self, start: Value | int, end: Value | int, step: Value | int = 1) -> Iterator[Value]:
        """Append a loop around what is appended in Python's own: `for i in f.each(0, end): ...`.

        A body that is known to run once, or never, is appended without a loop.
        """
        once = _runs_once(start, end, step)
        if once is None:
            i, _, leave = self._enter(start, end, step, ())
            yield i
            leave(())
        elif once:
            yield str(start)

    def _enter(
        self,
        start: Value | int,
        end: Value | int,
        step: Value | int,
        carried: Sequence[tuple[str, Value]],
    ) -> tuple[Value, list[Value], Callable[[Sequence[Value]], None]]:
        """Append the start of a loop; return its index, carried values, and what appends its end.

        That takes the carried values after a round.
        """
        head, inside, after = (self._fresh(stem) for stem in ("head", "body", "after"))
        before = self._block
        self.do(f"br label %{head}")
        self._begin(head)
        i, test = self._fresh("%i"), self._fresh("%more")
        names = [self._fresh("%c") for _ in carried]
        phis = len(self._lines)
        self._lines.append("")
        self.do(f"{test} = icmp slt i64 {i}, {end}")
        self.do(f"br i1 {test}, label %{inside}, label %{after}")
        self._begin(inside)

        def leave(results: Sequence[Value]) -> None:
            following = self.value(f"add nsw i64 {i}, {step}")
            if self.module.keeps_indices:
                self.module.declare(f"declare {EXPECTED}(i64, i64)")
                following = self.value(f"call {EXPECTED}(i64 {following}, i64 0)")
            latch = self._block
            self.do(f"br label %{head}")
            lines = [f"  {i} = phi i64 [ {start}, %{before} ], [ {following}, %{latch} ]"]
            for name, (type, first), last in zip(names, carried, results, strict=True):
                lines.append(f"  {name} = phi {type} [ {first}, %{before} ], [ {last}, %{latch} ]")
            self._lines[phis] = "\n".join(lines)
            self._begin(after)

        return i, names, leave

    def when_goes(self, condition: Value, label: str) -> None:
        """Append `if condition: goto label`."""
        after = self._fresh("after")
        self.do(f"br i1 {condition}, label %{label}, label %{after}")
        self._begin(after)

    def when(self, condition: Value, body: Callable[[], object]) -> None:
        """Append `if condition: body()`; the condition is an i1, and may be a literal."""
        for _ in self.only_if(condition):
            body()

    def only_if(self, *conditions: Value) -> Iterator[None]:
        """Append `if all(conditions):` around what is appended in a loop over this.

        That loop of Python's has one round, or none if a condition is known not to hold.
        """
        condition = reduce(self.both, conditions, TRUE)
        if condition in (TRUE, FALSE):
            yield from [None] * (condition == TRUE)
            return
        inside, after = self._fresh("then"), self._fresh("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self._begin(inside)
        yield
        self.do(f"br label %{after}")
        self._begin(after)

    def when_for(
        self,
        condition: Value | None,
        body: Callable[[list[Value]], list[Value]],
        carried: Sequence[tuple[str, Value]],
    ) -> list[Value]:
        """Append `if condition: carried = body(carried)`; without a condition, the body alone.

        `carried` are (type, value) pairs; return their values after it.
        """
        values = [value for _, value in carried]
        if condition is None:
            return body(values)
        before, inside, after = self._block, self._fresh("then"), self._fresh("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self._begin(inside)
        results = body(values)
        end = self._block
        self.do(f"br label %{after}")
        self._begin(after)
        return [
            self.value(f"phi {type} [ {old}, %{before} ], [ {new}, %{end} ]")
            for (type, old), new in zip(carried, results, strict=True)
        ]

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def _begin(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._block = label


class Module:
    """A module of LLVM functions and their declarations; equal keys share one function.

    `lanes` are those of the vectors of loops.  Fewer than `LANES` make code for machines with
    narrow registers or none: smaller, since functions and loops take the place of long lines.
    `lacks` has the functions that the machine has no instructions for, as in "fma.float32".
    Multiply-adds are `fused` or not.  With `keeps_indices` LLVM leaves the indices of loops as they
    are.
    """

    def __init__(
        self,
        lanes: int = LANES,
        lacks: frozenset[str] = frozenset(),
        fused: bool = True,
        keeps_indices: bool = False,
    ) -> None:
        self.lanes, self.lacks, self.fused = lanes, lacks, fused
        self.keeps_indices = keeps_indices
        # By default LLVM halves vectors of 512 bits for some processors.
        self.attributes = '"prefer-vector-width"="512"'
        """The attributes of all functions."""
        self.functions: list[str] = []
        self.data: list[str] = []
        """The definitions of constants."""
        self.signatures: dict[str, list[str]] = {}
        """The types of the arguments of each function, by its name."""
        self._declared: dict[str, None] = {}
        self._names: dict[object, str] = {}

    def declare(self, declaration: str) -> None:
        """Declare an external function once: `declare float @llvm.fabs.f32(float)`."""
        self._declared[declaration] = None

    def function(
        self,
        stem: str,
        arguments: str,
        emit: Callable[[Function], Value | None],
        key: object = None,
        result: str = "void",
    ) -> str:
        """Return the name of the function that `emit` writes, once for each given key.

        If it has a result, `emit` returns that.
        """
        key = object() if key is None else key
        name = self._names.get(key)
        if name is None:
            self._names[key] = name = f"{stem}{len(self._names)}"
            function = Function(self, name, arguments, attributes="#1", result=result)
            value = emit(function)
            function.do("ret void" if value is None else f"ret {result} {value}")
            self.add(function)
        return name

    def add(self, function: Function) -> None:
        """Append a finished function."""
        self.functions.append(function.text)

    def text(self) -> str:
        """Return the text of the whole module."""
        return self._with([*self._declared], self.functions)

    def parts(self, size: int) -> tuple[str, ...]:
        """Return the text as that of several modules, to be compiled apart and then linked.

        A function of `size` characters has a module of its own: programs that share it share the
        module.  Each other module has that many, but for the last one.
        """
        parts: list[list[str]] = []
        small: list[str] = []
        functions = named_by_text(self.functions)
        for function in functions:
            if len(function) >= size:
                parts.append([function])
                continue
            small.append(function)
            if sum(map(len, small)) >= size:
                parts.append(small)
                small = []
        known = {
            name: declared
            for text in (*self._declared, *functions)
            for name, declared in [declaration(text)]
        }
        return tuple(self._part(part, known) for part in (*parts, small) if part)

    def _part(self, functions: Sequence[str], known: Mapping[str, str]) -> str:
        """Return a module of functions that other parts may call, and that may call theirs."""
        called = dict.fromkeys(name for text in functions for name in GLOBAL.findall(text))
        own = dict(map(declaration, functions))
        others = [known[name] for name in called if name in known and name not in own]
        shown = [text.replace("define internal", "define hidden", 1) for text in functions]
        return self._with(others, shown)

    def _with(self, declared: Sequence[str], functions: Sequence[str]) -> str:
        """Return the text of the module with these declarations and functions."""
        integers = [f"declare i64 @llvm.{kind}.i64(i64, i64)" for kind in ("smin", "smax")]
        attributes = [
            f"attributes #0 = {{ nounwind {self.attributes} }}",
            f"attributes #1 = {{ noinline nounwind {self.attributes} }}",
        ]
        others = [declaration for declaration in declared if declaration not in integers]
        parts = [*integers, *others, *attributes, *self.data, *functions]
        return "\n".join(parts) + "\n"


def _literal(value: Value | int) -> int | None:
    if isinstance(value, int):
        return value
    return None if value.startswith("%") else int(value)


def _runs_once(start: Value | int, end: Value | int, step: Value | int) -> bool | None:
    """Return whether a loop of at most one round has that round; None for any other loop."""
    begin, stop, by = _literal(start), _literal(end), _literal(step)
    if begin is None or stop is None or not by or stop > begin + by:
        return None
    return begin < stop
