"""The memory of loops: what a step keeps for later, for all steps, and the workspace of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.base.text_table import aligned
from graphc.ir.byte_count import bytes_of
from graphc.kernels.program import Program
from graphc.kernels.scan import ScanKernel


@dataclass(frozen=True, slots=True)
class LoopLine:
    """A loop of a program as the memory report lists it.

    Parameters
    ----------
    program
        The name of the program.
    name
        The name of the loop: that of its first result, after the names of the loops around it.
    steps
        The number of its steps.
    step_bytes, formula
        The bytes that a step writes to arrays of all steps, and a formula of them in N.
    nbytes
        The same bytes for all steps.
    workspace
        The bytes that a step needs besides, which all steps share.
    at_once
        True if all steps run as one.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> x, h = net.input("x", (gc.N, 7, 5)), net.input("h", (gc.N, 5))
    >>> def step(x, h):
    ...     h = gc.tanh(x + h)
    ...     return h, h
    >>> y = net.output("y", gc.scan(step, x, h, name="rnn")[0])
    >>> [(line.name, line.steps, line.formula) for line in gc.compile(net, batch=8).memory.loops()]
    [('rnn.steps', 7, '20*N')]
    """

    program: str
    name: str
    steps: int
    step_bytes: int
    formula: str
    nbytes: int
    workspace: int
    at_once: bool


def loop_lines(program: Program, name: str, path: str = "") -> Iterator[LoopLine]:
    """Yield a line for each loop of a program in order; one inside another follows that one."""
    for instr in program.instrs:
        scan = instr.inside
        if not isinstance(scan, ScanKernel):
            continue
        types = [program.buffers[buffer].type for buffer in _kept(scan)]
        total = sum(type.nbytes(program.capacity) for type in types)
        slices = (type.with_shape(type.shape[1:]) for type in types)
        workspace = program.buffers[scan.workspace].type.nbytes(program.capacity)
        own = f"{path}{instr.node}"
        yield LoopLine(
            name,
            own,
            scan.steps,
            total // scan.steps,
            str(bytes_of(slices)).replace(",", ""),
            total,
            workspace,
            scan.at_once,
        )
        yield from loop_lines(scan.program, name, f"{own}/")


def _kept(scan: ScanKernel) -> Iterator[str]:
    """Yield the arrays of which each step writes a slice; sums over steps are none."""
    inside = {outer: scan.program.buffers[name] for name, outer in scan.stacked.items()}
    for outer in scan.sequences_written():
        if not scan.at_once or inside[outer].type.batched:
            yield outer


def loops_text(lines: Sequence[LoopLine]) -> Iterator[str]:
    """Yield the loops of one program as a table."""
    rows = [("loops of " + lines[0].program, "steps", "bytes a step", "in all", "workspace")]
    for line in lines:
        each = f"{line.step_bytes:,} ({line.formula})" if line.nbytes else "0"
        steps = f"{line.steps:,}"
        rows.append((f"  {line.name}", steps, each, f"{line.nbytes:,}", f"{line.workspace:,}"))
    yield from (f"  {row}" for row in aligned(rows, "<>>>>"))
