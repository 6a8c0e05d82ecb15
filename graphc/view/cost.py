"""The totals of a graph or a program: nodes, parameters, bytes and operations, and their change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graphc.base.errors import counted
from graphc.compiler.cost import program_cost
from graphc.ir.byte_count import Bytes, bytes_of
from graphc.ir.difference import Difference
from graphc.ir.graph import Graph, Node
from graphc.ir.step_graph import flops, nested
from graphc.kernels.program import Program


def value_bytes(nodes: Iterable[Node]) -> Bytes:
    """Return the sum of the bytes of the values of nodes, without sharing memory."""
    return bytes_of(node.type for node in nodes)


@dataclass(frozen=True, slots=True)
class Totals:
    """The number of nodes and parameters, and the bytes of computed values.

    `flops` are those of a run of `batch` rows: of a program, or else of the nodes, if none is a
    layer.  `instructions` and the bytes of the `arena` are those of a program.  A field is None if
    it is not known.
    """

    nodes: int
    parameters: int
    values: Bytes
    batch: int
    flops: int | None = None
    instructions: int | None = None
    arena: int | None = None


def totals(
    graph: Graph,
    batch: int,
    program: Program | None = None,
    *,
    only: Iterable[str] | None = None,
) -> Totals:
    """Return the totals of a graph, or of the nodes `only`, and of the program compiled from it."""
    nodes = list(graph) if only is None else [graph[name] for name in only]
    ops = [node for node in nodes if not node.op.is_source]
    parameters = sum(node.type.size(1) for node in nodes if node.op.is_parameter)
    return Totals(
        len(nodes),
        parameters,
        value_bytes(ops),
        batch,
        _all_flops(graph, ops, batch) if program is None else program_cost(program, batch).flops,
        None if program is None else sum(i.kind != "barrier" for i in program.instrs),
        None if program is None else program.arena.nbytes,
    )


def totals_after(before: Totals, made: Difference) -> Totals:
    """Return the totals after a change from those before it, counting only what changed."""
    changed = [node for pair in made.changes for node in (pair.before, pair.after) if node]
    if before.flops is None or any(node.op.is_joint for node in changed):
        return totals(made.after, before.batch)
    old = totals(made.before, before.batch, only=_names(pair.before for pair in made.changes))
    new = totals(made.after, before.batch, only=_names(pair.after for pair in made.changes))
    assert old.flops is not None
    return Totals(
        len(made.after),
        before.parameters - old.parameters + new.parameters,
        before.values - old.values + new.values,
        before.batch,
        None if new.flops is None else before.flops - old.flops + new.flops,
    )


def _names(nodes: Iterable[Node | None]) -> list[str]:
    return [node.name for node in nodes if node is not None]


def _all_flops(graph: Graph, ops: Sequence[Node], batch: int) -> int | None:
    if any(node.op.is_layer for node in nested(ops)):
        return None
    return sum(flops(ops, {node.name: node.type for node in graph}, batch))


def changed_totals(before: Totals, after: Totals) -> Iterator[str]:
    """Yield a line for each changed total: `bytes of values 4,096*N -> 2,048*N (-2,048*N)`."""
    yield from _line("nodes", before.nodes, after.nodes)
    yield from _line("parameters", before.parameters, after.parameters)
    old, new = before.values, after.values
    if old != new:
        yield f"bytes of values {old} -> {new} ({' '.join((new - old).terms('+,'))})"
    rows = f"FLOPs of {counted(after.batch, 'row')}"
    yield from _line(rows, before.flops, after.flops)
    yield from _line("instructions", before.instructions, after.instructions)
    yield from _line("bytes of the arena", before.arena, after.arena)


def _line(what: str, before: int | None, after: int | None) -> Iterator[str]:
    if before is not None and after is not None and before != after:
        yield f"{what} {before:,} -> {after:,} ({after - before:+,})"
