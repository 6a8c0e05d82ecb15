"""The text of programs and of fused kernels: expressions as one writes them on paper.

    loop N x 100  float32 reduction=rows partition=columns
      %1[j] = sum(affine_1) / N
      relu_1 = select(0 > affine_1 - %1[j], 0, affine_1 - %1[j])

A value with [i] is one number for each row, with [j] for each column; i and j themselves are the
numbers of the row and the column.  A sum or max with [i] reduces the columns, one with
[j] the rows.  Loaded numbers are listed in the head; each other name is one element.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.base.text_table import aligned
from graphc.ir.access import AccessMap, AxisMap
from graphc.ir.expr import Body, Broadcast, Step
from graphc.ir.forms import Sizes, Window
from graphc.ir.tensor_type import FLOATS, Batch, Dim, count
from graphc.ir.text.graph import name_text, op_text
from graphc.kernels.kernel import (
    BatchedGemm,
    Chain,
    Convolution,
    Gemm,
    Kernel,
    Permutation,
    ScatterAdd,
    Single,
)

if TYPE_CHECKING:
    from graphc.kernels.program import Buffer, Instr, Program


INFIX = {
    "or": (1, "or"),
    "and": (2, "and"),
    "less": (4, "<"),
    "less_equal": (4, "<="),
    "greater": (4, ">"),
    "greater_equal": (4, ">="),
    "equal": (4, "=="),
    "not_equal": (4, "!="),
    "add": (5, "+"),
    "sub": (5, "-"),
    "mul": (6, "*"),
    "div": (6, "/"),
    "floor_div": (6, "//"),
    "pow": (8, "**"),
}
"""The precedence of each operator, and its sign; the ranks are Python's."""
ALONE = (4, 8)
"""The ranks of operators that do not chain."""
PREFIX = {"not": (3, "not "), "neg": (7, "-")}
ATOM = 9
WIDTH = 80
"""The length above which an expression gets its own line."""
INDEX: dict[Broadcast, str] = {"each": "", "row": "[i]", "column": "[j]", "one": ""}


def kernel_text(kernel: Kernel) -> str:
    """Return a line for the kernel's head and one for each value that is stored or read twice."""
    if isinstance(kernel, Chain):
        return _chain_text(kernel)
    return "\n".join([_head(kernel), *(f"  {line}" for line in _Writer(kernel).lines())]) + "\n"


def _head(kernel: Single) -> str:
    numbers = dict.fromkeys(
        s.buffer for s in kernel.body.steps if s.op == "load" and s.broadcast == "one"
    )
    given = f"  given {', '.join(map(name_text, numbers))}" if numbers else ""
    if isinstance(kernel, Gemm):
        return f"{_gemm_head(kernel)}{given}"
    place = f"loop {kernel.rows} x {kernel.columns}  {_dtypes(kernel.body)}"
    if kernel.places:
        place += f" places={_by(kernel.places)}"
    reduces = any(step.op in ("sum", "max") for step in kernel.body.steps)
    reduction = f" reduction={kernel.axis}" if reduces else ""
    source = f"  read in order {kernel.axes}" if isinstance(kernel, Permutation) else ""
    if isinstance(kernel, ScatterAdd):
        rows, indices = map(name_text, (kernel.source, kernel.indices))
        source = f"  scatter_add = {kernel.count} rows of {rows} by {indices}"
    return f"{place}{reduction} partition={kernel.partition}{source}{given}"


def _chain_text(kernel: Chain) -> str:
    """Return the head of a chain, and the texts of its kernels."""
    private = ", ".join(name_text(p.buffer) for p in kernel.private)
    sizes = " x ".join(map(str, kernel.sizes))
    head = f"chain {sizes}  partition={kernel.partition}  private {private}"
    lines = (line for one in kernel.kernels for line in kernel_text(one).splitlines())
    return "\n".join([head, *(f"  {line}" for line in lines)]) + "\n"


def _gemm_head(kernel: Gemm) -> str:
    a, b, sizes = name_text(kernel.a), name_text(kernel.b), f"{kernel.m} x {kernel.n}"
    if isinstance(kernel, Convolution):
        a = f"{_window(kernel.window)}({a})"
    if isinstance(kernel, BatchedGemm):
        sizes = f"{' x '.join(map(str, kernel.sizes))} of {sizes}"
    factors = f"{a}{'.T' * kernel.trans_a} @ {b}{'.T' * kernel.trans_b}"
    place = f"gemm {sizes}  {kernel.dtype} partition={kernel.partition}"
    return f"{place}  product = {factors} over {kernel.k}"


def _window(window: Window) -> str:
    """Return `3x3 window`, and its unusual properties."""
    parts = [f"{_by(window.kernel)} window"]
    for word, sizes, usual in (
        ("stride", window.stride, 1),
        ("dilation", window.dilation, 1),
        ("before", window.before, 0),
        ("apart", window.divisor, 1),
    ):
        if set(sizes) != {usual}:
            parts.append(f"{word} {_by(sizes)}")
    if window.groups > 1:
        parts.append(f"in {window.groups} groups")
    return " ".join(parts)


def _at(at: object, *given: str) -> str:
    """Return the access map of a gather: the index in each dimension.

    `p0` is the index along the first dimension of the result; the first indices may be given.
    """
    assert isinstance(at, AccessMap), "the value of a fetch is an access map"
    indices = [*given, *(f"p{axis}" for axis in range(len(given), len(at.axes)))]
    places = [_position(index, axis) for index, axis in zip(indices, at.axes, strict=True)]
    return ", ".join(places) + (f" else {at.fill:g}" if at.fill else "")


def _position(index: str, axis_map: AxisMap) -> str:
    text = f"{axis_map.scale}*{index}" if axis_map.scale != 1 else index
    if axis_map.shift:
        text += f"{axis_map.shift:+d}"
    if axis_map.divisor == 1:
        return text
    inside = f"({text})" if axis_map.shift else text
    return f"{inside}{'//' if axis_map.floor else '/'}{axis_map.divisor}"


def _by(sizes: Sizes) -> str:
    return "x".join(map(str, sizes))


def _dtypes(body: Body) -> str:
    """Return the dtypes of the floats in a kernel, or else those of what it stores."""
    found = [d for d in FLOATS if any(step.dtype == d for step in body.steps)]
    return "/".join(found or dict.fromkeys(body.steps[s.step].dtype for s in body.stores))


class _Writer:
    """The text of each step, and the precedence of its outermost operator."""

    def __init__(self, kernel: Single) -> None:
        self.sizes = kernel.space
        self.body = kernel.body
        self.texts: list[tuple[str, int]] = []
        self.count = 0
        uses = Counter(arg for step in self.body.steps for arg in step.args)
        self.stored = Counter(store.step for store in self.body.stores)
        self.uses = uses + self.stored
        self.names = self._stored_names()

    def _stored_names(self) -> dict[int, str]:
        """Return, by step, the buffer names by which stored values are read later."""
        names: dict[int, str] = {}
        for store in self.body.stores:
            step = self.body.steps[store.step]
            if step.broadcast == store.broadcast and store.buffer not in self.body.loads:
                names.setdefault(store.step, name_text(store.buffer) + INDEX[store.broadcast])
        return names

    def lines(self) -> Iterator[str]:
        """Yield values that are read twice or reduced, in order; then the stored values."""
        for number, step in enumerate(self.body.steps):
            text, rank = self._text(step)
            if self._is_named(number, step, text):
                name = self.names.get(number) or self._new_name(step.broadcast)
                yield f"{name} = {text}"
                text, rank = name, ATOM
            self.texts.append((text, rank))
        for store in self.body.stores:
            target, value = (
                name_text(store.buffer) + INDEX[store.broadcast],
                self.texts[store.step][0],
            )
            if target != value:
                yield f"{target} = {value}"

    def _is_named(self, number: int, step: Step, text: str) -> bool:
        if not step.args:
            return False
        long = len(text) > WIDTH and not self.stored[number]
        return self.uses[number] > 1 or step.op in ("sum", "max") or long

    def _new_name(self, broadcast: Broadcast) -> str:
        self.count += 1
        return f"%{self.count}{INDEX[broadcast]}"

    def _text(self, step: Step) -> tuple[str, int]:
        if not step.args or step.op == "fetch":
            return self._leaf(step), ATOM
        if step.op in INFIX:
            rank, sign = INFIX[step.op]
            alone = rank in ALONE
            left = self._operand(step.args[0], rank + alone)
            return f"{left} {sign} {self._operand(step.args[1], rank + 1)}", rank
        if step.op in PREFIX:
            rank, sign = PREFIX[step.op]
            return f"{sign}{self._operand(step.args[0], rank + 1)}", rank
        inside = ", ".join(self.texts[arg][0] for arg in step.args)
        if step.op == "philox":
            inside += f", stream={step.value}"
        return f"{step.dtype if step.op == 'cast' else step.op}({inside})", ATOM

    def _operand(self, number: int, rank: int) -> str:
        text, own = self.texts[number]
        return text if own >= rank else f"({text})"

    def _leaf(self, step: Step) -> str:
        if step.op == "load":
            return name_text(step.buffer) + INDEX[step.broadcast]
        if step.op == "fetch":
            given = [self.texts[arg][0] for arg in step.args]
            return f"{name_text(step.buffer)}[{_at(step.value, *given)}]"
        if step.op == "offset":
            return f"offset({_by(step.value)})"  # type: ignore[arg-type]
        if step.op == "const":
            return _number(step)
        if step.op == "index":
            return "i" if step.broadcast == "row" else "j"
        if step.op == "size":
            return self._size(step.value)
        return step.op

    def _size(self, of: object) -> str:
        size: Dim = of if isinstance(of, Batch) else self.sizes[of == "columns"]
        text = str(size)
        return text if text.isalnum() else f"({text})"


def _number(step: Step) -> str:
    if isinstance(step.value, bool):
        return str(step.value).lower()
    text = str(np.dtype(step.dtype).type(step.value)).removesuffix(".0")
    return f"({text})" if text.startswith("-") else text


def program_text(program: Program) -> str:
    """Return the instructions in order, then the memory, one line a buffer.

    `a <- op(b, c)` says what is read and written; bytes are a formula in the rows N.  An epoch is
    the part between two barriers; live ranges are counted in epochs, since threads run ahead of
    each other within one.
    """
    head = f"program {name_text(program.name)} for up to {program.capacity} rows"
    lines = [f"{head}, {program.backend}", *_instructions(program)]
    arena = program.arena
    lines.append(f"memory: arena {arena.nbytes} bytes, {arena.peak} live at once; lives are epochs")
    rows = aligned(_row(buffer, program.kept) for buffer in program.buffers.values())
    lines.extend(f"  {row}" for row in rows)
    return "\n".join(lines) + "\n"


def _instructions(program: Program) -> Iterator[str]:
    width = len(str(len(program.instrs)))
    blank = " " * (width + 4)
    epoch = 0
    for i, (instr, now) in enumerate(zip(program.instrs, program.epochs, strict=True)):
        if i == program.boundary and i:
            yield "  backward:"
        if instr.kind == "barrier":
            epoch = now + 1
            yield f"  {i:>{width}}  ---- barrier ---- epoch {epoch}"
            continue
        if now != epoch:
            epoch = now
            yield f"{blank}---- epoch {epoch}"
        first, *rest = _instr_lines(instr)
        yield f"  {i:>{width}}  {first}"
        yield from (blank + line for line in rest)


def _instr_lines(instr: Instr) -> list[str]:
    if instr.inside is not None:
        return list(instr.inside.lines(_instructions(instr.inside.program)))
    text = _instr_text(instr) if instr.body is None else kernel_text(instr.body)
    return text.splitlines()


def _instr_text(instr: Instr) -> str:
    def names(some: Sequence[str]) -> str:
        return ", ".join(map(name_text, some))

    if instr.kind in ("send", "receive"):
        return f"{instr.kind} bucket {getattr(instr.op, 'bucket', 0)}: {names(instr.ins)}"
    text = f"{names(instr.outs)} <- {instr.kernel}({names(instr.ins)})"
    if instr.op is not None and "(" in op_text(instr.op):
        return f"{text}  {op_text(instr.op)}"
    return text


def _row(buffer: Buffer, kept: Collection[str]) -> tuple[str, ...]:
    """Return name, type, bytes, space and offset, live range, and the buffer that it views."""
    placed = buffer.space in ("arena", "gradient")
    space = "kept" if buffer.space == "constant" and buffer.key in kept else buffer.space
    place = f"{space} {buffer.offset}" if placed else space
    life = "" if buffer.last < buffer.first else f"{buffer.first}..{buffer.last}"
    view = "" if buffer.key == buffer.name else f"of {name_text(buffer.key)}"
    if buffer.pitch:
        view = f"columns {_columns(buffer)} {view}"
    return name_text(buffer.name), str(buffer.type), buffer.type.bytes_text(), place, life, view


def _columns(buffer: Buffer) -> str:
    """Return the columns of a matrix that a buffer views, as a slice of Python."""
    width = count(buffer.type.shape[1:])
    assert isinstance(width, int), "only columns that are counted are views"
    return f"{buffer.shift}:{buffer.shift + width} of {buffer.pitch}"
