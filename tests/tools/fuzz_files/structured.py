"""Change what a model file means: nest, repeat, enlarge, exchange, with its checksum made right.

Types are inferred anew, so that most files get past the checks of the text and are compiled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import Batch, N, TensorType
from graphc.ir.text import graph_text, parse_graph
from graphc.ir.text.graph import word_of
from graphc.ops import OPS
from graphc.ops.autodiff import Gradient
from graphc.ops.elementwise import Mul
from graphc.ops.shape import Reshape
from graphc.ops.slicing import Concat
from graphc.ops.sums import Sum
from tests.tools.fuzz_files.mutate import assembled, changed_text

SIZES = (0, 1, 2, 3, 7, 16, 255, 1000, 3000, 10**5, 10**7, 10**9, 2**31, 2**40, 2**60, -1)
FLOATS = (0.0, -1.0, 1e-30, 0.5, 1e30, float("inf"), float("nan"))
WORDS = {word_of(cls): cls for cls in OPS.values()}
OPTIMIZERS = (
    "SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0, clip_norm=1.0, groups=(), "
    "accumulate=1)",
    "Adam()",
    "None",
)


def changed_structure(data: bytes, rng: Random) -> bytes:
    """A sealed model file with one to three changes to its graph or its plan."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    about = header["__metadata__"]
    notes = json.loads(about["model"])
    draft = Draft(_parsed(about["graph"]), rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if "plan" in notes and rng.random() < 0.25:
            change_plan(notes["plan"], rng)
        else:
            draft.change()
    try:
        about["graph"] = draft.text()
    except (TypeError, ValueError):  # numbers of no dtype
        about["graph"] = changed_text(about["graph"], rng)
    made_quick(notes, rng)
    about["model"] = json.dumps(notes)
    return assembled(header, body, rng)


def made_quick(notes: dict[str, Any], rng: Random) -> None:
    """Compile fewer programs of most files: it takes the most time."""
    quick = rng.random()
    if quick < 0.6:
        notes.update(kind="net", dtype=notes.get("dtype", "float32"))
    elif quick < 0.8 and "plan" in notes:
        notes["kind"] = "plan"
        notes["plan"].update(optimizer=None, wrt=[], required=[])


@cache
def _parsed(text: str) -> Graph:
    return parse_graph(text, WORDS)


def change_plan(plan: dict[str, Any], rng: Random) -> None:
    """Another choice of a compile option."""
    key = rng.choice(("batch", "budget", "shards", "threads", "optimizer", "without", "backend"))
    text = str(plan.get("optimizer"))
    plan[key] = {
        "batch": rng.choice(SIZES),
        "budget": rng.choice((*SIZES, 20_000, 60_000)),
        "shards": rng.choice((*SIZES, 4, 64, 1024)),
        "threads": rng.choice(SIZES),
        "optimizer": rng.choice((*OPTIMIZERS, None, text.replace("0.", "1e30*0.", 1), text * 2)),
        "without": rng.choice(([], ["cse"], ["dead_code", "fold_constants"], ["specialize"])),
        "backend": rng.choice(("numpy", "native")),
    }[key]
    if rng.random() < 0.2:
        plan["all_outputs"] = not plan.get("all_outputs")
        plan["sync_batchnorm"] = rng.random() < 0.5


def times(rng: Random, few: Sequence[int], many: Sequence[int]) -> int:
    """How often something is repeated: many times seldom, since such files take the longest."""
    return rng.choice(many if rng.random() < 0.02 else few)


class Draft:
    """The nodes of a graph while they are changed, and what is asked of them."""

    def __init__(self, graph: Graph, rng: Random) -> None:
        self.rng, self.graph = rng, graph
        self.nodes = {node.name: node for node in graph}
        self.outputs = dict(graph.outputs)
        self.count = 0

    def change(self) -> None:
        """One change of any kind."""
        ways: tuple[Callable[[], object], ...] = (
            *(self.nest, self.nest, self.chain, self.chain, self.double, self.fan, self.window),
            *(
                self.attribute,
                self.attribute,
                self.attribute,
                self.operand,
                self.drop,
                self.exchange,
            ),
            *(self.type, self.broadcast),
        )
        self.rng.choice(ways)()

    def text(self) -> str:
        """The text, with types inferred again where that goes."""
        made: dict[str, Node] = {}
        for node in self.nodes.values():
            if not all(name in made for name in node.inputs):
                continue
            made[node.name] = self._inferred(node, made)
        known = {key: value for key, value in self.outputs.items() if value in made}
        losses = [name for name in self.graph.losses if name in known]
        updates = {k: v for k, v in self.graph.updates.items() if k in made and v in made}
        graph = Graph(self.graph.name, made.values(), outputs=known, losses=losses, updates=updates)
        return graph_text(graph)

    def _inferred(self, node: Node, made: dict[str, Node]) -> Node:
        try:
            type = node.op.infer([made[name].type for name in node.inputs])
        except Exception:  # what does not fit is for the reader to find
            type = node.type
        return Node(node.name, node.op, node.inputs, type)

    def add(self, op: Op, *inputs: str) -> str | None:
        """A node more; None where it does not fit."""
        try:
            type = op.infer([self.nodes[name].type for name in inputs])
        except Exception:
            return None
        self.count += 1
        name = f"more{self.count}_{self.rng.randrange(10**6)}"
        self.nodes[name] = Node(name, op, inputs, type)
        return name

    def pick(self, floats: bool = True) -> str:
        """Any value, one of floats where there is one."""
        names = [n.name for n in self.nodes.values() if n.type.is_float or not floats]
        return self.rng.choice(names or list(self.nodes))

    def ask(self, name: str | None) -> None:
        """Have an output depend on a value."""
        if name is not None and self.outputs:
            plain = [key for key in self.outputs if key not in self.graph.losses]
            self.outputs[self.rng.choice(plain or list(self.outputs))] = name

    def nest(self) -> None:
        """A derivative of a derivative of ..."""
        wrt = self.pick()
        of: str | None = self.pick()
        for _ in range(times(self.rng, (1, 1, 2, 3), (5, 8, 13, 30))):
            if of is None:
                return
            axes = tuple(range(self.nodes[of].type.rank))
            total = self.add(Sum(axes), of) if axes else of
            slope = total and self.add(Gradient(), total, wrt)
            of = slope and self.add(Mul(), slope, slope)
            self.ask(of)

    def chain(self) -> None:
        """A node again and again, each over the one before."""
        node = self.nodes[self.pick()]
        name: str | None = node.name
        for _ in range(times(self.rng, (1, 2, 4, 8), (30, 100, 400))):
            if name is None or not node.inputs:
                return
            inputs = [
                name if i == 0 or self.rng.random() < 0.5 else old
                for i, old in enumerate(node.inputs)
            ]
            name = self.add(node.op, *inputs)
            self.ask(name)

    def fan(self) -> None:
        """A node again and again over the same operands, and all of them added up."""
        node = self.nodes[self.pick()]
        total: str | None = node.name
        for _ in range(times(self.rng, (1, 2, 3), (30, 200))):
            copy = self.add(node.op, *node.inputs)
            total = self.add(Mul(), total, copy) if copy and total else None
        self.ask(total)

    def double(self) -> None:
        """A value beside itself, and that beside itself, ..."""
        name: str | None = self.pick(floats=False)
        axis = self.rng.randrange(max(self.nodes[str(name)].type.rank, 1))
        for _ in range(times(self.rng, (1, 2, 4), (10, 22, 40, 70))):
            name = self.add(Concat(axis), *[name] * self.rng.choice((2, 2, 9))) if name else None
            self.ask(name)

    def broadcast(self) -> None:
        """A value as one of a huge shape, and its sum."""
        rank = self.rng.randrange(1, 4)
        shape = (N, *(self.rng.choice(SIZES) for _ in range(rank)))
        wide = self.add(WORDS["broadcast_to"](shape), self.pick())  # type: ignore[call-arg]
        self.ask(wide and self.add(Sum(tuple(range(1, rank + 1))), wide))

    def window(self) -> None:
        """A pool with windows of any size over a value as an image."""
        name = self.pick()
        sizes = [d for d in self.nodes[name].type.shape[1:] if isinstance(d, int)]
        width = 1
        for size in sizes:
            width *= size
        image = self.add(Reshape((N, 1, 1, width)), name)
        one = lambda: self.rng.choice(SIZES)  # noqa: E731
        size = one()
        pads = ((0, 0), self.rng.choice(((0, 0), (max(size - 1, 0),) * 2, (one(), one()))))
        word = self.rng.choice(("layer max_pool", "layer avg_pool"))
        how = (
            (1, size),
            (1, self.rng.choice((1, 2, one()))),
            pads,
            (1, self.rng.choice((1, one()))),
        )
        if image:
            try:
                self.ask(self.add(WORDS[word](*how), image))  # type: ignore[arg-type]
            except Exception:
                return

    def attribute(self) -> None:
        """Another number, or other numbers, in the attributes of an op."""
        nodes = [node for node in self.nodes.values() if attributes(node.op)]
        if not nodes:
            return
        node = self.rng.choice(nodes)
        name = self.rng.choice(list(attributes(node.op)))
        value = self._other(getattr(node.op, name))
        try:
            op = dataclasses.replace(node.op, **{name: value})
            hash(op)
        except Exception:
            return
        self.nodes[node.name] = Node(node.name, op, node.inputs, node.type)

    def _other(self, value: Any) -> Any:
        if isinstance(value, tuple) and value:
            kind = self.rng.randrange(5)
            if kind == 0:
                return value * times(self.rng, (2, 3), (30, 1000))
            at = self.rng.randrange(len(value))
            return (*value[:at], self._other(value[at]), *value[at + 1 :])
        if isinstance(value, bool):
            return not value
        if isinstance(value, Batch):
            return Batch(self.rng.choice(SIZES)) if self.rng.random() < 0.5 else 5
        if isinstance(value, int):
            return self.rng.choice((*SIZES, value + 1, value * 2))
        if isinstance(value, float):
            return self.rng.choice(FLOATS)
        if isinstance(value, str):
            return self.rng.choice(("float64", "int64", "bool", value + value, ""))
        return value

    def operand(self) -> None:
        """A node that reads another value, or the same ones in another order."""
        nodes = [node for node in self.nodes.values() if node.inputs]
        if not nodes:
            return
        node = self.rng.choice(nodes)
        inputs = list(node.inputs)
        before = list(self.nodes)[: list(self.nodes).index(node.name)]
        kind = self.rng.randrange(4)
        if kind == 0:
            self.rng.shuffle(inputs)
        elif kind == 1:
            inputs.append(self.rng.choice(before))
        elif kind == 2 and len(inputs) > 1:
            del inputs[self.rng.randrange(len(inputs))]
        else:
            inputs[self.rng.randrange(len(inputs))] = self.rng.choice(before)
        self.nodes[node.name] = Node(node.name, node.op, tuple(inputs), node.type)

    def drop(self) -> None:
        """A node less; what read it reads its first operand."""
        node = self.nodes[self.rng.choice(list(self.nodes))]
        if not node.inputs:
            return
        del self.nodes[node.name]
        first = node.inputs[0]
        for other in list(self.nodes.values()):
            if node.name in other.inputs:
                inputs = tuple(first if name == node.name else name for name in other.inputs)
                self.nodes[other.name] = Node(other.name, other.op, inputs, other.type)
        self.outputs = {k: first if v == node.name else v for k, v in self.outputs.items()}

    def exchange(self) -> None:
        """A node of another op that takes as many operands."""
        a = self.nodes[self.rng.choice(list(self.nodes))]
        others = [n for n in self.nodes.values() if len(n.inputs) == len(a.inputs)]
        op = self.rng.choice(others).op
        if self.rng.random() < 0.5:
            try:
                op = self.rng.choice(list(OPS.values()))()
            except Exception:
                return
        self.nodes[a.name] = Node(a.name, op, a.inputs, a.type)

    def type(self) -> None:
        """A source of another shape or dtype."""
        sources = [node for node in self.nodes.values() if not node.inputs]
        node = self.rng.choice(sources)
        try:
            shape = self._other(node.type.shape)
            dtype = self.rng.choice((node.type.dtype, node.type.dtype, "float64", "int64"))
            changes = {
                k: v for k, v in (("shape", shape), ("dtype", dtype)) if k in attributes(node.op)
            }
            op = dataclasses.replace(node.op, **changes)
            self.nodes[node.name] = Node(node.name, op, (), TensorType(shape, dtype))
        except Exception:
            return
