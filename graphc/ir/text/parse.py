"""The parser of graphs: reads them back from text, without running any of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphc.base.errors import GraphError
from graphc.base.work import work_budget
from graphc.ir.graph import Graph, Node
from graphc.ir.init import Initializer
from graphc.ir.op import BUILT_IN, Op, attributes, inferred
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
    """Raise ValueError for a number of operands that one of graphc's ops does not take.

    Concat alone takes any number.
    """
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

    def graph(self, text: str) -> Graph:
        """Return the graph of a text; raise GraphError with the line that is wrong."""
        for number, line in enumerate(text.split("\n"), 1):
            try:
                self._line(line)
            except (ValueError, TypeError) as error:  # a value's own class may raise TypeError
                reason = str(error).partition("\n")[0]
                raise GraphError(f"line {number}: {reason}", hint=_shown(line)) from None
        if self.name is None:
            raise GraphError("line 1: the text is empty", hint="it begins with: graph NAME")
        outputs, gradients, updates = (self.roots[kind] for kind in ROOTS)
        return Graph(
            self.name,
            self.nodes.values(),
            outputs=outputs,
            losses=self.losses,
            gradients=gradients,
            updates=updates,
        )

    def _line(self, line: str) -> None:
        r = Reader(line, self.classes)
        if r.kind == "end":
            return
        if self.name is None:
            r.expect("graph")
            self.name = r.name()
        elif r.next_is(":", ahead=1):
            self._node(r)
        elif r.skip("losses"):
            self._losses(r)
        else:
            self._root(r)
        if r.kind != "end":
            r.fail("the end of the line")

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
        op = _op(cls, type, _attributes(r)).named(name)
        self._check(op, inputs, type)
        self.nodes[name] = Node(name, op, inputs, type)

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


def _attributes(r: Reader) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while r.kind in ("word", "string"):
        name, value = r.attribute()
        if name in found:
            raise ValueError(f"attribute {name!r} appears twice")
        found[name] = value
    return found


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
