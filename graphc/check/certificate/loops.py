"""The tables of a program's loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from graphc.check.certificate import Ints, LoopTables, ProgramTables
from graphc.check.certificate.columns import column
from graphc.kernels.program import Program
from graphc.kernels.scan import ScanKernel


def loop_tables(
    program: Program, outside: Mapping[str, int], certify: Callable[[Program], ProgramTables]
) -> Iterator[LoopTables]:
    """Yield the tables of each loop; `outside` are the numbers of the buffers around it."""
    for position, instr in enumerate(program.instrs):
        if isinstance(instr.inside, ScanKernel):
            yield _loop(position, instr.inside, outside, certify(instr.inside.program))


def _loop(
    position: int, scan: ScanKernel, outside: Mapping[str, int], program: ProgramTables
) -> LoopTables:
    inside = {name: i for i, name in enumerate(scan.program.buffers)}

    def pairs(named: Mapping[str, str]) -> Ints:
        rows: Ints = column([(inside[k], outside[v]) for k, v in named.items()])
        return rows.reshape(-1, 2)

    carried = [
        (
            *(inside[name] for name in (one.feed, one.result)),
            *(outside.get(x, -1) for x in (one.initial, one.last, one.before, one.stacked)),
        )
        for one in scan.carried
    ]
    return LoopTables(
        position,
        program,
        scan.steps,
        int(scan.at_once),
        int(scan.waits),
        pairs(scan.sequences),
        pairs(scan.whole),
        pairs(scan.stacked),
        column(carried).reshape(-1, 6),
        inside.get(scan.number, -1),
        outside.get(scan.lengths, -1),
        outside[scan.workspace],
        column([inside[name] for name in scan.slots]),
        column(list(scan.slots.values())),
    )
