"""Take products out of loops that need not be there: one product then serves all steps.

    y = scan: h = tanh(x @ w + h @ u)     ->     a = scan: x @ w              (nothing is carried)
              y = h @ v                          h = scan: h = tanh(a + h @ u)
                                                 y = scan: h @ v              (nothing is carried)

What does not read a carried value goes before the loop, and what no carried value needs goes after
it.  So do sums over the steps: `d_u`, the sum of `h.T @ d_h`, is one product over all rows of all
steps.  A loop that carries nothing runs its steps at once, as one batch of steps * N rows, if its
ops keep the rows apart or add them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from graphc.ir.graph import Graph, Node
from graphc.ir.rows import keeps_rows, leads
from graphc.ir.step_graph import StepGraph, stacked
from graphc.ir.tensor_type import Batch
from graphc.ops.loops.op import Scan, loops
from graphc.ops.shape import Reshape, Transpose
from graphc.ops.source import Input
from graphc.ops.sums import Sum
from passes.contract import graph_pass

Rows = Literal["rows", "sums"]
"""The kinds of values if all steps run at once: a value of each row, or a sum over rows."""


@graph_pass(preserves="reassociated")
def split_scans(graph: Graph) -> Graph:
    """Return the graph with products before and after its loops, where they need not be inside."""
    changed: dict[str, list[Node]] = {}
    for nodes in loops(graph).values():
        split = _Split(graph, nodes)
        if split.before or split.after:
            changed.update(split.nodes())
    if not changed:
        return graph
    return graph.with_nodes(made for node in graph for made in changed.get(node.name, [node]))


def splits(graph: Graph, nodes: Sequence[Node]) -> bool:
    """Return whether a loop has products that go before or after it, or sums."""
    ops = [node.op for node in nodes if isinstance(node.op, Scan)]
    split = _Split(graph, nodes)
    sums = not ops[0].step.carried and any(op.kind == "sum" for op in ops)
    return bool(sums or split.before or split.after)


def runs_at_once(step: StepGraph, ops: Sequence[Scan]) -> bool:
    """Return whether all steps can run as one, with the rows of all steps."""
    if step.carried or step.number or not step.sequences:
        return False
    known = rows_of(step)
    wanted = {"stacked": "rows", "sum": "sums"}
    return all(known.get(op.result) == wanted[op.kind] for op in ops) and not any(
        node.op.is_random or (not node.op.is_source and node.name not in known)
        for node in step.nodes
    )


def rows_of(step: StepGraph, inside: set[str] | None = None) -> dict[str, Rows]:
    """Return what each value is if all steps run at once; others have no meaning then.

    With `inside`, other values of the rows count as computed inside the loop, and are added to it.
    """
    known: dict[str, Rows] = {}
    fixed: set[str] = set()
    for node in step.nodes:
        ins = [step.types[name] for name in node.inputs]
        if node.op.is_source:
            given = node.name in step.sequences or node.type.batched
            if not given:
                fixed.add(node.name)
            elif leads(node.type) and node.name in step.sequences:
                known[node.name] = "rows"
            continue
        if fixed.issuperset(node.inputs):
            if not node.type.batched:
                fixed.add(node.name)
            continue
        kinds = {known.get(name, "fixed" if name in fixed else "") for name in node.inputs}
        if kinds <= {"rows", "fixed"} and keeps_rows(node.op, ins, node.type):
            known[node.name] = "rows"
        elif (kinds == {"rows"} and _adds_rows(node, step)) or (
            kinds == {"sums"} and isinstance(node.op, (Reshape, Transpose))
        ):
            known[node.name] = "sums"
        elif inside is not None and leads(node.type):
            known[node.name] = "rows"
            inside.add(node.name)
    return known


def _adds_rows(node: Node, step: StepGraph) -> bool:
    """Return whether a node adds up all rows: of two batches it makes the sum of both results."""
    ins = [step.types[name] for name in node.inputs]
    if node.type.batched or not all(map(leads, ins)):
        return False
    product = node.op.product(ins)
    if product is not None:
        return product.trans_a and isinstance(product.inner, Batch)
    return isinstance(node.op, Sum) and 0 in node.op.axes


class _Split:
    """The parts of one loop: the nodes before it, and those after it."""

    def __init__(self, graph: Graph, nodes: Sequence[Node]) -> None:
        self.outer, self.results = graph, nodes
        self.ops = [node.op for node in nodes if isinstance(node.op, Scan)]
        self.step = self.ops[0].step
        self.graph = self.step.graph([op.result for op in self.ops])
        self.rows = rows_of(self.step)
        self.before = self._before()
        self.inside: set[str] = set()
        kept = replace(self.step, sequences=(*self.step.sequences, *self._fed()))
        self.rows = rows_of(kept, self.inside)
        self.after = self._after()
        self.made: list[Node] = []

    def _fed(self) -> list[str]:
        return [one.input for one in self.step.carried]

    def _movable(self, node: Node) -> bool:
        return (
            node.name in self.rows
            and not node.op.is_source
            and not node.op.is_random
            and not (self.step.number and self.step.number in node.inputs)
        )

    def _is_product(self, name: str) -> bool:
        node = self.graph[name]
        return node.op.product([self.graph[x].type for x in node.inputs]) is not None

    def _before(self) -> set[str]:
        """Return the nodes that read no carried value, of products and what belongs to them."""
        if not self.step.carried:
            return set()
        late = self.graph.downstream(self._fed())
        found: set[str] = set()
        for node in self.graph:
            inner = (name for name in node.inputs if not self.graph[name].op.is_source)
            known = self.rows.get(node.name) == "rows" and self._movable(node)
            if known and node.name not in late and found.issuperset(inner):
                found.add(node.name)
        products = [name for name in found if self._is_product(name)]
        ends = found & self.graph.downstream(products)
        return found & self.graph.upstream(ends)

    def _after(self) -> set[str]:
        """Return the nodes that only results need, from products and sums on."""
        if not self.step.carried:
            return set()
        early = self.graph.upstream(self.step.nexts) | self.before | self.inside
        kinds: dict[str, set[str]] = {}
        for op in self.ops:
            kinds.setdefault(op.result, set()).add(op.kind)
        found: set[str] = set()
        for node in reversed(list(self.graph)):
            wanted = {"rows": "stacked", "sums": "sum"}.get(self.rows.get(node.name, ""), "")
            alike = kinds.get(node.name, set()) <= {wanted}
            users = self.graph.users[node.name]
            if alike and self._movable(node) and node.name not in early and found.issuperset(users):
                found.add(node.name)
        starts = [name for name in found if self._is_product(name) or self.rows[name] == "sums"]
        return found & self.graph.downstream(starts)

    # ------------------------------------------------------------------ the new loops

    def nodes(self) -> dict[str, list[Node]]:
        """Return the nodes in the place of each result; the first also has those of the parts."""
        first = self.results[0]
        operands = dict(zip(self.step.inputs, first.inputs, strict=True))
        inside = [n for n in self.graph if n.name not in self.before | self.after]
        early = [n for n in self.graph if n.name in self.before]
        read = {name for node in inside for name in node.inputs} | set(self.step.nexts)
        late = dict.fromkeys(x for n in self.graph if n.name in self.after for x in n.inputs)
        asked = {op.result for op in self.ops}
        ahead = self._part(early, operands, {})
        given = {
            n.name: self._result(ahead, n.name, "stacked", operands)
            for n in early
            if n.name in read.union(late, asked)
        }
        core = self._core(inside, given)
        of_core = operands | given
        shared = {
            name: self._result(core, name, "stacked", of_core)
            for name in late
            if name in core.types and (name in self._fed() or not self.graph[name].op.is_source)
        }
        behind = self._part(
            [n for n in self.graph if n.name in self.after], operands, given | shared
        )
        placed: dict[str, list[Node]] = {first.name: self.made}
        for node, op in zip(self.results, self.ops, strict=True):
            part, known = core, of_core
            if op.result in self.before:
                part, known = ahead, operands
            elif op.result in self.after:
                part, known = behind, operands | given | shared
            moved = self._node(node.name, part, op.result, op.kind, known, node)
            placed.setdefault(node.name, []).append(moved)
        return placed

    def _core(self, inside: Sequence[Node], given: Mapping[str, str]) -> StepGraph:
        """Return the step of the loop itself; what came before is a sequence."""
        made = {name: _input(self.graph[name]) for name in given}
        nodes = [*made.values(), *inside]
        step = self.step
        kept = {name for node in nodes for name in node.inputs}
        kept |= {op.result for op in self.ops}
        kept |= {*step.nexts, *self._fed(), *given, step.lengths}
        left = (n for n in nodes if n.name in kept or not n.op.is_input)
        core = step.with_nodes(left, step.carried)
        return replace(core, sequences=(*core.sequences, *given))

    def _part(
        self, nodes: Sequence[Node], operands: Mapping[str, str], given: Mapping[str, str]
    ) -> StepGraph:
        """Return the step of nodes before or after the loop; `given` are its values for them."""
        own = {node.name for node in nodes}
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name not in own)
        step = self.step
        sequences = [n for n in read if n in step.sequences or n in given]
        whole = [n for n in read if n in step.whole and n not in given]
        constants = [self.graph[n] for n in read if self.graph[n].op.is_constant]
        if step.lengths and step.lengths not in whole:
            whole.append(step.lengths)
        inputs = [_input(self.graph[name]) for name in (*sequences, *whole)]
        return StepGraph(
            (*inputs, *constants, *nodes), tuple(sequences), (), tuple(whole), "", step.lengths
        )

    def _result(self, step: StepGraph, result: str, kind: str, operands: Mapping[str, str]) -> str:
        """Add a result of a part, and return its name."""
        name = f"{self.results[0].name}.{result}"
        while name in self.outer or any(node.name == name for node in self.made):
            name += "_"
        self.made.append(self._node(name, step, result, kind, operands, self.results[0]))
        return name

    def _node(
        self,
        name: str,
        step: StepGraph,
        result: str,
        kind: str,
        operands: Mapping[str, str],
        like: Node,
    ) -> Node:
        op = replace(self.ops[0], step=step, kind=kind, result=result)  # type: ignore[arg-type]
        type = step.types[result]
        type = stacked(type, op.steps) if kind == "stacked" else type
        return Node(name, op, tuple(operands[one] for one in step.inputs), type, like.locs)


def _input(node: Node) -> Node:
    if node.op.is_input:
        return node
    return Node(node.name, Input(node.type.shape, node.type.dtype), (), node.type, node.locs)
