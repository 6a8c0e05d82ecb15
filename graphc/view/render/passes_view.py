"""The slider through the passes: the difference that each made, and at the end the kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from itertools import count

from graphc.base.errors import counted
from graphc.compiler.plan import Plan
from graphc.compiler.request import collector_paused
from graphc.ir.difference import difference
from graphc.ir.graph import Graph, Node
from graphc.kernels.kernel import Chain, Gemm
from graphc.kernels.program import Instr, Program
from graphc.view.cost import changed_totals, totals, totals_after
from graphc.view.render.difference import (
    MOST_BOXES,
    WIDTH,
    backward_names,
    grouped,
    pass_scene,
    pass_text,
)
from graphc.view.render.page import Step, View
from graphc.view.render.renderer import svg_of
from graphc.view.render.scene import Arrow, Box, Frame, Look, Scene
from graphc.view.render.style import Line, Run, muted, printable, sentence, short

MOST_OPS = 6
"""The most ops that a folded kernel lists."""


def pass_view(plan: Plan) -> View:
    """Return a view of each pass, and of the kernels; raise RendererMissing without a renderer."""
    with collector_paused():
        return View("passes", "Passes", tuple(_steps(plan)))


def _steps(plan: Plan) -> Iterator[Step]:
    name = next(name for name in ("step", "grad", "infer") if plan.graphs.get(name))
    before: Graph = plan.declared
    known = totals(before, plan.batch)
    for number, record in enumerate(plan.graphs[name], 1):
        made = difference(before, record.graph)
        after = totals_after(known, made) if made else known
        words = list(changed_totals(known, after))
        title = f"{number} {record.name}"
        svg = svg_of(partial(pass_scene, title, made, words))
        yield Step(title, svg, f"{title}: {pass_text(made, words)}")
        before, known = record.graph, after
    program = plan.programs.get(name)
    if program is not None:
        title = f"{len(plan.graphs[name]) + 1} kernels"
        svg = svg_of(partial(kernels_scene, program))
        yield Step(title, svg, f"{title}: {', '.join(kernel_words(program))}")


def kernels_scene(program: Program) -> Scene:
    """Return a frame for each kernel with a box for each node; if they are many, fold by kind."""
    if sum(len(_nodes(program, instr)) for instr in program.instrs) > MOST_BOXES:
        return folded_scene(program)
    backward = backward_names(program.graph)
    numbers = count()
    frames: list[Frame] = []
    bars: list[Box] = []
    first = 0
    ids: dict[str, str] = {}
    order: list[Arrow] = []
    above: list[str] = []
    here: list[str] = []
    for number, instr in enumerate(program.instrs):
        if instr.kind == "barrier":
            bar = Box(f"n{next(numbers)}", (BARRIER,), "bar", "barrier")
            first = first if bars else len(frames)
            bars.append(bar)
            order.extend(Arrow(id, bar.id, "bar") for id in here)
            above, here = [bar.id], []
            continue
        boxes = []
        nodes = _nodes(program, instr)
        # A loop is one box, whatever its number of results.
        for some in [[node] for node in nodes] if instr.inside is None else [nodes][: len(nodes)]:
            id = f"n{next(numbers)}"
            boxes.append(_box(id, some, instr.inside is not None, some[0].name in backward))
            ids.update((node.name, id) for node in some)
            order.extend(Arrow(bar_id, id, "bar") for bar_id in above)
            here.append(id)
        if boxes:
            heading = Run(short(f"{number}  {_head(instr)}", 80), bold=True)
            frames.append(Frame((heading,), boxes, "kernel"))
    items: list[Box | Frame] = [*frames[:first], *bars, *frames[first:]]
    return _scene(program, items, ids, order, simpler=partial(folded_scene, program))


def folded_scene(program: Program) -> Scene:
    """Return a drawing with one box for each kind of kernel."""

    def signature(instr: Instr, sized: bool) -> tuple[object, ...]:
        ops = tuple(type(node.op) for node in _nodes(program, instr))
        return (_head(instr) if sized else instr.kind, instr.kernel, ops)

    groups = grouped((i for i in program.instrs if i.kind != "barrier"), signature)
    ids = {
        node.name: f"n{i}"
        for i, instrs in enumerate(groups)
        for instr in instrs
        for node in _nodes(program, instr)
    }
    backward = backward_names(program.graph)
    boxes = [_folded_box(f"n{i}", group, program, backward) for i, group in enumerate(groups)]
    return _scene(program, boxes, ids, words=["equal kernels are one box; barriers are not drawn"])


def _scene(
    program: Program,
    items: Sequence[Box | Frame],
    ids: Mapping[str, str],
    order: Sequence[Arrow] = (),
    words: Sequence[str] = (),
    simpler: Callable[[], Scene] | None = None,
) -> Scene:
    caption = tuple((muted(text),) for text in (*kernel_words(program), *words))
    return Scene("kernels", caption, items, (*_reads(program, ids), *order), simpler=simpler)


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
    if found["repeat"]:
        yield counted(found["repeat"], "loop")
    if found["call"]:
        yield f"{found['call']:,} calls of reference rules"
    if found["send"]:
        yield f"{found['send'] + found['receive']:,} exchanges"


def _nodes(program: Program, instr: Instr) -> list[Node]:
    names = instr.nodes or (instr.node,)
    found = [program.graph[name] for name in names if name in program.graph]
    return [node for node in found if not node.op.is_source]


def _head(instr: Instr) -> str:
    """Return a kernel's title (`gemm N x 100, partitioned by rows`), or a call's kernel's name."""
    if instr.inside is not None:
        steps = counted(instr.inside.steps, "step")
        kernels = sum(inner.kind != "barrier" for inner in instr.inside.program.instrs)
        return f"loop of {steps}, {instr.inside.way}, {counted(kernels, 'kernel')} a step"
    if instr.body is None:
        return f"{instr.kind} {instr.kernel}".strip()
    kind = instr.kernel if isinstance(instr.body, (Gemm, Chain)) else "loop"
    rows, columns = instr.body.space
    by = instr.body.partition
    threads = "one thread" if by == "none" else f"partitioned by {by}"
    return f"{kind} {rows} x {columns}, {threads}"


BARRIER: Line = (Run("- " * 20 + "barrier: all threads wait" + " -" * 20, "muted"),)


def _box(id: str, nodes: Sequence[Node], loop: bool, backward: bool) -> Box:
    """Return the box of a node, or of the results of a loop."""
    first = nodes[0]
    lines: list[Line] = [
        (Run(short(first.op.name, WIDTH), bold=True), muted(f" {short(first.name)}")),
        (muted(str(first.type)),),
    ]
    if loop:
        lines = [(Run(short(node.name), bold=True), muted(f" {node.type}")) for node in nodes]
    title = "\n".join(map(sentence, nodes))
    return Box(id, _cut(lines), "backward" if backward else "forward", printable(title), first.name)


def _cut(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the first lines, and how many more there are."""
    more = len(lines) - MOST_OPS
    return (*lines[:MOST_OPS], *([(muted(f"{more} more"),)] if more > 0 else []))


def _folded_box(
    id: str, instrs: Sequence[Instr], program: Program, backward: Container[str]
) -> Box:
    nodes = _nodes(program, instrs[0])
    times = f" x {len(instrs):,}" if len(instrs) > 1 else ""
    head = Run(f"{_head(instrs[0])}{times}", bold=True)
    ops = _cut([(Run(short(node.op.name, WIDTH)),) for node in nodes])
    first = nodes[0].name if nodes else instrs[0].node
    look: Look = "backward" if first in backward else "forward"
    lines = ((head,), *ops, (muted(f"first {short(first, WIDTH)}"),))
    return Box(id, lines, look, printable(f"{len(instrs):,} kernels like that of {first}"))
