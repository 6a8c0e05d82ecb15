"""The side panel's facts of each node: attributes, bytes, life, kernel, and the user's line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Layer, Source, attributes
from graphc.ir.plan import Instr, Plan, Program
from graphc.ir.tensor_type import count
from graphc.ir.text.graph import FROM_TYPE
from graphc.ir.text.program import epochs
from graphc.ir.text.values import value_text
from graphc.ops.source import Constant
from graphc.view.profile.executor_profile import Profile
from graphc.view.render.derivation import Rows, derivation
from graphc.view.render.heat import time_lines
from graphc.view.render.view import NodeFacts
from graphc.view.render.words import shown

LONGEST = 200
"""The length at which an attribute's text is cut: constants may hold thousands of numbers."""


@dataclass(frozen=True)
class Facts:
    """Everything known about the nodes of graphs; an earlier graph's node takes precedence."""

    graphs: tuple[Graph, ...]
    plan: Plan | None = None
    profile: Profile | None = None

    @cached_property
    def homes(self) -> Mapping[str, Graph]:
        """Each node's name with the graph that its facts come from."""
        found: dict[str, Graph] = {}
        for graph in self.graphs:
            for name in graph.nodes:
                found.setdefault(name, graph)
        return found

    def of(self, name: str) -> NodeFacts:
        """Return the facts of one node."""
        graph = self.homes[name]
        node = graph[name]
        rows = tuple((shown(key), shown(value)) for key, value in self._rows(graph, node))
        line = "\n".join(dict.fromkeys(_line(node)))
        op = f"layer {node.op.name}" if isinstance(node.op, Layer) else node.op.name
        return NodeFacts(shown(name), shown(op), str(node.type), line, rows)

    def derived(self, names: Iterable[str]) -> Mapping[str, Rows]:
        """Return the rule that made each backward node of `names`, its formula and its operands."""
        return derivation(self.plan or self.graphs[0], names)

    def _rows(self, graph: Graph, node: Node) -> Iterator[tuple[str, str]]:
        name = node.name
        yield from self._roots.get((id(graph), node.name), ())
        yield from _attributes(node)
        yield "bytes", self._bytes(node)
        if self.profile is not None and name in self.profile.by_node:
            timed = self.profile.by_node[name]
            for line in time_lines(timed, self.profile):
                yield "time", line
        for program in self._programs:
            life = self._lives[program.name].get(node.name)
            if life is not None and node.name in program.graph:
                yield f"lives in {program.name}", life
            kernel = self._kernels[program.name].get(node.name)
            if kernel is not None:
                yield f"computed in {program.name}", kernel
            if kernel is None and life is not None and isinstance(node.op, Source):
                return  # a source is the same in the other programs

    def _bytes(self, node: Node) -> str:
        formula = node.type.bytes_text()
        if self.plan is None or isinstance(count(node.type.shape), int):
            return formula
        return f"{formula} ({node.type.nbytes(self.plan.batch):,} at N = {self.plan.batch})"

    @cached_property
    def _roots(self) -> Mapping[tuple[int, str], list[tuple[str, str]]]:
        """The purpose of each node that is an output, a gradient or an update, for each graph."""
        found: dict[tuple[int, str], list[tuple[str, str]]] = {}
        for graph in self.graphs:
            for name, word, public in _uses(graph):
                found.setdefault((id(graph), name), []).append((word, public))
        return found

    @cached_property
    def _programs(self) -> tuple[Program, ...]:
        """The program that trains and the one that infers."""
        programs = {} if self.plan is None else self.plan.programs
        trains = next((n for n in ("step", "accumulate", "grad") if n in programs), "infer")
        return tuple(
            programs[name] for name in dict.fromkeys((trains, "infer")) if name in programs
        )

    @cached_property
    def _lives(self) -> Mapping[str, Mapping[str, str]]:
        return {program.name: dict(_lives(program)) for program in self._programs}

    @cached_property
    def _kernels(self) -> Mapping[str, Mapping[str, str]]:
        return {program.name: dict(_kernels(program)) for program in self._programs}


def _line(node: Node) -> Iterator[str]:
    """Yield the lines that declared the node, each with its text."""
    for loc in node.locs[:4]:
        yield shown(str(loc))
        if loc.text:
            yield shown(f"    {loc.text}")


def _uses(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for public, value in graph.outputs.items():
        yield value, "loss" if public in graph.losses else "output", public
    for public, value in graph.gradients.items():
        yield value, "gradient of", public
    for state, value in graph.updates.items():
        yield value, "next value of", state


def _attributes(node: Node) -> Iterator[tuple[str, str]]:
    for key, value in attributes(node.op).items():
        if key in FROM_TYPE and value == getattr(node.type, key):
            continue
        if isinstance(node.op, Constant) and key == "data":
            numbers = node.op.array().ravel()[:8].tolist()
            text = ", ".join(f"{number:.6g}" for number in numbers)
        else:
            text = _value(value)
        yield key, text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _value(value: object) -> str:
    try:
        return value_text(value)
    except GraphError:  # a user's op may hold anything
        return f"a {type(value).__name__}"


def _lives(program: Program) -> Iterator[tuple[str, str]]:
    for buffer in program.buffers.values():
        if buffer.space != "arena":
            yield (
                buffer.name,
                {"feed": "a feed", "state": "kept between runs"}.get(
                    buffer.space, f"a {buffer.space}"
                ),
            )
        elif buffer.first == buffer.last:
            yield buffer.name, f"in epoch {buffer.first}, at byte {buffer.offset:,}"
        else:
            ends = f"from epoch {buffer.first} to {buffer.last}"
            yield buffer.name, f"{ends}, at byte {buffer.offset:,}"


def _kernels(program: Program) -> Iterator[tuple[str, str]]:
    for index, (instr, epoch) in enumerate(zip(program.instrs, epochs(program), strict=True)):
        if instr.kind == "barrier":
            continue
        for name in instr.nodes or (instr.node,):
            yield name, f"instruction {index}, epoch {epoch}: {_kernel(instr, name)}"


def _kernel(instr: Instr, name: str) -> str:
    others = [other for other in instr.nodes if other != name]
    kind = "fused kernel" if instr.kind == "kernel" else f"{instr.kind} {instr.kernel}"
    return f"{kind}, with {_few(others)}" if others else kind


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def everything(plan: Plan, first: Iterable[Graph], profile: Profile | None) -> Facts:
    """Return the facts of every graph that a plan passed through, the last ones first."""
    last = (records[-1].graph for records in plan.graphs.values() if records)
    others = (r.graph for records in plan.graphs.values() for r in reversed(records))
    return Facts((*dict.fromkeys([*first, *last, *others]), plan.declared), plan, profile)
