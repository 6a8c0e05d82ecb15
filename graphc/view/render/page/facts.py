"""The facts of nodes that a page shows in its side panel, and the table of the layers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from graphc.base.errors import GraphError, counted
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph, Node
from graphc.ir.op import attributes
from graphc.ir.step_graph import StepGraph
from graphc.ir.tensor_type import count, shape_text
from graphc.ir.text.graph import FROM_TYPE, empty_values, value_text
from graphc.kernels.program import Instr, Program
from graphc.ops.source import Constant
from graphc.view.render.derivation import Rows, derivation
from graphc.view.render.draw import Picture
from graphc.view.render.style import escape, listed, printable
from graphc.view.render.time_view import time_lines

if TYPE_CHECKING:
    from graphc.view.profile import Profile

MOST = 5000
"""The most nodes that can be searched for; above it, only the drawn ones and the first others."""
_INERT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x7F: "\\u007f"}
MOST_ROWS = 1000
"""The most layers in the table; of more layers it has the first and the last."""
LONGEST = 200
"""The length at which an attribute's text is cut: constants may have thousands of numbers."""


@dataclass(frozen=True)
class Facts:
    """Everything known about the nodes of graphs; an earlier graph's node takes precedence."""

    graphs: tuple[Graph, ...]
    plan: Plan | None = None
    profile: Profile | None = None

    @cached_property
    def graph_of(self) -> Mapping[str, Graph]:
        """Each node's name with the graph that its facts come from."""
        found: dict[str, Graph] = {}
        for graph in self.graphs:
            for name in graph.nodes:
                found.setdefault(name, graph)
        return found

    def rows(self, name: str) -> list[tuple[str, str]]:
        """Return the side panel's lines about a node in order, each with its name."""
        graph = self.graph_of[name]
        return [(printable(key), printable(value)) for key, value in self._rows(graph, graph[name])]

    @classmethod
    def of_plan(cls, plan: Plan, first: Iterable[Graph], profile: Profile | None) -> Facts:
        """Return the facts of every graph that a plan passed through, the last ones first."""
        last = (records[-1].graph for records in plan.graphs.values() if records)
        others = (r.graph for records in plan.graphs.values() for r in reversed(records))
        return cls((*dict.fromkeys([*first, *last, *others]), plan.declared), plan, profile)

    def derived(self, names: Iterable[str]) -> Mapping[str, Rows]:
        """Return the rule that made each backward node of `names`, its formula and its operands."""
        return derivation(self.plan or self.graphs[0], names)

    def _rows(self, graph: Graph, node: Node) -> Iterator[tuple[str, str]]:
        name = node.name
        yield from self._purposes.get((id(graph), node.name), ())
        yield from _attributes(node)
        yield "bytes", self._bytes(node)
        if self.profile is not None and name in self.profile.by_node:
            timed = self.profile.by_node[name]
            for line in time_lines(timed, self.profile):
                yield "time", line
        for program in self._programs:
            life = self._live_ranges[program.name].get(node.name)
            if life is not None and node.name in program.graph:
                yield f"lives in {program.name}", life
            kernel = self._kernels[program.name].get(node.name)
            if kernel is not None:
                yield f"computed in {program.name}", kernel
            if kernel is None and life is not None and node.op.is_source:
                return  # a source is the same in the other programs

    def _bytes(self, node: Node) -> str:
        formula = node.type.bytes_text()
        if self.plan is None or isinstance(count(node.type.shape), int):
            return formula
        return f"{formula} ({node.type.nbytes(self.plan.batch):,} at N = {self.plan.batch})"

    @cached_property
    def _purposes(self) -> Mapping[tuple[int, str], list[tuple[str, str]]]:
        """The purpose of each node that is an output, a gradient or an update, for each graph."""
        found: dict[tuple[int, str], list[tuple[str, str]]] = {}
        for graph in self.graphs:
            for name, word, public in _uses(graph):
                found.setdefault((id(graph), name), []).append((word, public))
        return found

    @cached_property
    def _programs(self) -> tuple[Program, ...]:
        """The program of a training step, if the plan trains, and that of inference."""
        programs = {} if self.plan is None else self.plan.programs
        trains = next((n for n in ("step", "accumulate", "grad") if n in programs), "infer")
        return tuple(programs[n] for n in dict.fromkeys((trains, "infer")) if n in programs)

    @cached_property
    def _live_ranges(self) -> Mapping[str, Mapping[str, str]]:
        return {program.name: dict(_live_ranges(program)) for program in self._programs}

    @cached_property
    def _kernels(self) -> Mapping[str, Mapping[str, str]]:
        return {program.name: dict(_kernels(program)) for program in self._programs}


def _line(node: Node) -> Iterator[str]:
    """Yield the lines that declared the node, each with its text."""
    for loc in node.locs[:4]:
        yield printable(str(loc))
        if loc.text:
            yield printable(f"    {loc.text}")


def _uses(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for public, value in graph.outputs.items():
        yield value, "loss" if public in graph.losses else "output", public
    for public, value in graph.gradients.items():
        yield value, "gradient of", public
    for state, value in graph.updates.items():
        yield value, "next value of", state


def _attributes(node: Node) -> Iterator[tuple[str, str]]:
    unset = empty_values(type(node.op))
    for key, value in attributes(node.op).items():
        in_type = key in FROM_TYPE and value == getattr(node.type, key)
        if in_type or (key in unset and value == unset[key]):
            continue
        if isinstance(node.op, Constant) and key == "data":
            numbers = node.op.array().ravel()[:8].tolist()
            text = ", ".join(f"{number:.6g}" for number in numbers)
        else:
            text = _value(value)
        yield key, text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _value(value: object) -> str:
    if isinstance(value, StepGraph):
        return counted(len(value.nodes), "node")
    try:
        return value_text(value)
    except GraphError:  # a user's op may have attributes of any kind
        return f"a {type(value).__name__}"


def _live_ranges(program: Program) -> Iterator[tuple[str, str]]:
    for buffer in program.buffers.values():
        if buffer.space != "arena":
            kept = buffer.space == "state" or buffer.key in program.kept
            yield buffer.name, "kept between runs" if kept else f"a {buffer.space}"
        elif buffer.first == buffer.last:
            yield buffer.name, f"in epoch {buffer.first}, at byte {buffer.offset:,}"
        else:
            ends = f"from epoch {buffer.first} to {buffer.last}"
            yield buffer.name, f"{ends}, at byte {buffer.offset:,}"


def _kernels(program: Program) -> Iterator[tuple[str, str]]:
    for index, (instr, epoch) in enumerate(zip(program.instrs, program.epochs, strict=True)):
        if instr.kind == "barrier":
            continue
        for name in instr.nodes or (instr.node,):
            yield name, f"instruction {index}, epoch {epoch}: {_kernel(instr, name)}"


def _kernel(instr: Instr, name: str) -> str:
    others = [other for other in instr.nodes if other != name]
    kind = "fused kernel" if instr.kind == "kernel" else f"{instr.kind} {instr.kernel}"
    return f"{kind}, with {listed(others, 6)}" if others else kind


def facts_json(facts: Facts, pictures: Sequence[Picture]) -> str:
    """Return all nodes, drawn ones first; each has the numbers of its operands and its users.

    A node is [name, op, type, line, rows, derivation, operands, users, card]: the last is the
    number of the node whose lines on the card of the last picture represent it, or -1 if its own
    are drawn.
    """
    cards = dict(_cards(pictures[-1]))
    drawn = dict.fromkeys(name for picture in reversed(pictures) for name in _drawn(picture))
    names = [name for name in dict.fromkeys([*drawn, *facts.graph_of]) if name in facts.graph_of]
    hidden = len(names) - max(MOST, len(drawn))
    names = names[: len(names) - max(hidden, 0)]
    numbers = {name: number for number, name in enumerate(names)}
    derived = facts.derived(names)
    nodes = (_node(facts, name, derived.get(name, ()), numbers, cards) for name in names)
    lines = ",\n".join(map(_json, nodes))
    # A line for each node, so that a renamed one changes few lines of the file.
    return f'{{"hidden":{max(hidden, 0)},"nodes":[\n{lines}\n]}}'


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_INERT)


def _drawn(picture: Picture) -> Iterator[str]:
    for card in picture.cards:
        if card.fold is not None:
            yield card.nodes[0].name
            continue
        yield from (node.name for node in card.nodes)
        yield from (row.name for row in card.rows)


def _cards(picture: Picture) -> Iterator[tuple[str, str]]:
    """Yield each node that is on a card, with the node whose lines represent it."""
    for card in picture.cards:
        first, last = card.nodes[0].name, card.nodes[-1].name
        for node in card.nodes:
            yield node.name, first if card.fold else last if card.summed else node.name


def _node(
    facts: Facts, name: str, derived: Rows, numbers: Mapping[str, int], cards: Mapping[str, str]
) -> list[object]:
    graph = facts.graph_of[name]
    node = graph[name]
    card = cards.get(name, name)
    return [
        printable(name),
        printable(f"layer {node.op.name}" if node.op.is_layer else node.op.name),
        str(node.type),
        "\n".join(dict.fromkeys(_line(node))),
        facts.rows(name),
        derived,
        _numbers(node.inputs, numbers),
        _numbers(graph.users[name], numbers),
        -1 if card == name else numbers[card],
    ]


def _numbers(names: Iterable[str], numbers: Mapping[str, int]) -> list[int | str]:
    """Return each node once, by its number, or by its name if the page has no facts of it."""
    return [numbers.get(name, printable(name)) for name in dict.fromkeys(names)]


def layer_table(declared: Graph, picture: Picture) -> str:
    """Return the table, captioned as the picture is."""
    caption = escape(", ".join(["Layers as declared", *picture.caption]))
    heads = "".join(
        f'<th scope="col">{word}</th>'
        for word in ("name", "op", "shape", "parameters", "count", "declared at")
    )
    body = "\n".join(_body(declared))
    return (
        f"<table>\n<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def _body(declared: Graph) -> Iterator[str]:
    nodes = [n for n in declared if n.op.is_input or not n.op.is_source]
    half = MOST_ROWS // 2
    hidden = len(nodes) - MOST_ROWS
    counted: set[str] = set()
    for index, node in enumerate(nodes):
        cells = list(_cells(node, declared, counted))
        if hidden <= 0 or index < half or index >= len(nodes) - half:
            name = escape(node.name)
            yield f'<tr class="op" data-node="{name}">{"".join(cells)}</tr>'
        elif index == half:
            yield f'<tr><td colspan="6">{hidden:,} layers are left out here</td></tr>'


def _cells(node: Node, declared: Graph, counted: set[str]) -> Iterator[str]:
    """Yield the cells of a layer; a shared parameter is counted at its first user."""
    read = [declared[name] for name in dict.fromkeys(node.inputs)]
    parameters = [source for source in read if source.op.is_parameter]
    total = sum(p.type.size(1) for p in parameters if p.name not in counted)
    counted.update(p.name for p in parameters)
    yield f'<th scope="row">{escape(node.name)}</th>'
    yield f"<td>{escape(node.op.name)}</td><td>{node.type}</td>"
    texts = [escape(f"{p.name} {shape_text(p.type.shape)}") for p in parameters]
    yield f"<td>{'<br>'.join(texts)}</td>"
    yield f'<td class="count">{f"{total:,}" if total else ""}</td>'
    yield f"<td>{escape(str(node.loc or ''))}</td>"
