"""The slider through the passes: the difference that each made, and at the end the kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from graphc.base.collector import collector_paused
from graphc.compiler.plan import Plan
from graphc.ir.difference import difference
from graphc.ir.graph import Graph, Node
from graphc.kernels.kernel import Gemm, space
from graphc.kernels.program import Instr, Program
from graphc.view.cost import changed_totals, totals, totals_after
from graphc.view.render.difference import (
    MOST_BOXES,
    WIDTH,
    backward_names,
    grouped,
    pass_sheet,
    pass_text,
)
from graphc.view.render.page import Step, View
from graphc.view.render.renderer import svg_of
from graphc.view.render.sheet import Arrow, Box, Look, Sheet
from graphc.view.render.style import Line, Run, muted, sentence, short

MOST_OPS = 6
"""The most ops that a folded kernel lists."""


def pass_view(plan: Plan, *, times: bool = False, dot: str | Path | None = None) -> View:
    """Return a view with a step for each pass, and one for the kernels.

    With `times` the text says how long each pass took: it then differs from run to run.  Raise
    RendererMissing if there is no renderer.
    """
    with collector_paused():
        return View("passes", "Passes", tuple(_steps(plan, times, dot)))


def _steps(plan: Plan, times: bool, dot: str | Path | None) -> Iterator[Step]:
    name = next(name for name in ("step", "grad", "infer") if plan.graphs.get(name))
    before: Graph = plan.declared
    known = totals(before, plan.batch)
    for number, record in enumerate(plan.graphs[name], 1):
        made = difference(before, record.graph)
        after = totals_after(known, made) if made else known
        words = list(changed_totals(known, after))
        title = f"{number} {record.name}"
        took = f", {record.seconds * 1e3:.1f} ms" if times else ""
        svg = svg_of(pass_sheet(title, made, words), dot)
        yield Step(title, svg, f"{title}{took}: {pass_text(made, words)}")
        before, known = record.graph, after
    program = plan.programs.get(name)
    if program is not None:
        title = f"{len(plan.graphs[name]) + 1} kernels"
        svg = svg_of(kernels_sheet(program), dot)
        yield Step(title, svg, f"{title}: {', '.join(kernel_words(program))}")


def kernels_sheet(program: Program) -> Sheet:
    """Return a frame for each kernel with a box for each node; if they are many, fold by kind."""
    nodes = sum(len(_nodes(program, instr)) for instr in program.instrs)
    if nodes > MOST_BOXES:
        return folded_sheet(program)
    return replace(_sheet(program, _Kernels(program)), simpler=lambda: folded_sheet(program))


def folded_sheet(program: Program) -> Sheet:
    """Return a drawing with one box for each kind of kernel."""
    return _sheet(program, _Folded(program))


def _sheet(program: Program, drawing: _Kernels | _Folded) -> Sheet:
    caption = [(muted(text),) for text in (*kernel_words(program), *drawing.words)]
    arrows = (*_reads(program, drawing.ids), *drawing.order)
    return Sheet("kernels", tuple(caption), tuple(drawing.boxes), arrows)


def _reads(program: Program, ids: Mapping[str, str]) -> Iterator[Arrow]:
    """Yield an arrow for each two boxes of which one has a node that reads a node of the other."""
    pairs = dict.fromkeys(
        (ids[operand], id)
        for name, id in ids.items()
        for operand in program.graph[name].inputs
        if ids.get(operand, id) != id
    )
    yield from (Arrow(source, target) for source, target in pairs)


def kernel_words(program: Program) -> Iterator[str]:
    """Yield the number of nodes, kernels and barriers, and of calls and exchanges if any."""
    found = Counter(instr.kind for instr in program.instrs)
    nodes = sum(len(instr.nodes) for instr in program.instrs if instr.kind == "kernel")
    yield f"{nodes:,} nodes in {found['kernel']:,} kernels, {found['barrier']:,} barriers"
    if found["call"]:
        yield f"{found['call']:,} calls of reference rules"
    if found["send"]:
        yield f"{found['send'] + found['receive']:,} exchanges"


def _nodes(program: Program, instr: Instr) -> list[Node]:
    names = instr.nodes or (instr.node,)
    found = [program.graph[name] for name in names if name in program.graph]
    return [node for node in found if not node.op.is_source]


def _head(instr: Instr) -> str:
    """Return a kernel's title (`gemm N x 100, split by rows`), or for a call its kernel's name."""
    if instr.body is None:
        return f"{instr.kind} {instr.kernel}".strip()
    kind = "gemm" if isinstance(instr.body, Gemm) else "loop"
    rows, columns = space(instr.body)
    split = instr.body.partition
    return f"{kind} {rows} x {columns}, {'one thread' if split == 'none' else f'split by {split}'}"


class _Kernels:
    """The drawing with a box for every node."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.words: list[str] = []
        self.boxes: list[Box] = []
        self.order: list[Arrow] = []
        self.ids: dict[str, str] = {}
        self.backward = backward_names(program.graph)
        above: list[str] = []
        here: list[str] = []
        for number, instr in enumerate(program.instrs):
            if instr.kind == "barrier":
                above = self._barrier(here)
                here = []
                continue
            made = self._kernel(number, instr)
            self.order.extend(Arrow(bar, box, "bar") for bar in above for box in made)
            here.extend(made)

    def _barrier(self, before: Sequence[str]) -> list[str]:
        id = f"n{len(self.boxes)}"
        line: Line = (Run("- " * 20 + "barrier: all threads wait" + " -" * 20, "muted"),)
        self.boxes.append(Box(id, (line,), "bar", "barrier"))
        self.order.extend(Arrow(box, id, "bar") for box in before)
        return [id]

    def _kernel(self, number: int, instr: Instr) -> list[str]:
        group = f"{number}  {_head(instr)}"
        made = []
        for node in _nodes(self.program, instr):
            self.ids[node.name] = id = f"n{len(self.boxes)}"
            head = (Run(short(node.op.name, WIDTH), bold=True), muted(f" {short(node.name)}"))
            look: Look = "backward" if node.name in self.backward else "forward"
            lines = (head, (muted(str(node.type)),))
            self.boxes.append(Box(id, lines, look, sentence(node), node.name, group))
            made.append(id)
        return made


class _Folded:
    """The drawing with one box for equal kernels."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.words = ["equal kernels are one box; barriers are not drawn"]
        self.order: list[Arrow] = []
        self.backward = backward_names(program.graph)
        instrs = [instr for instr in program.instrs if instr.kind != "barrier"]
        self.ids: dict[str, str] = {}
        self.boxes = [
            self._box(f"n{i}", group) for i, group in enumerate(grouped(instrs, self._signature))
        ]

    def _signature(self, instr: Instr, sized: bool) -> tuple[object, ...]:
        ops = tuple(type(node.op) for node in _nodes(self.program, instr))
        return (_head(instr) if sized else instr.kind, instr.kernel, ops)

    def _box(self, id: str, instrs: Sequence[Instr]) -> Box:
        for instr in instrs:
            self.ids.update(dict.fromkeys((n.name for n in _nodes(self.program, instr)), id))
        nodes = _nodes(self.program, instrs[0])
        count = f" x {len(instrs):,}" if len(instrs) > 1 else ""
        lines: list[Line] = [(Run(f"{_head(instrs[0])}{count}", bold=True),)]
        lines.extend((Run(short(node.op.name, WIDTH)),) for node in nodes[:MOST_OPS])
        if len(nodes) > MOST_OPS:
            lines.append((muted(f"{len(nodes) - MOST_OPS} more"),))
        first = nodes[0].name if nodes else instrs[0].node
        look: Look = "backward" if first in self.backward else "forward"
        lines.append((muted(f"first {short(first, WIDTH)}"),))
        return Box(id, tuple(lines), look, f"{len(instrs):,} kernels like that of {first}")
