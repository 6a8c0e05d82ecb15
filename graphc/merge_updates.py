"""Run the updates of small neighbouring parameters as one instruction.

    velocity(w1), velocity(b1), velocity(w2)   ->   velocity(w1 | b1 | w2)

A kernel call costs more than the arithmetic of a small parameter.  Parameters that lie side by
side in the state, without padding between, are updated by one call over all of them, once
their gradients are placed side by side too.  The price is that these gradients live until
the last of them is there, so groups stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from graphc.graph import Graph
from graphc.memory import ALIGNMENT
from graphc.op import Op, Source
from graphc.ops.source import Parameter
from graphc.plan import Instr

GROUP_BYTES = 64 * 1024
"""The most bytes of gradients that are kept waiting for each other."""

Updates = dict[str, list[int]]
"""For each parameter the instructions that write it and its optimizer's slots."""


def merge_updates(
    graph: Graph,
    instrs: Sequence[Instr],
    in_place: Mapping[str, str],
    packable: Callable[[str], bool],
) -> tuple[list[Instr], list[tuple[str, ...]]]:
    """The instructions with neighbouring updates merged, and the buffers to place in a row.

    `in_place` maps an update node to the state it writes; `packable` tells of a buffer
    whether it may be placed where we want it.
    """
    updates = _updates(graph, instrs, in_place)
    merged: dict[int, Instr] = {}
    dropped: set[int] = set()
    packs: list[tuple[str, ...]] = []
    for group in _groups(graph, instrs, updates, in_place, packable):
        rows = [[instrs[i] for i in updates[name]] for name in group]
        for places in zip(*(updates[name] for name in group), strict=True):
            # Where the last of them stood: what overwrites a state that they read comes later.
            merged[max(places)] = _merge([instrs[i] for i in places])
            dropped.update(places)
        packs.extend(_packs(rows, in_place, graph))
    if len({name for pack in packs for name in pack}) < sum(map(len, packs)):
        return list(instrs), []  # one gradient serves two parameters: it lies in one place only
    kept = (merged.get(i, None if i in dropped else instr) for i, instr in enumerate(instrs))
    return [instr for instr in kept if instr is not None], packs


def _updates(graph: Graph, instrs: Sequence[Instr], in_place: Mapping[str, str]) -> Updates:
    found: Updates = {name: [] for name in graph.updates if isinstance(graph[name].op, Parameter)}
    for i, instr in enumerate(instrs):
        state = in_place.get(instr.outs[0])
        if state is None or instr.kind != "call":
            continue
        owner = state if state in found else state.rpartition(".")[0]
        if owner in found and graph[owner].type == graph[state].type:
            found[owner].append(i)
    written = set(in_place.values())
    return {name: rows for name, rows in found.items() if rows and name in written}


def _groups(
    graph: Graph,
    instrs: Sequence[Instr],
    updates: Updates,
    in_place: Mapping[str, str],
    packable: Callable[[str], bool],
) -> Iterable[list[str]]:
    """Runs of parameters next to each other whose updates are alike."""
    parameters = [node.name for node in graph if isinstance(node.op, Parameter)]

    def alike(name: str) -> tuple[tuple[str, Op | None], ...] | None:
        rows = [instrs[i] for i in updates.get(name, ())]
        free = {
            operand for row in rows for operand in row.ins if _is_gradient(graph, operand, in_place)
        }
        if not rows or not all(packable(operand) for operand in free):
            return None
        return tuple((row.kernel, row.op) for row in rows)

    for kind, run in groupby(parameters, alike):
        if kind is not None:
            yield from (group for group in _split(graph, list(run)) if len(group) > 1)


def _split(graph: Graph, names: list[str]) -> Iterable[list[str]]:
    group: list[str] = []
    total = 0
    for name in names:
        nbytes = graph[name].type.nbytes(1)
        gap = bool(group) and graph[group[-1]].type.nbytes(1) % ALIGNMENT != 0
        other = bool(group) and graph[group[-1]].type.dtype != graph[name].type.dtype
        if group and (gap or other or total + nbytes > GROUP_BYTES):
            yield group
            group, total = [], 0
        group.append(name)
        total += nbytes
    if group:
        yield group


def _is_gradient(graph: Graph, operand: str, in_place: Mapping[str, str]) -> bool:
    """Whether an operand is neither a state, nor written to one, nor a scalar."""
    node = graph.nodes.get(operand)
    if node is None or operand in in_place or node.type.rank == 0:
        return False
    return not isinstance(node.op, Source)


def _packs(
    rows: Sequence[Sequence[Instr]], in_place: Mapping[str, str], graph: Graph
) -> list[tuple[str, ...]]:
    found: dict[tuple[str, ...], None] = {}
    for column in zip(*rows, strict=True):
        for operands in zip(*(instr.ins for instr in column), strict=True):
            if all(_is_gradient(graph, operand, in_place) for operand in operands):
                found[operands] = None
        found.update(dict.fromkeys(zip(*(instr.scratch for instr in column), strict=True)))
    return list(found)


def _merge(column: Sequence[Instr]) -> Instr:
    """One instruction for all: operand by operand, the members in a row."""
    first = column[0]
    ins = _in_rows(instr.ins for instr in column)
    scratch = _in_rows(instr.scratch for instr in column)
    outs = tuple(instr.outs[0] for instr in column)
    return first._replace(ins=ins, outs=outs, scratch=scratch, members=len(column))


def _in_rows(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for row in zip(*names, strict=True) for name in row)
