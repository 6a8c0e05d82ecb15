"""What the memory report says of loops: the bytes that a step keeps, in all, and its workspace."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.kernels.program import Program

T, WIDTH, FLOAT = 11, 5, 4


def planned(batch: int = 6, steps: int = T) -> Plan:
    net = gc.Net("rnn")
    x, h0 = net.input("x", (gc.N, steps, 3)), net.input("h0", (gc.N, WIDTH))
    w, u = net.parameter("w", (3, WIDTH)), net.parameter("u", (WIDTH, WIDTH))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(x @ w + h @ u)
        return h, h

    states, _ = gc.scan(step, x, h0, name="rnn")
    net.output("states", states)
    net.loss("loss", gc.mean(states * states))
    return gc.compile(net, batch=batch, optimizer=gc.SGD(lr=0.1), backend="numpy")


def written(program: Program) -> dict[str, tuple[int, int]]:
    """For each loop the bytes of the buffers with all steps that it writes, and its workspace."""
    found = {}
    for instr in program.instrs:
        if instr.inside is not None:
            of = {name: program.buffers[name] for name in instr.outs}
            sizes = {n: b.type.nbytes(program.capacity) for n, b in of.items()}
            kept = sum(sizes[n] for n, b in of.items() if b.type.shape[0] == instr.inside.steps)
            found[instr.node] = kept, sizes[instr.inside.workspace]
    return found


@pytest.mark.parametrize("name", ["infer", "grad", "step"])
def test_the_bytes_are_those_of_the_buffers(name: str) -> None:
    plan = planned()
    lines = [line for line in plan.memory.loops() if line.program == name]
    assert {line.name: (line.nbytes, line.workspace) for line in lines} == written(
        plan.programs[name]
    )
    assert all(line.step_bytes * line.steps == line.nbytes for line in lines)


def test_a_step_keeps_its_result_and_what_its_gradient_reads() -> None:
    """The gradient of tanh reads its result, that of h @ u the h before: two arrays of (N, 5)."""
    lines = {line.name: line for line in planned().memory.loops() if line.program == "step"}
    assert lines["rnn.steps"].formula == f"{2 * WIDTH * FLOAT}*N"
    assert lines["rnn.steps"].step_bytes == 2 * WIDTH * FLOAT * 6
    (inference,) = [
        line for line in planned().memory.loops() if line.program == "infer" and not line.at_once
    ]
    assert inference.formula == f"{WIDTH * FLOAT}*N"


def test_the_workspace_does_not_depend_on_the_number_of_steps() -> None:
    few, many = ([x.workspace for x in planned(steps=n).memory.loops()] for n in (3, 13))
    assert few == many and any(few)


def test_the_report_has_a_line_for_each_loop() -> None:
    plan = planned()
    text = str(plan.memory)
    assert "loops of step" in text or "loops of grad" in text
    line = next(x for x in plan.memory.loops() if x.program == "step" and x.name == "rnn.steps")
    (row,) = [row for row in text.splitlines() if row.startswith("    rnn.steps ")]
    each = f"{line.step_bytes:,} ({line.formula})"
    assert row.split() == [
        "rnn.steps",
        str(T),
        *each.split(),
        f"{line.nbytes:,}",
        str(line.workspace),
    ]


def test_a_loop_in_a_loop_has_a_line_of_its_own() -> None:
    net = gc.Net("inside")
    x, h0 = net.input("x", (gc.N, 3, 4, WIDTH)), net.input("h0", (gc.N, WIDTH))

    def inner(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(x * h)
        return h, h

    def outer(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        states, last = gc.scan(inner, x, h, name="inner")
        return gc.sum(states, axis=1), last

    net.output("y", gc.scan(outer, x, h0, name="outer")[0])
    lines = {x.name: x for x in gc.compile(net, batch=2, backend="numpy").memory.loops()}
    assert lines["outer.steps"].steps == 3 and lines["outer.steps/inner.steps"].steps == 4


def test_programs_of_a_plan_share_those_of_their_steps() -> None:
    """The loop and its gradient, which a step and the gradient alone have in common."""

    def steps(name: str) -> list[Program]:
        return [i.inside.program for i in plan.programs[name].instrs if i.inside is not None]

    plan = planned()
    pairs = list(zip(steps("grad"), steps("step"), strict=True))
    assert pairs
    assert all(one is other for one, other in pairs)
