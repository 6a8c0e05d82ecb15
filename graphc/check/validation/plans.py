"""Validates a plan: runs its programs and an executor of it, and compares every value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from graphc.backends.backend import backend
from graphc.base.errors import GraphError, counted
from graphc.check.certificate.export import certify_program
from graphc.check.validation.executors import Arrays, Others, Ways, arrays_of, updated
from graphc.check.validation.explain import explained_fault
from graphc.check.validation.faults import Count, Fault, Trial, Trials, first_fault
from graphc.check.validation.programs import THREADS, Bench
from graphc.check.validation.run import Draw, batches_for, draws_for, far
from graphc.check.validation.updates import rounded_states
from graphc.check.verify import verify_program
from graphc.compiler.plan import Plan
from graphc.declare.optim.rule import UpdateRule
from graphc.kernels.program import Program

RATE = 64.0
"""A learning rate with which an error of the update is not lost in the parameter's rounding."""


@dataclass(frozen=True)
class Ran:
    """The summary of a plan's validation."""

    programs: tuple[str, ...]
    rows: tuple[int, ...]
    count: Count
    ways: tuple[str, ...]
    """The ways of an executor that gave the same bits."""
    left: tuple[str, ...]
    """The parts that were not run, and why."""

    def __str__(self) -> str:
        count = self.count
        lines = [
            f"ran {', '.join(self.programs)} with {', '.join(map(str, self.rows))} rows and 1 and "
            f"{THREADS} threads: {counted(count.kernels, 'kernel')} and "
            f"{counted(count.values, 'value')} agree with the reference rules",
        ]
        if self.ways:
            lines.append(f"the executor agrees: {', '.join(self.ways)}")
        if count.large:
            kernels = counted(count.large, "kernel")
            lines.append(f"not interpreted, as their work is too large: {kernels}")
        if count.near:
            lines.append(f"not judged, as numbers were near a kink: {counted(count.near, 'value')}")
        return "\n".join([*lines, *(f"not run: {text}" for text in self.left)])


def validate_plan(plan: Plan, thorough: bool = False, others: Others | None = None) -> Ran:
    """Run all programs of a plan; raise ValidationError for the first value that is wrong.

    With `thorough` machine code is also compiled again to compare it with the cache's, programs
    that differentiate an output by its cotangent run, and the frozen net runs on the backend of
    the plan; without, it runs on NumPy.  `others` are ways to run its net in another form, whose
    outputs are compared, too.
    """
    bench = Bench(plan, _of_whole_batches(plan))
    tried = {name: (program, bench) for name, program in bench.programs.items()}
    for name, program in cotangent_programs(plan) if thorough else ():
        tried[name] = program, Bench(plan, {program.name: program}, bench.count)
    draws = draws_for(plan.declared, batches_for(plan.batch))
    fed = any(plan.declared[name].type.batched for name in plan.input_names)
    ways = Ways(bench, draws[-1 if fed else 0], thorough, others or {})  # without rows it runs one
    draws = (*draws, far(plan.declared, draws[len(draws) // 2]))
    programs = [*plan.programs.items()]
    programs += [
        (name, program) for name, (program, _) in tried.items() if name not in plan.programs
    ]
    refuted = (_refuted(*each) for each in programs if plan.options.own)
    stale = (_stale_code(plan, *each, thorough) for each in programs)
    values = (_values(*each, draws) for each in tried.values())
    _check(chain(*refuted, *stale, chain.from_iterable(values), ways.trials()))
    if ways.quantized is not None:
        inner = Bench(ways.quantized, _of_whole_batches(ways.quantized), bench.count)
        for name, program in inner.programs.items():
            tried[f"{name} in int8"] = program, inner
            _check(_values(program, inner, draws))
    rows = tuple(draw.rows for draw in draws[:-1])
    return Ran(tuple(tried), rows, bench.count, tuple(ways.done), tuple(ways.left))


def _check(trials: Trials) -> None:
    """Raise ValidationError for the first fault."""
    fault = first_fault(trials)
    if fault is not None:
        raise explained_fault(fault)


def _of_whole_batches(plan: Plan) -> dict[str, Program]:
    """Return the programs of a plan, without the blocks in which inference may run a batch."""
    made, rows = plan.options.program, plan.batch
    return {
        name: program if program.capacity == rows else made(name, program.graph, rows=rows)
        for name, program in plan.programs.items()
    }


def _refuted(name: str, program: Program) -> Iterator[Fault]:
    """Yield what the proof says against a planner or a schedule of the user's own."""
    found = verify_program(certify_program(program)).counterexample
    if found is not None:
        yield Fault("own plan", name, str(found), program.capacity)


def _stale_code(plan: Plan, name: str, program: Program, emits: bool) -> Iterator[Fault]:
    why = backend(program.backend).wrong_code(program, emits)
    if why is not None:
        yield Fault("cached code", name, why, plan.batch)


def _values(program: Program, bench: Bench, draws: Sequence[Draw]) -> Trials:
    """Yield the fault of a program on one thread; then those of several, and of the update."""
    batched = any(node.type.batched for node in program.graph)
    for draw in draws if batched else (*draws[:2], draws[-1]):
        arrays, rows, name = _arrays(bench.plan, program, draw), draw.rows, program.name
        run = bench.run(program, arrays, rows)
        fault = run.judge()
        if fault is not None:
            yield fault
        one = run.results()
        several = bench.run(program, arrays, rows, THREADS).whole()
        yield Trial("threads", name, one, several, rows, threads=THREADS)
        for rule in bench.plan.rules if name == "apply" else ():
            yield _update(rule, program, rows, arrays, one)


def _update(rule: UpdateRule, program: Program, rows: int, arrays: Arrays, found: Arrays) -> Trial:
    """Return the next states, beside those by the optimizer's own rule."""
    graph, expected, bounds = program.graph, {}, {}
    for name, value, bound in rounded_states(rule, graph, arrays):
        expected[name], bounds[name] = value, bound
    nodes = {name: graph[value] for name, value in graph.updates.items()}
    says = f"update {{name!r}} {{wrong}} by the rule of {type(rule.optimizer).__name__}"
    results = expected, updated(found), rows, bounds
    return Trial("update", program.name, *results, says, nodes=nodes)


def _arrays(plan: Plan, program: Program, draw: Draw) -> Arrays:
    """Return the arrays of a program's sources; the first update of all has large rates."""
    arrays = arrays_of(plan, program.graph, draw)
    if program.name == "apply" and draw.rows == 1:
        for node in program.graph:
            if node.op.role.part.startswith("lr"):
                arrays[node.name] = np.full_like(arrays[node.name], RATE)
            elif node.name in ("updates", f"updates.{node.op.role.optimizer}"):
                arrays[node.name] = np.zeros_like(arrays[node.name])
    return arrays


def cotangent_programs(plan: Plan) -> Iterator[tuple[str, Program]]:
    """Yield the programs that differentiate an output by its cotangent, if one flows, by name."""
    for name in plan.declared.outputs if plan.wrt else ():
        try:
            program = plan.cotangent_program((name,))
        except GraphError:
            continue
        if program.gradients:
            yield f"cotangent of {name}", program
