"""The times of a program's instructions as a text table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.ir.plan import Instr, Program
from graphc.ir.text.graph import name_text
from graphc.view.profile.cost import Cost, cost
from graphc.view.profile.peak import Peak
from graphc.view.profile.verdict import verdict

COLUMNS = (
    "time us", "share", "kFLOP", "of peak", "kB", "GB/s", "roof", "bound", "kernel", "node", "line",
)  # fmt: skip
TEXT_COLUMNS = 4
"""The number of columns at the end that are left-aligned."""


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction: its seconds, its cost, and its kernel, node and source line."""

    seconds: float
    cost: Cost
    kernel: str
    node: str
    where: str


def lines_of(program: Program, seconds: Sequence[float], n: int) -> list[Line]:
    """Return a line for each instruction but barriers, in order."""
    pairs = zip(program.instrs, seconds, strict=True)
    return [
        Line(time, cost(program, instr, n), kernel_text(instr), instr.node, _where(program, instr))
        for instr, time in pairs
        if instr.kind != "barrier"
    ]


def kernel_text(instr: Instr) -> str:
    """Return the kernel's name, with the number of nodes that it computes at once."""
    nodes = len(instr.nodes)
    return instr.kernel if nodes <= 1 else f"{instr.kernel} of {nodes}"


def _where(program: Program, instr: Instr) -> str:
    """Return the user's line of the node, or of the first fused one that has one."""
    for name in (instr.node, *instr.nodes):
        node = program.graph.nodes.get(name)
        if node is not None and node.locs:
            return str(node.locs[0])
    return ""


def table(lines: Sequence[Line], peak: Peak) -> str:
    """Return the lines and their sum.

    `of peak` is the share of the peak of multiply-adds, `roof` the share of what the roofline
    allows: of the peak, or of the memory's bandwidth where that is the nearer limit.  Data that
    caches hold may come faster than that.  `bound` is the verdict, see
    `graphc.view.profile.verdict`.
    """
    total = sum(line.seconds for line in lines)
    whole = sum((line.cost for line in lines), Cost())
    rows: list[tuple[str, ...]] = [COLUMNS]
    rows += [_row(line, total, peak) for line in lines]
    rows.append(_row(Line(total, whole, "sum", "", ""), total, peak))
    return "\n".join(_aligned(rows))


def _row(line: Line, total: float, peak: Peak) -> tuple[str, ...]:
    seconds, work = line.seconds, line.cost
    rate = work.flops / seconds if seconds else 0.0
    stream = work.bytes / seconds if seconds else 0.0
    roof = peak.seconds(work.flops, work.bytes) / seconds if seconds else 0.0
    return (
        f"{seconds * 1e6:.1f}",
        f"{seconds / total if total else 0:.1%}",
        f"{work.flops / 1e3:.1f}",
        f"{rate / peak.flops:.1%}",
        f"{work.bytes / 1e3:.1f}",
        f"{stream / 1e9:.1f}",
        f"{roof:.0%}",
        verdict(seconds, work, peak) if line.kernel != "sum" else "",
        line.kernel,
        name_text(line.node) if line.node else "",
        line.where,
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(COLUMNS) - TEXT_COLUMNS
    for row in rows:
        cells = [
            cell.rjust(width) if i < left else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
