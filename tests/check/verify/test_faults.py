"""Faults in certificates: each is found, by the rule that it breaks, with the right names.

The tables at the end are what this file is about: a fault, the rule, words of the counterexample.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import graphc as gc
from tests.check.verify.claims import BATCH, Claims, Data, called, declare

Plant = Callable[[Claims], None]


# ---------------------------------------------------------------- bytes


def overlapping_slots(c: Claims) -> None:
    c.move("bent", c.slot("active")["offset"])


def slots_overlap_by_a_line(c: Claims) -> None:
    c.move("bent", c.slot("active")["offset"] - 64 * 24 * 4 + 64)


def gradients_share_a_place(c: Claims) -> None:
    c.buffer("d_scores.bias")["at"][2] = c.buffer("d_scores.weight")["at"][2]


def wrong_alignment(c: Claims) -> None:
    c.move("bent", c.slot("bent")["offset"] + 4)


def buffer_off_its_element(c: Claims) -> None:
    c.buffer("both")["at"][2] += 2


def arena_a_byte_short(c: Claims) -> None:
    c.program["arena"] -= 1
    next(b for b in c.program["blocks"] if b["space"] == "arena")["bytes"] = str(c.program["arena"])


def arena_a_line_short(c: Claims) -> None:
    c.program["arena"] -= 64
    next(b for b in c.program["blocks"] if b["space"] == "arena")["bytes"] = str(c.program["arena"])


def arena_reported_too_large(c: Claims) -> None:
    c.program["arena"] += 64


def peak_reported_too_small(c: Claims) -> None:
    c.program["peak"] -= 64


def coefficient_of_the_batch(c: Claims) -> None:
    c.slot("bent")["bytes"] = f"{24 * 4 - 4}*N"


def rows_of_a_buffer(c: Claims) -> None:
    c.buffer("bent")["rows"] = "2*N"


def buffer_fits_the_largest_batch_only(c: Claims) -> None:
    c.buffer("scores")["rows"] = str(BATCH)


def alias_too_long(c: Claims) -> None:
    c.buffer("d_bent")["columns"] = "25"


def alias_of_another_place(c: Claims) -> None:
    c.buffer("d_bent")["at"][2] += 64


# ---------------------------------------------------------------- values


def read_before_write(c: Claims) -> None:
    i, j = c.position("scores"), c.position("d_scores")
    c.steps[i], c.steps[j] = c.steps[j], c.steps[i]


def forward_reads_backward(c: Claims) -> None:
    step = c.writer("scores")
    c.access(step, "both")["buffer"] = "d_both"
    c.buffer("d_both")["rows"], c.buffer("d_both")["columns"] = "N", "48"


def writer_dropped(c: Claims) -> None:
    c.remove(c.position("scores"))


def two_writers(c: Claims) -> None:
    c.insert(c.position("scores") + 1, c.writer("scores"))


def part_of_a_join_missing(c: Claims) -> None:
    c.remove(c.position("both.columns1"))


def joined_parts_overlap(c: Claims) -> None:
    c.buffer("both.columns1")["cut"] = [23, 48]


def operands_of_a_copy_swapped(c: Claims) -> None:
    step = c.writer("seen <- seen.next")
    step["reads"], step["writes"] = step["writes"], step["reads"]


def forward_buffer_overwritten_before_backward(c: Claims) -> None:
    c.move("d_both", c.slot("first")["offset"])


def half_a_part_of_a_join_written(c: Claims) -> None:
    c.buffer("both.columns1")["columns"] = c.writer("both.columns1")["columns"] = "12"
    bent = c.buffer("bent")
    c.program["buffers"].append(
        {**bent, "name": "half", "columns": "12", "shows": "bent", "cut": [0, 24]}
    )
    c.access(c.writer("both.columns1"), "bent")["buffer"] = "half"


def feed_written(c: Claims) -> None:
    c.access(c.writer("softmax_loss_1.rows"), "softmax_loss_1.rows")["buffer"] = "y"


def constant_written(c: Claims) -> None:
    c.access(c.writer("softmax_loss_1"), "softmax_loss_1")["buffer"] = "norm.constant_1"


# ---------------------------------------------------------------- states


def update_before_the_last_reader(c: Claims) -> None:
    step = c.remove(c.position("scores.weight.next"))
    c.insert(c.position("d_both"), step)


def commit_missing(c: Claims) -> None:
    c.remove(c.position("seen <- seen.next"))


def state_written_in_backward(c: Claims) -> None:
    step = c.remove(c.position("seen <- seen.next"))
    c.steps.append(step)


def update_of_another_state(c: Claims) -> None:
    c.program["updates"]["norm.running_var"] = "norm.running_mean.next"


def output_of_an_old_state_not_kept(c: Claims) -> None:
    c.program["outputs"]["mean"] = "norm.running_mean"


# ---------------------------------------------------------------- in place


def in_place_over_a_value_read_later(c: Claims) -> None:
    shared_place(c, "active", "first")


def in_place_where_the_kernel_may_not(c: Claims) -> None:
    step = c.writer("d_first")
    del c.access(step, "d_bent.sub_1")["in_place"]


def in_place_at_other_elements(c: Claims) -> None:
    access = c.access(c.writer("d_first"), "d_bent.sub_1")
    access["by"] = "row"
    line = c.buffer("d_bent.sub_1")
    line["rows"], line["columns"] = "1", "N"


def factor_overwritten(c: Claims) -> None:
    shared_place(c, "scores", "both")


def shared_place(c: Claims, name: str, other: str) -> None:
    """Let a buffer lie where another is, in its slot."""
    line = c.buffer(name)
    line["slot"], line["at"] = c.buffer(other)["slot"], list(c.buffer(other)["at"])


# ---------------------------------------------------------------- calls


def call_before_its_operand(c: Claims) -> None:
    i, j = c.position("summed"), c.position("wave")
    c.steps[i], c.steps[j] = c.steps[j], c.steps[i]


def call_dropped(c: Claims) -> None:
    c.remove(c.position("summed"))


def called_twice(c: Claims) -> None:
    c.insert(c.position("summed") + 1, c.writer("summed"))


def half_of_a_value_written(c: Claims) -> None:
    c.program["buffers"].append(
        {**c.buffer("wave"), "name": "half", "columns": "8", "shows": "wave"}
    )
    c.access(c.writer("wave"), "wave")["buffer"] = "half"


def feed_written_by_a_call(c: Claims) -> None:
    c.access(c.writer("summed"), "summed")["buffer"] = "x"


def call_over_a_value_read_later(c: Claims) -> None:
    shared_place(c, "wave", "summed")


def call_in_place_where_the_op_may_not(c: Claims) -> None:
    del c.access(c.writer("wave"), "summed")["in_place"]


def call_over_an_operand_of_another_place(c: Claims) -> None:
    """A line further on than the operand, which it would overwrite before it is read."""
    c.buffer("wave")["at"][2] += 64
    c.program["blocks"][0]["bytes"] = str(c.program["arena"] + 64)


def call_touches_elements(c: Claims) -> None:
    c.access(c.writer("wave"), "summed")["by"] = "each"


# ---------------------------------------------------------------- threads


def barrier_missing(c: Claims) -> None:
    i = next(i for i, step in enumerate(c.steps) if step["step"] == "barrier")
    c.remove(i)


def wrong_split(c: Claims) -> None:
    c.writer("scores")["split"] = "columns"


def sum_split(c: Claims) -> None:
    c.writer("norm.mean")["split"] = "rows"


def split_of_other_rows(c: Claims) -> None:
    """The same bytes as half as wide a matrix: its chunks of rows end elsewhere."""
    step: Data = {"step": "loop", "node": "reader", "split": "rows", "rows": "2*N", "columns": "4"}
    step["reads"] = [{"buffer": "scores", "by": "each"}]
    c.insert(c.position("scores") + 1, step)


def run_by_the_first_thread(c: Claims) -> None:
    c.writer("scores")["split"] = "none"


def stored_by_the_first_thread(c: Claims) -> None:
    """A loop by blocks of columns stores once a row only when all blocks are done."""
    step = c.writer("softmax_loss_1.rows")
    del step["reduced"]
    step["by_columns"] = 1
    c.insert(c.position("softmax_loss_1.rows") + 1, reader_of_rows(c))


def reader_of_rows(c: Claims) -> Data:
    return {
        "step": "loop",
        "node": "reader",
        "split": "rows",
        "rows": "N",
        "columns": "8",
        "reads": [{"buffer": "softmax_loss_1.rows", "by": "row"}],
    }


def part_of_a_join_by_another_split(c: Claims) -> None:
    """The second part alone is in the epoch of the reader, and by other threads than it."""
    c.writer("both.columns1")["split"] = "columns"
    barrier = next(step for step in c.steps if step["step"] == "barrier")
    c.insert(c.position("both.columns1"), barrier)
    for line in (*c.program["buffers"], *c.program["slots"]):
        line["life"] = [epoch + (epoch > 2) for epoch in line["life"]]


def agrees_for_the_largest_batch_only(c: Claims) -> None:
    """Rows of N elements lie where rows of 64 were: with fewer rows a row is another thread's."""
    step: Data = {"step": "loop", "node": "late", "split": "rows", "rows": "64", "columns": "N"}
    step["reads"] = [{"buffer": "square", "by": "each", "in_place": 1}]
    late: Data = {**step, "reads": [], "writes": [{"buffer": "late", "by": "each"}]}
    made: Data = {**step, "reads": [], "writes": [{"buffer": "square", "by": "each"}]}
    made["columns"] = step["columns"] = "64"
    i = c.position("scores") + 1
    for number, one in enumerate((made, step, late)):
        c.insert(i + number, one)
    end = c.program["arena"]
    line = {"at": ["arena", "arena", end], "rows": "64", "item": 4, "life": [2, 2]}
    for name, columns in (("square", "64"), ("late", "N")):
        c.program["buffers"].append({**line, "name": name, "columns": columns, "slot": "square"})
    c.program["slots"].append({"name": "square", "offset": end, "bytes": "16384", "life": [2, 2]})
    c.program["blocks"][0]["bytes"] = str(end + 16384)
    c.program["arena"] = end + 16384


def bytes_change_hands_within_an_epoch(c: Claims) -> None:
    """What one thread still reads by rows another overwrites by columns."""
    c.move("softmax_loss_1.rows", c.slot("bent")["offset"])


# ---------------------------------------------------------------- the report


def life_ends_too_early(c: Claims) -> None:
    c.buffer("both")["life"][1] -= 1


def life_begins_too_late(c: Claims) -> None:
    c.buffer("active")["life"][0] += 1


def slot_too_short_lived(c: Claims) -> None:
    c.slot("both")["life"][1] -= 1


def kernel_of_more_columns(c: Claims) -> None:
    c.writer("scores")["columns"] = "9"


def scratch_of_threads_too_small(c: Claims) -> None:
    c.data["memory"]["scratch_thread"] -= 64


def threads_not_counted(c: Claims) -> None:
    c.data["memory"]["scratch"] = c.data["memory"]["scratch_thread"] + 64


def states_overlap(c: Claims) -> None:
    c.data["state"]["first.bias"][0] -= 64


def total_wrong(c: Claims) -> None:
    c.data["memory"]["total"] += 1


def feeds_not_counted(c: Claims) -> None:
    c.data["memory"]["feeds"] -= 64


LIVE = "no write touches a live buffer"
DEFINED = "every read is of a defined value"
INSIDE = "every buffer lies within its memory"
ALIGNED = "buffers are aligned"
ALIAS = "an alias is part of its value"
WHOLE = "a kernel touches a whole buffer and no more"
WRITERS = "every value has one writer"
GIVEN = "feeds and constants are not written"
STATES = "a state is written by its update alone"
PLACE = "a result takes the place of an operand element by element"
THREADS = "between barriers a byte is one thread's"
SPLIT = "no sum is partitioned"
LIVES = "the live range of a buffer is as reported"
SLOTS = "slots hold their buffers and share nothing at one time"
SIZES = "the arena is as large as reported"
TOTALS = "the memory report adds up"

#     the fault, as a function above        backend   program caught by   the counterexample names
TABLE: tuple[tuple[Plant, str, str, str, tuple[str, ...]], ...] = (
    (overlapping_slots, "numpy", "step", LIVE, ("'bent'", "'active'")),
    (overlapping_slots, "native", "step", LIVE, ("'bent'", "'active'")),
    (slots_overlap_by_a_line, "numpy", "step", LIVE, ("'bent'", "they share arena bytes")),
    (gradients_share_a_place, "native", "grad", LIVE, ("'d_scores.bias'", "gradient bytes")),
    (wrong_alignment, "native", "step", ALIGNED, ("'bent'",)),
    (buffer_off_its_element, "numpy", "step", ALIGNED, ("'both'",)),
    (arena_a_byte_short, "numpy", "grad", SIZES, ("47,551", "47,552")),
    (arena_a_line_short, "numpy", "step", INSIDE, ("arena", "ends past byte")),
    (arena_reported_too_large, "numpy", "step", SIZES, ()),
    (peak_reported_too_small, "native", "step", SIZES, ("live at once",)),
    (coefficient_of_the_batch, "numpy", "step", SLOTS, ("'bent'",)),
    (rows_of_a_buffer, "native", "step", WHOLE, ("'bent'",)),
    (buffer_fits_the_largest_batch_only, "native", "step", WHOLE, ("'scores'", "8*N")),
    (alias_too_long, "native", "step", INSIDE, ("'d_bent'", "columns 24..49 of 48")),
    (alias_of_another_place, "native", "step", ALIAS, ("'d_bent'", "'d_both'")),
    (read_before_write, "numpy", "step", DEFINED, ("'scores'", "before it is written")),
    (forward_reads_backward, "native", "grad", DEFINED, ("'d_both'", "forward pass")),
    (writer_dropped, "numpy", "step", DEFINED, ("'scores'", "no step writes it")),
    (two_writers, "numpy", "step", WRITERS, ("'scores'", "both write")),
    (part_of_a_join_missing, "native", "step", DEFINED, ("columns 24..48", "'both'")),
    (half_a_part_of_a_join_written, "numpy", "step", DEFINED, ("columns 36..48", "'both'")),
    (joined_parts_overlap, "native", "step", WRITERS, ("'both'",)),
    (operands_of_a_copy_swapped, "numpy", "grad", WRITERS, ("loop 'seen'",)),
    (operands_of_a_copy_swapped, "native", "grad", WRITERS, ("loop 'seen'",)),
    (forward_buffer_overwritten_before_backward, "native", "grad", LIVE, ("'first'", "'d_both'")),
    (feed_written, "numpy", "step", GIVEN, ("the feed 'y'",)),
    (constant_written, "numpy", "step", GIVEN, ("the constant",)),
    (update_before_the_last_reader, "numpy", "step", LIVE, ("'scores.weight.next'", "'d_both'")),
    (commit_missing, "numpy", "grad", STATES, ("'seen' never gets",)),
    (commit_missing, "native", "grad", STATES, ("'seen' never gets",)),
    (state_written_in_backward, "native", "grad", STATES, ("in the backward pass",)),
    (update_of_another_state, "native", "step", STATES, ("'norm.running_var' never gets",)),
    (output_of_an_old_state_not_kept, "numpy", "grad", LIVE, ("needed at the end",)),
    (in_place_over_a_value_read_later, "numpy", "step", LIVE, ("'active'", "'first'")),
    (in_place_where_the_kernel_may_not, "numpy", "step", PLACE, ("'d_first'", "'d_bent.sub_1'")),
    (in_place_at_other_elements, "native", "step", WHOLE, ("'d_bent.sub_1'",)),
    (factor_overwritten, "native", "step", LIVE, ("'scores'", "'both'")),
    (barrier_missing, "native", "step", THREADS, ("'first'", "no barrier is between them")),
    (wrong_split, "native", "step", THREADS, ("'scores'", "partitioned by columns")),
    (sum_split, "native", "step", SPLIT, ("sums over rows",)),
    (split_of_other_rows, "native", "step", THREADS, ("'scores'", "of 3 threads")),
    (run_by_the_first_thread, "native", "step", THREADS, ("the first thread has all of it",)),
    (stored_by_the_first_thread, "native", "grad", THREADS, ("'softmax_loss_1.rows'",)),
    (
        bytes_change_hands_within_an_epoch,
        "native",
        "step",
        THREADS,
        ("'softmax_loss_1.rows'", "'bent'"),
    ),
    (life_ends_too_early, "numpy", "step", LIVES, ("'both'",)),
    (life_begins_too_late, "native", "step", LIVES, ("'active'",)),
    (slot_too_short_lived, "native", "step", SLOTS, ("'both'",)),
    (kernel_of_more_columns, "native", "step", WHOLE, ("'scores.weight'", "432")),
    (scratch_of_threads_too_small, "numpy", "step", TOTALS, ("a step needs",)),
    (scratch_of_threads_too_small, "native", "step", TOTALS, ("a step needs",)),
    (threads_not_counted, "native", "step", TOTALS, ("scratch",)),
    (states_overlap, "numpy", "step", TOTALS, ("'first.bias'",)),
    (total_wrong, "native", "step", TOTALS, ("total",)),
    (feeds_not_counted, "numpy", "step", TOTALS, ("feeds",)),
)

#     the same in steps that are calls of ops without a kernel
CALLS: tuple[tuple[Plant, str, str, str, tuple[str, ...]], ...] = (
    (call_before_its_operand, "numpy", "step", DEFINED, ("call 'wave'", "before it is written")),
    (call_dropped, "numpy", "step", DEFINED, ("'summed'", "no step writes it")),
    (called_twice, "numpy", "step", WRITERS, ("'summed'", "both write")),
    (half_of_a_value_written, "numpy", "step", WRITERS, ("'half'", "'wave'", "neither all")),
    (feed_written_by_a_call, "numpy", "step", GIVEN, ("call 'summed'", "the feed 'x'")),
    (call_over_a_value_read_later, "numpy", "step", LIVE, ("'wave'", "'summed'")),
    (call_over_a_value_read_later, "native", "step", LIVE, ("'wave'", "'summed'")),
    (call_in_place_where_the_op_may_not, "numpy", "infer", PLACE, ("'wave'", "as a whole")),
    (call_in_place_where_the_op_may_not, "native", "infer", PLACE, ("'wave'", "as a whole")),
    (call_over_an_operand_of_another_place, "numpy", "infer", PLACE, ("'wave'", "'summed'")),
    (call_touches_elements, "numpy", "step", WHOLE, ("call 'wave'", "'each'")),
)
ROWS = [*((declare, *row) for row in TABLE), *((called, *row) for row in CALLS)]


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("net", [declare, called])
def test_without_a_fault_all_is_proved(net: Callable[[], gc.Net], backend: str) -> None:
    claims = Claims(backend, net=net)
    assert claims.report().ok
    assert claims.data["batch"] == BATCH


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("net", "plant", "backend", "program", "rule", "words"),
    ROWS,
    ids=[f"{row[1].__name__}-{row[2]}" for row in ROWS],
)
def test_a_fault_is_caught(
    net: Callable[[], gc.Net],
    plant: Plant,
    backend: str,
    program: str,
    rule: str,
    words: tuple[str, ...],
) -> None:
    claims = Claims(backend, program, net)
    plant(claims)
    report = claims.report()
    assert not report.ok
    found = report.counterexample
    assert found is not None
    assert found.rule == rule, found
    for word in words:
        assert word in str(found), found


def test_the_table_has_more_than_thirty_faults() -> None:
    assert len({row[1] for row in ROWS}) >= 30
