"""Horizontal fusion of the updates of small neighbouring parameters into one instruction.

    velocity(w1), velocity(b1), velocity(w2)   ->   velocity(w1 | b1 | w2)

A kernel call costs more than the arithmetic of a small parameter.  Parameters that lie side by
side in the state, without padding between, are updated by one call over all of them, once
their gradients are placed side by side too.  The price is that these gradients live until
the last of them is computed, so groups stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import groupby

from graphc.compiler.memory import ALIGNMENT
from graphc.ir.graph import Graph
from graphc.ir.op import Op, Source
from graphc.ir.plan import Instr
from graphc.ops.source import Parameter

GROUP_BYTES = 64 * 1024
"""The most bytes of gradients that are kept waiting for each other."""

Updates = dict[str, list[int]]
"""From each parameter to the instructions that write it and its optimizer's slots."""


def merge_updates(
    graph: Graph,
    instrs: Sequence[Instr],
    in_place: Mapping[str, str],
    packable: Callable[[str], bool],
) -> tuple[list[Instr], list[tuple[str, ...]]]:
    """Return the instructions with neighbouring updates fused, and the buffers to place in a row.

    `in_place` maps an update node to the state it writes; `packable` returns whether a buffer
    may be placed freely.
    """
    updates = _updates(graph, instrs, in_place)
    order = _Order(instrs, in_place)
    merged: dict[int, list[Instr]] = {}
    dropped: set[int] = set()
    packs: list[tuple[str, ...]] = []
    for group in _groups(graph, instrs, updates, in_place, packable):
        columns = list(zip(*(updates[name] for name in group), strict=True))
        moved = {i: max(column) for column in columns for i in column}
        if not all(order.allows(i, to, moved) for i, to in moved.items()):
            continue
        for column in columns:  # at the last of its members, since a later write waits for that
            merged.setdefault(max(column), []).append(_merge([instrs[i] for i in column]))
        dropped.update(moved)
        rows = [[instrs[i] for i in updates[name]] for name in group]
        packs.extend(_packs(rows, in_place, graph))
    if len({name for pack in packs for name in pack}) < sum(map(len, packs)):
        return list(instrs), []  # two parameters share a gradient, which has one place only
    result: list[Instr] = []
    for i, instr in enumerate(instrs):
        result.extend(merged.get(i, ()) if i in dropped else (instr,))
    return result, packs


class _Order:
    """The instruction that writes each state, and those that read each new value."""

    def __init__(self, instrs: Sequence[Instr], in_place: Mapping[str, str]) -> None:
        self.instrs = instrs
        self.writer: dict[str, int] = {}
        self.readers: dict[str, list[int]] = {}
        for i, instr in enumerate(instrs):
            for out in instr.outs:
                if out in in_place:
                    self.writer[in_place[out]] = i
            for operand in instr.ins:
                if operand in in_place:
                    self.readers.setdefault(operand, []).append(i)

    def allows(self, i: int, to: int, group: Container[int]) -> bool:
        """Return whether an instruction may move past all between that are not of its group.

        None of them may write a state that it reads, or read a value that it writes.
        """
        instr = self.instrs[i]
        others = [self.writer[name] for name in instr.ins if name in self.writer]
        for out in instr.outs:
            others += self.readers.get(out, ())
        return not any(i < k < to and k not in group for k in others)


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
    """Yield runs of parameters next to each other that have the same kinds of updates."""
    parameters = [node.name for node in graph if isinstance(node.op, Parameter)]

    def alike(name: str) -> tuple[tuple[str, Op | None, tuple[str, ...]], ...] | None:
        rows = [instrs[i] for i in updates.get(name, ())]
        free = {
            operand for row in rows for operand in row.ins if _is_gradient(graph, operand, in_place)
        }
        if not rows or not all(packable(operand) for operand in free):
            return None
        return tuple((row.kernel, row.op, _scalars(graph, row)) for row in rows)

    for kind, run in groupby(parameters, alike):
        if kind is not None:
            yield from (group for group in _split(graph, list(run)) if len(group) > 1)


def _scalars(graph: Graph, row: Instr) -> tuple[str, ...]:
    """Return the scalars that an update reads, such as its rate; one call has one of each."""
    return tuple(name for name in row.ins if name in graph.nodes and not graph[name].type.rank)


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
    """Return whether an operand is neither a state, nor written to one, nor a scalar."""
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
    """Return one instruction for all members, which are in a row for each operand."""
    first = column[0]
    ins = _in_rows(instr.ins for instr in column)
    scratch = _in_rows(instr.scratch for instr in column)
    outs = tuple(instr.outs[0] for instr in column)
    return first._replace(ins=ins, outs=outs, scratch=scratch, members=len(column))


def _in_rows(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for row in zip(*names, strict=True) for name in row)
