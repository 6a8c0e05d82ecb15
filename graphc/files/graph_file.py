"""Graphs as text and arrays: the description of a net in a model file.

Numbers stay out of the text.  A constant is written as a state of its type, and a parameter or
state that starts from a given array as one of zeros; the arrays are stored beside the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.init import FromArray
from graphc.ir.op import Array, Op
from graphc.ir.step_graph import nested
from graphc.ir.text import graph_text, parse_graph
from graphc.ir.text.graph import word_of
from graphc.ops import OPS
from graphc.ops.source import Constant, State, start_of, with_start

CONSTANT, INITIAL = "constant/", "initial/"
"""The prefixes of the names of arrays that belong to a graph."""

LONGEST_NAME = 1000
_SMALL = 16
"""The largest number of elements of a constant that is written in the text."""


@dataclass(frozen=True)
class GraphFile:
    """A graph as text, notes for JSON, and the arrays of its numbers."""

    text: str
    notes: dict[str, Any]
    tensors: dict[str, Array]


def graph_file(graph: Graph) -> GraphFile:
    """Split a graph into text and arrays; raise GraphError if text cannot hold one of its ops."""
    changed: dict[str, Node | None] = {}
    labels: dict[str, str] = {}
    initials: dict[str, list[Any]] = {}
    tensors: dict[str, Array] = {}
    for node in graph:
        op = node.op
        if isinstance(op, Constant) and op.array().size > _SMALL:
            changed[node.name] = replace(node, op=State(op.shape, op.dtype))
            labels[node.name] = op.label
            tensors[CONSTANT + node.name] = op.array()
        elif (start := start_of(op)) is not None:
            changed[node.name] = replace(node, op=with_start(op, None))
            initials[node.name] = _taken(INITIAL + node.name, start, tensors)
    check_names(graph)
    ops = [[word_of(cls), f"{cls.__module__}.{cls.__qualname__}"] for cls in user_ops(graph)]
    notes = {"ops": ops, "constants": labels, "initials": initials}
    return GraphFile(graph_text(graph.replace(changed)), notes, tensors)


def _taken(name: str, values: FromArray, tensors: dict[str, Array]) -> list[Any]:
    """Add an initializer's values to the arrays; return their dtype and shape for the notes."""
    tensors[name] = np.frombuffer(values.data, np.uint8)
    return [values.dtype, list(values.shape)]


def graph_of(file: GraphFile, ops: Iterable[type[Op]]) -> Graph:
    """Rebuild a graph from text and arrays; `ops` are the user's classes.

    Raise UnknownOp if one of them is missing, GraphError, ValueError, KeyError or TypeError if
    text, notes and arrays do not fit each other.
    """
    known = {word_of(cls): cls for cls in (*ops, *OPS.values())}
    for word, path in file.notes["ops"]:
        if word not in known:
            raise UnknownOp(str(path))
    graph = parse_graph(file.text, known)
    check_names(graph)
    changed: dict[str, Node | None] = {}
    for name, label in file.notes["constants"].items():
        changed[name] = _constant(graph[name], file.tensors[CONSTANT + name], label)
    for name, (dtype, shape) in file.notes["initials"].items():
        data = file.tensors[INITIAL + name].tobytes()
        changed[name] = _from_array(graph[name], FromArray(data, tuple(shape), dtype))
    return graph.replace(changed)


def check_names(graph: Graph) -> None:
    """Raise GraphError for names that are not printable or are very long."""
    for name in (graph.name, *(node.name for node in nested(graph)), *graph.outputs):
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise GraphError(
                f"the name {name[:40]!r} has characters that are not printable"
                if len(name) <= LONGEST_NAME
                else f"the name {name[:40]!r}... has {len(name)} characters",
                hint=f"names in files have printable characters only, at most {LONGEST_NAME}",
            )


class UnknownOp(GraphError):
    """An error for a user's own op whose class is needed to read a graph."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"the op {path} is not one of graphc's")


def user_ops(graph: Graph) -> tuple[type[Op], ...]:
    """Return the classes of the graph's ops that are not graphc's own, in order of first use.

    Raise GraphError if the text of one would be read as another op.
    """
    own = {word_of(cls): cls for cls in OPS.values()}
    words = dict(own)
    for cls in dict.fromkeys(type(node.op) for node in nested(graph)):
        if words.setdefault(word_of(cls), cls) is not cls:
            raise GraphError(
                f"two ops are called {cls.name!r}: {cls.__qualname__} and "
                f"{words[word_of(cls)].__qualname__}",
                hint=f'give yours another name: name = "my_{cls.name}" in the class',
            )
    return tuple(cls for word, cls in words.items() if word not in own)


def _constant(node: Node, array: Array, label: str) -> Node:
    if (array.shape, array.dtype.name) != (node.type.shape, node.type.dtype):
        raise ValueError(f"the type of the constant {node.name!r} is not that of its array")
    return replace(node, op=Constant(array.shape, array.dtype.name, array.tobytes(), label))


def _from_array(node: Node, init: FromArray) -> Node:
    if not node.op.persistent:
        raise ValueError(f"{node.name!r} is neither a parameter nor a state")
    shape = cast(tuple[int, ...], node.type.shape)
    init.sample(np.random.default_rng(0), shape, node.type.dtype)
    return replace(node, op=with_start(node.op, init))


def tensors_named(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names start with the prefix, under names without it."""
    return {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
