"""Faults in the planner itself: the plan that it really makes is refused.

Each row of the table replaces one rule of the scheduler, the lowering, the barriers or the memory
planner by a wrong one, compiles, and verifies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

import graphc as gc
from graphc.compiler import assignment, driver, lowering, memory, schedule, sizes
from graphc.compiler.program import build_program as unverified
from graphc.kernels import barriers, fuse, program
from graphc.kernels.groups import Grouping
from graphc.kernels.kernel import Convolution, Gemm
from tests.check.verify.claims import BATCH, called, declare
from tests.check.verify.test_faults import (
    ALIGNED,
    INSIDE,
    LIVE,
    LIVES,
    PLACE,
    SIZES,
    SLOTS,
    SPLIT,
    STATES,
    THREADS,
    TOTALS,
)

Wrong = Callable[[Any], Any]


def lives_one_step_short(right: Any) -> Any:
    def lives(self: Any) -> Any:
        first, last = right(self)
        return first, [max(f, x - 1) if x >= 0 else x for f, x in zip(first, last, strict=True)]

    return lives


def outputs_not_kept(right: Any) -> Any:
    def lives(self: Any) -> Any:
        outputs, self.outputs = self.outputs, {}
        found = right(self)
        self.outputs = outputs
        return found

    return lives


def all_at_the_start(right: Any) -> Any:
    def place(ranges: Any, **options: Any) -> Any:
        found = right(ranges, **options)
        return memory.Arena(dict.fromkeys(found.offsets, 0), found.nbytes, found.peak)

    return place


def every_offset_a_line_lower(right: Any) -> Any:
    def place(ranges: Any, **options: Any) -> Any:
        found = right(ranges, **options)
        offsets = {name: max(0, offset - 64) for name, offset in found.offsets.items()}
        return memory.Arena(offsets, found.nbytes, found.peak)

    return place


def arena_of_its_peak_less_a_line(right: Any) -> Any:
    def place(ranges: Any, **options: Any) -> Any:
        found = right(ranges, **options)
        return memory.Arena(found.offsets, found.nbytes - 64, found.peak)

    return place


def nothing_is_aligned(right: Any) -> Any:
    return lambda nbytes: nbytes


def operands_never_die_too_late(right: Any) -> Any:
    def dying(self: Any, instr: Any, out: int, i: int) -> Any:
        for position in instr.op.inplace if instr.kind == "call" else ():
            slot = self.slots[self.root[instr.ins[position]]]
            if slot is not None and slot.type == self.types[out]:
                return slot
        return right(self, instr, out, i)

    return dying


def factors_may_be_overwritten(right: Any) -> Any:
    def in_place(self: Any, instr: Any) -> Any:
        return [self.root[name] for name in instr.ins]

    return in_place


def every_part_is_the_same(right: Any) -> Any:
    return lambda *args: barriers.Region("rows", 1)


def every_read_is_in_time(right: Any) -> Any:
    return lambda *args: True


def never(right: Any) -> Any:
    return lambda *args: False


def nobody_waits(right: Any) -> Any:
    return lambda in_place, readers: {}


def updates_wherever_they_like(right: Any) -> Any:
    def writers(graph: Any, readers: Any) -> Any:
        return {value: state for state, value in graph.updates.items()}, []

    return writers


def commits_left_out(right: Any) -> Any:
    def end(self: Any, order: Any) -> None:
        self.boundary = len(self.instrs)

    return end


def commits_after_backward(right: Any) -> Any:
    def run(self: Any, order: Any) -> Any:
        commits = order.commits
        right(self, replace(order, commits=()))
        for state, value in commits:
            self.copy(value, f"{state} <- {value}", self.graph[state].type, state)

    return run


def rows_are_columns(right: Any) -> Any:
    def region(kernel: Any, span: Any) -> Any:
        found = right(kernel, span)
        return (
            barriers.Region("rows", kernel.rows if hasattr(kernel, "rows") else kernel.m)
            if (found.kind.startswith(("rows", "columns", "panels")))
            else found
        )

    return region


def factors_are_read_by_rows(right: Any) -> Any:
    def accesses(kernel: Any, memory: Any) -> Any:
        found = right(kernel, memory)
        return [one for one in found if one[2] != barriers.ALL or one[1]]

    return accesses


def windows_are_read_by_rows(right: Any) -> Any:
    """As if each thread read the images alone that it made."""

    def accesses(kernel: Any, memory: Any) -> Any:
        if not isinstance(kernel, Convolution):
            return right(kernel, memory)
        product = {field.name: getattr(kernel, field.name) for field in fields(Gemm)}
        return right(Gemm(**product), memory)

    return accesses


def sums_are_split(right: Any) -> Any:
    def split(rows: Any, columns: Any, axis: Any, *others: Any) -> str:
        return str(axis)

    return split


def gradients_in_one_place(right: Any) -> Any:
    def assign(self: Any) -> Any:
        offsets, buffers = right(self)
        return dict.fromkeys(offsets, 0), buffers

    return assign


def one_row_less(right: Any) -> Any:
    def range_at(self: Any, n: int) -> Any:
        return right(self, max(1, n - 1))

    return range_at


def scratch_for_half_of_it(right: Any) -> Any:
    return lambda thread, threads: right(thread // 2 // 64 * 64, threads)


#     what replaces a rule                where the rule is              backend   caught by
TABLE: tuple[tuple[Wrong, Any, str, str, tuple[str, ...]], ...] = (
    (lives_one_step_short, assignment.Assignment, "_lives", "numpy", (LIVE, LIVES, PLACE)),
    (lives_one_step_short, assignment.Assignment, "_lives", "native", (LIVE, LIVES, PLACE)),
    (outputs_not_kept, assignment.Assignment, "_lives", "numpy", (LIVE, LIVES)),
    (outputs_not_kept, assignment.Assignment, "_lives", "native", (LIVE, LIVES)),
    (all_at_the_start, assignment, "place", "numpy", (LIVE,)),
    (all_at_the_start, assignment, "place", "native", (LIVE,)),
    (every_offset_a_line_lower, assignment, "place", "numpy", (LIVE, PLACE)),
    (arena_of_its_peak_less_a_line, assignment, "place", "native", (INSIDE, SIZES)),
    (nothing_is_aligned, memory, "align", "numpy", (ALIGNED,)),
    (operands_never_die_too_late, assignment.Assignment, "_dying_operand", "numpy", (LIVE,)),
    (factors_may_be_overwritten, assignment.Assignment, "_read_in_place", "native", (PLACE,)),
    (
        every_part_is_the_same,
        assignment.Assignment,
        "_part_with",
        "native",
        (THREADS, LIVE, SLOTS, INSIDE),
    ),
    (nobody_waits, schedule, "_waits", "numpy", (LIVE,)),
    (nobody_waits, schedule, "_waits", "native", (LIVE,)),
    (every_read_is_in_time, Grouping, "_reads_before", "numpy", (PLACE,)),
    (every_read_is_in_time, Grouping, "_reads_before", "native", (PLACE,)),
    (updates_wherever_they_like, schedule, "_writers", "numpy", (LIVE, STATES)),
    (commits_left_out, lowering.Lowering, "_end_forward", "numpy", (STATES,)),
    (commits_left_out, lowering.Lowering, "_end_forward", "native", (STATES,)),
    (commits_after_backward, lowering.Lowering, "_lower_all", "numpy", (STATES,)),
    (never, barriers.Barriers, "_conflicts", "native", (THREADS,)),
    (rows_are_columns, barriers, "region", "native", (THREADS,)),
    (factors_are_read_by_rows, barriers, "accesses", "native", (THREADS,)),
    (windows_are_read_by_rows, barriers, "accesses", "native", (THREADS,)),
    (sums_are_split, fuse, "loop_partition", "native", (SPLIT,)),
    (gradients_in_one_place, assignment.Assignment, "_assign_gradients", "numpy", (LIVE,)),
    (one_row_less, program.Storage, "range_at", "numpy", (LIVE, INSIDE)),
    (one_row_less, program.Storage, "range_at", "native", (LIVE, INSIDE)),
    (scratch_for_half_of_it, sizes, "ScratchSize", "numpy", (TOTALS,)),
    (scratch_for_half_of_it, sizes, "ScratchSize", "native", (TOTALS,)),
)


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("wrong", "owner", "name", "backend", "rules"),
    TABLE,
    ids=[f"{row[0].__name__}-{row[3]}" for row in TABLE],
)
def test_a_plan_of_a_wrong_planner_is_refused(
    wrong: Wrong,
    owner: Any,
    name: str,
    backend: str,
    rules: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver, "build_program", unverified)
    monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    for net in (declare(), square(), images(), called(), tied()):
        made = gc.compile(net, batch=BATCH, optimizer=optimizer, backend=backend, threads=2)
        report = made.verify()
        if report.counterexample is not None:
            assert report.counterexample.rule in rules, report
            return
    raise AssertionError("no plan was refused")


def square() -> gc.Net:
    """Products as large as what they are of."""
    net = gc.Net("square")
    h = net.input("x", (gc.N, 16))
    for _ in range(3):
        h = gc.affine(h, 16)
    net.output("h", h)
    net.loss("loss", gc.mean(h * h))
    return net


def tied() -> gc.Net:
    """A weight that its gradient is a product of, and that is read when all else is done."""
    net = gc.Net("tied")
    w = net.parameter("w", (16, 16))
    h = gc.matmul(net.input("x", (gc.N, 16)), gc.matmul(w, w))
    net.loss("loss", gc.mean(h * h))
    net.loss("level", gc.mean(w))
    return net


def images() -> gc.Net:
    """Products of windows, one after the other."""
    net = gc.Net("images")
    h = net.input("x", (gc.N, 3, 6, 6))
    for _ in range(2):
        h = gc.relu(gc.conv2d(h, 4, 3, padding=1))
    net.loss("loss", gc.mean(h * h))
    return net
