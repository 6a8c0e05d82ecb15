"""Loops over the steps of sequences in C99: a function that calls the kernels of a step.

    static void scan(uint8_t *workspace, const float *x, ..., ptrdiff_t n)

Values that steps hand on stay where a step writes them; only their addresses change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from re import search

from graphc.backends.c.scalars import Code, Functions, array_text, dim_text
from graphc.backends.interface import C_TYPES
from graphc.backends.layout import start_of
from graphc.backends.names import BUFFER, STEP, Identifiers
from graphc.ir.tensor_type import count
from graphc.kernels.program import Buffer, Instr, Program
from graphc.kernels.scan import CarriedBuffer, ScanKernel
from graphc.ops.source import Constant

Pointer = Callable[[Buffer], str]
"""The expression of the address of a buffer's first element."""
Calls = Callable[[Program, Pointer, str], list[str]]
"""Adds the kernels of a step to a file, and returns their calls for a number of rows."""


class ScanWriter:
    """The writer of one loop."""

    def __init__(self, program: Program, instr: Instr) -> None:
        assert isinstance(instr.inside, ScanKernel), "the instruction of a loop"
        self.scan = instr.inside
        self.step, self.outer, self.written = self.scan.program, program.buffers, {*instr.outs}
        identifiers = Identifiers()
        self.arguments = {name: identifiers.new(BUFFER, name) for name in instr.buffers}
        self.names = {name: identifiers.new(STEP, name) for name in self.step.buffers}
        """The names of the variables in which a step has its addresses."""
        self.places: dict[str, str] = {}
        """The address of each buffer of a step that does not lie in its arena."""
        self.steps = "steps" if self.scan.lengths else str(self.scan.steps)
        self.code: Code

    def head(self) -> str:
        """Return the list of arguments."""
        listed = [
            f"{'' if name in self.written else 'const '}{_kind(self.outer[name])} *{own}"
            for name, own in self.arguments.items()
        ]
        return ", ".join([*listed, "ptrdiff_t n"])

    def write(self, functions: Functions, calls: Calls) -> Code:
        """Return the body."""
        self.code = Code(functions)
        self._constants()
        if self.scan.lengths:
            self._count()
        if self.scan.at_once:
            for name, outer in (*self._whole(), *self.scan.stacked.items()):
                self.places[name] = self.arguments[outer]
            self._kernels(calls, f"{self.steps} * n")
        else:
            self._one_by_one(calls)
        if self.scan.lengths:
            self._zeros()
        text = "\n".join(self.code.lines)
        idle = [x for x in self.arguments.values() if not search(rf"\b{x}\b", text)]
        self.code.lines[:0] = [f"    (void){name};" for name in idle]
        return self.code

    # ------------------------------------------------------------------ parts

    def _whole(self) -> Iterator[tuple[str, str]]:
        """Yield what is read as a whole: sequences, too, if all steps run at once."""
        yield from self.scan.whole.items()
        if self.scan.at_once:
            yield from self.scan.sequences.items()

    def _constants(self) -> None:
        for buffer in self.step.constants.values():
            op = self.step.graph[buffer.name].op
            assert isinstance(op, Constant), "constants are nodes"
            name = self.places[buffer.name] = self.names[buffer.name]
            for line in array_text(name, op.array()).splitlines():
                self.code.do(line)

    def _count(self) -> None:
        """Write the number of steps that run: those of the longest row."""
        code, lengths = self.code, self.arguments[self.scan.lengths]
        code.do("ptrdiff_t steps = 0;")
        with code.loop("i", dim_text(count(self.outer[self.scan.lengths].type.shape))):
            code.do(f"if ({lengths}[i] > steps) steps = (ptrdiff_t){lengths}[i];")
        code.do(f"if (steps > {self.scan.steps}) steps = {self.scan.steps};")

    def _one_by_one(self, calls: Calls) -> None:
        """Write the loop over the steps, and what is before and after it."""
        code, scan = self.code, self.scan
        for one in scan.carried:
            self._first(one)
        position = f"{self.steps} - 1 - i" if scan.reverse else "i"
        with code.loop("i", self.steps), code.defined("t", f"const ptrdiff_t t = {position};"):
            self._places_of_step()
            for one in scan.carried:
                if one.before:
                    self._keep_before(one)
            self._kernels(calls, "n")
            for one in scan.carried:
                code.do(f"{self.names[one.feed]} = {self.names[one.result]};")
        for one in scan.carried:
            if one.last:
                self._copy(one.feed, self.arguments[one.last], f"{self.names[one.feed]}[j]")

    def _places_of_step(self) -> None:
        """Write the addresses of what a step reads and writes."""
        scan = self.scan
        self.places |= {name: self.arguments[outer] for name, outer in self._whole()}
        for name, outer in scan.sequences.items():
            self._define(name, self._slice(name, outer), "const ")
        for name, outer in scan.stacked.items():
            self._define(name, self._slice(name, outer))
        for one in scan.carried:
            self._define(one.result, self._next(one))
        if scan.number:
            name = self.names[scan.number]
            self.code.do(f"const int32_t {name} = (int32_t)t;")
            self.places[scan.number] = f"&{name}"

    def _first(self, one: CarriedBuffer) -> None:
        """Write the address of a value before the first step, and zeros if it begins with them."""
        buffer = self.step.buffers[one.feed]
        name = self.places[one.feed] = self.names[one.feed]
        place = self.arguments[one.initial] if one.initial else self._slot(one.feed, buffer)
        if not one.initial:
            self._copy(one.feed, f"({place})", "0")
        self.code.do(f"const {_kind(buffer)} *{name} = {place};")

    def _next(self, one: CarriedBuffer) -> str:
        """Return the address that a step writes a carried value to."""
        if one.stacked:
            return self._slice(one.result, one.stacked)
        buffer = self.step.buffers[one.result]
        slots = f"i % 2 ? {self._slot(one.feed, buffer)} : {self._slot(one.result, buffer)}"
        if not one.before:
            return slots
        after = "(t - 1)" if self.scan.reverse else "(t + 1)"
        following = self._slice(one.result, one.before, after)
        return f"i + 1 < {self.steps} ? {following} : {slots}"

    def _keep_before(self, one: CarriedBuffer) -> None:
        """Write the copy of a carried value to the slice before the step, unless it lies there."""
        kept, name = self._slice(one.feed, one.before), self.names[one.feed]
        with self.code.block(f"if ({name} != {kept})"):
            self._copy(one.feed, f"({kept})", f"{name}[j]")

    def _kernels(self, calls: Calls, rows: str) -> None:
        for call in calls(self.step, self._pointer, rows):
            self.code.do(call)

    def _zeros(self) -> None:
        """Write zeros as the results of steps that no row has."""
        results = list(self.scan.stacked.items())
        for one in self.scan.carried:
            results += [(one.result, outer) for outer in (one.stacked, one.before) if outer]
        for name, outer in results:
            if self.scan.at_once and not self.step.buffers[name].type.batched:
                continue
            size = dim_text(count(self.outer[outer].type.shape))
            with self.code.loop("j", size, f"steps * ({size} / {self.scan.steps})"):
                self.code.do(f"{self.arguments[outer]}[j] = 0;")

    # ------------------------------------------------------------------ addresses

    def _pointer(self, buffer: Buffer) -> str:
        root = self.step.aliases.get(buffer.name, buffer.name)
        place = self.places.get(buffer.key if buffer.space == "constant" else root)
        if place is None:
            return self._arena(start_of(buffer), buffer)
        return f"{place} + {buffer.shift}" if buffer.shift else place

    def _define(self, name: str, place: str, const: str = "") -> None:
        own = self.places[name] = self.names[name]
        self.code.do(f"{const}{_kind(self.step.buffers[name])} *const {own} = {place};")

    def _slot(self, name: str, buffer: Buffer) -> str:
        return self._arena(self.scan.slots[name], buffer)

    def _arena(self, offset: int, buffer: Buffer) -> str:
        return f"({_kind(buffer)} *)({self.arguments[self.scan.workspace]} + {offset})"

    def _slice(self, name: str, outer: str, t: str = "t") -> str:
        return f"{self.arguments[outer]} + {t} * {self._size(name)}"

    def _size(self, name: str) -> str:
        return dim_text(count(self.step.buffers[name].type.shape))

    def _copy(self, name: str, target: str, value: str) -> None:
        with self.code.loop("j", self._size(name)):
            self.code.do(f"{target}[j] = {value};")


def _kind(buffer: Buffer) -> str:
    return C_TYPES[buffer.type.dtype]
