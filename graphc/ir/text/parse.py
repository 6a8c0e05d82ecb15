"""The parser of graphs: reads them back from text, without running any of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphc.base.errors import GraphError
from graphc.base.work import work_budget
from graphc.ir.graph import Graph, Node
from graphc.ir.init import Initializer
from graphc.ir.op import BUILT_IN, Op, attributes, inferred
from graphc.ir.step_graph import Carried, StepGraph
from graphc.ir.tensor_type import TensorType
from graphc.ir.text.graph import FROM_TYPE, array_value, empty_values, name_text, word_of
from graphc.ir.text.tokens import Reader, construct, field_names

ROOTS = ("output", "gradient", "update")


def parse_graph(text: str, ops: Mapping[str, type[Op]], values: Iterable[type] = ()) -> Graph:
    """Return the graph that `graph_text` printed, except for the user's lines.

    `ops` holds the classes that nodes may be of, `values` those that attributes may be of,
    besides initialisers.  Every node's type is inferred again.  Raise GraphError with the first
    wrong line.
    """
    with work_budget("the text", nbytes=len(text), nodes=text.count("\n")):
        return _Parser(ops, values).graph(text)


def parse_op(text: str, ops: Mapping[str, type[Op]]) -> Op:
    """Return the op that `op_text` printed; raise GraphError for any other text."""
    parser = _Parser(ops, ())
    try:
        r = Reader(text, parser.classes)
        cls = parser.op_class(r)
        fields = dict(r.until(")", r.attribute)) if r.skip("(") else {}
        if r.kind != "end":
            r.fail("the end of the text")
        op = construct(cls, {**empty_values(cls), **fields})
        assert isinstance(op, Op)
        hash(op)
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise GraphError(f"an op cannot be read: {reason}", hint=_shown(text)) from None
    return op


def check_count(op: Op, count: int) -> None:
    """Raise ValueError for a number of operands that an op does not take; concat takes any."""
    if BUILT_IN.get(word_of(type(op))) is not type(op) or not op.roles:
        return
    least, most = len(op.roles) - op.optional, len(op.roles)
    if count > most:
        raise ValueError(f"it has {count} operands, {op.name} takes at most {most}")
    if count < least:
        raise ValueError(f"it has {count} operands, {op.name} takes at least {least}")


class _Parser:
    """The nodes and roots read so far."""

    def __init__(self, ops: Mapping[str, type[Op]], values: Iterable[type]) -> None:
        self.ops = {word_of(cls): cls for cls in ops.values()}
        self.classes = {cls.__name__: cls for cls in (*_descendants(Initializer), *values)}
        self.name: str | None = None
        self.nodes: dict[str, Node] = {}
        self.roots: dict[str, dict[str, str]] = {kind: {} for kind in ROOTS}
        self.losses: list[str] = []
        self.steps: dict[str, StepGraph] = {}
        """The steps of loops by name."""
        self.inner: _StepParser | None = None
        """The parser of a step that has not ended."""

    def graph(self, text: str) -> Graph:
        """Return the graph of a text; raise GraphError with the line that is wrong."""
        for number, line in enumerate(text.split("\n"), 1):
            try:
                self.line(line)
            except (ValueError, TypeError) as error:  # a value's own class may raise TypeError
                reason = str(error).partition("\n")[0]
                raise GraphError(f"line {number}: {reason}", hint=_shown(line)) from None
        if self.name is None:
            raise GraphError("line 1: the text is empty", hint="it begins with: graph NAME")
        if self.inner is not None:
            raise GraphError("the text ends inside a step", hint="a step ends with the line: end")
        outputs, gradients, updates = (self.roots[kind] for kind in ROOTS)
        return Graph(
            self.name,
            self.nodes.values(),
            outputs=outputs,
            losses=self.losses,
            gradients=gradients,
            updates=updates,
        )

    def line(self, line: str) -> None:
        """Read a line, which may be one of a step."""
        if self.inner is not None:
            self.inner.line(line)
            if self.inner.ended:
                self.steps[self.inner.step_name], self.inner = self.inner.step(), None
            return
        r = Reader(line, self.classes)
        if r.kind == "end":
            return
        self.read(r)
        if r.kind != "end":
            r.fail("the end of the line")

    def read(self, r: Reader) -> None:
        """Read the items of a line."""
        if self.name is None:
            r.expect("graph")
            self.name = r.name()
        elif r.next_is(":", ahead=1):
            self._node(r)
        elif r.skip("step"):
            self.inner = _StepParser(self, r)
        elif r.skip("losses"):
            self._losses(r)
        else:
            self._root(r)

    def _node(self, r: Reader) -> None:
        name = r.name()
        if name in self.nodes:
            raise ValueError(f"there is a node {name!r} already")
        r.expect(":")
        type = r.type()
        r.expect("=")
        cls = self.op_class(r)
        r.expect("(")
        inputs = tuple(r.until(")", lambda: self._known(r.name())))
        op = _op(cls, type, self._attributes(r)).named(name)
        self._check(op, inputs, type)
        self.nodes[name] = Node(name, op, inputs, type)

    def _attributes(self, r: Reader) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while r.kind in ("word", "string"):
            if r.next_is("step") and r.next_is("=", ahead=1):
                name, value = "step", self._step(r)
            else:
                name, value = r.attribute()
            if name in found:
                raise ValueError(f"attribute {name!r} appears twice")
            found[name] = value
        return found

    def _step(self, r: Reader) -> object:
        """Read the name of a step of a loop, or the value of another attribute of that name."""
        r.expect("step")
        r.expect("=")
        if r.kind not in ("word", "string"):
            return r.value()
        name = r.name()
        if name not in self.steps:
            raise ValueError(f"there is no step {name!r} above")
        return self.steps[name]

    def op_class(self, r: Reader) -> type[Op]:
        """Return the class of the op or layer that is named next."""
        layer = r.next_is("layer") and not r.next_is("(", ahead=1)
        r.position += layer
        word = ("layer " if layer else "") + name_text(r.name())
        if word not in self.ops:
            raise ValueError(f"there is no op {word!r}")
        return self.ops[word]

    def _check(self, op: Op, inputs: tuple[str, ...], type: TensorType) -> None:
        check_count(op, len(inputs))
        try:
            found = inferred(op, [self.nodes[name].type for name in inputs])
        except Exception as error:  # wrong attributes may raise anything
            raise ValueError(str(error).partition("\n")[0] or repr(error)) from None
        if found != type:
            raise ValueError(f"its type is {type}, {op.name} gives {found}")

    def _known(self, name: str) -> str:
        if name not in self.nodes:
            raise ValueError(f"{name!r} is not declared above")
        return name

    def _losses(self, r: Reader) -> None:
        while not self.losses or r.skip(","):
            name = r.name()
            if name not in self.roots["output"]:
                raise ValueError(f"loss {name!r} is not an output above")
            self.losses.append(name)

    def _root(self, r: Reader) -> None:
        kind = r.name()
        if kind not in ROOTS:
            raise ValueError(
                f"a line begins with a node's name and ':', or with {', '.join(ROOTS)}"
            )
        key = r.name()
        r.expect("=")
        value = self._known(r.name())
        if key in self.roots[kind]:
            raise ValueError(f"there is {kind} {key!r} already")
        if kind == "update" and self.nodes[self._known(key)].type != self.nodes[value].type:
            raise ValueError(f"{key!r} and {value!r} are of different types")
        self.roots[kind][key] = value


class _StepParser(_Parser):
    """The nodes of a step read so far; its head has been read."""

    def __init__(self, outer: _Parser, r: Reader) -> None:
        super().__init__({}, ())
        self.ops, self.classes, self.name = outer.ops, outer.classes, outer.name
        self.ended = False
        self.step_name = r.name()
        if self.step_name in outer.steps:
            raise ValueError(f"there is a step {self.step_name!r} already")
        r.expect(":")
        self.head = dict(self._head(r))

    def _head(self, r: Reader) -> Iterator[tuple[str, Any]]:
        """Yield what the head says of the inputs."""
        items = {"carried": lambda: self._carried(r), "number": None, "lengths": None}
        while r.kind == "word":
            word = r.name()
            r.expect("=")
            if word in ("sequences", "whole", "carried"):
                r.expect("(")
                yield word, tuple(r.until(")", items.get(word) or r.name))
            elif word in items:
                yield word, r.name()
            else:
                raise ValueError(f"a step has no {word!r}")

    @staticmethod
    def _carried(r: Reader) -> Carried:
        name = r.name()
        r.expect("=")
        return Carried(name, r.name())

    def read(self, r: Reader) -> None:
        """Read the items of a line: a node, the head of a step in the step, or the end."""
        if r.next_is("end") and not r.next_is(":", ahead=1):
            r.expect("end")
            self.ended = True
        elif r.next_is(":", ahead=1):
            self._node(r)
        elif r.skip("step"):
            self.inner = _StepParser(self, r)
        else:
            r.fail("a node")

    def step(self) -> StepGraph:
        """Return the step; raise ValueError if its head names what it does not have."""
        step = StepGraph(tuple(self.nodes.values()), **self.head)
        named = (*step.inputs, *step.nexts, *filter(None, (step.number, step.lengths)))
        for name in named:
            self._known(name)
        for name in (*step.inputs, *filter(None, (step.number,))):
            if not self.nodes[name].op.is_input:
                raise ValueError(f"{name!r} is not an input of the step")
        return step


def _op(cls: type[Op], type: TensorType, given: dict[str, Any]) -> Op:
    """Return the op, with the attributes that the text leaves out."""
    names = field_names(cls)
    left_out = {name: getattr(type, name) for name in FROM_TYPE if name in names}
    unset = dict(empty_values(cls))
    if cls.is_constant and isinstance(given.get("data"), list):
        given["data"] = array_value(given["data"], type.dtype)
    op = construct(cls, {**unset, **left_out, **given})
    assert isinstance(op, Op)
    held = len(attributes(op)["data"]) if op.is_constant else 0
    if op.is_constant and held != type.nbytes(1):
        raise ValueError(f"its data has {held} bytes, {type} has {type.nbytes(1)}")
    hash(op)  # attributes must be hashable
    return op


def _descendants(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _descendants(child)


def _shown(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 100 else f"{line[:97]}..."
