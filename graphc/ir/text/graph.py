"""The text of graphs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Layer, Op, attributes
from graphc.ir.tensor_type import TensorType
from graphc.ir.text.values import array_text, value_text

BARE = re.compile(r"(?!(?:inf|nan)\Z)[A-Za-z_][A-Za-z0-9_./]*\Z")
FROM_TYPE = ("shape", "dtype")
"""Attributes that are left out if they are those of the node's type."""
EMPTY: Mapping[str, bool | str] = {"bool": False, "str": ""}


def graph_text(graph: Graph, locs: bool = False) -> str:
    """Return the graph, a line for each node and root; `locs` adds the user's lines as comments."""
    return "\n".join(_lines(graph, locs)) + "\n"


def _lines(graph: Graph, locs: bool) -> Iterator[str]:
    yield f"graph {name_text(graph.name)}"
    for node in graph:
        where = f"  # {'; '.join(map(str, node.locs))}" if locs and node.locs else ""
        yield node_text(node) + where.replace("\n", " ")
    for name, value in graph.outputs.items():
        yield f"output {name_text(name)} = {name_text(value)}"
    if graph.losses:
        yield f"losses {', '.join(map(name_text, graph.losses))}"
    for name, value in graph.gradients.items():
        yield f"gradient {name_text(name)} = {name_text(value)}"
    for name, value in graph.updates.items():
        yield f"update {name_text(name)} = {name_text(value)}"


def node_text(node: Node) -> str:
    """Return `name: type = op(operands)  attribute=value ...`."""
    operands = ", ".join(map(name_text, node.inputs))
    parts = [f"{name_text(node.name)}: {node.type} = {word_of(type(node.op))}({operands})"]
    parts.extend(f"{key}={value}" for key, value in _attributes(node.op, node.type))
    return "  ".join((parts[0], " ".join(parts[1:]))).rstrip()


def op_text(op: Op) -> str:
    """Return the op alone, such as `power(exponent=2.0)`."""
    inside = ", ".join(f"{key}={value}" for key, value in _attributes(op, None))
    return f"{word_of(type(op))}({inside})" if inside else word_of(type(op))


def word_of(cls: type[Op]) -> str:
    """Return an op's name in text; a layer and the op it becomes may share a name."""
    return f"layer {name_text(cls.name)}" if issubclass(cls, Layer) else name_text(cls.name)


def name_text(name: str) -> str:
    """Return a name as it is, or in JSON's quotes if it has unusual characters."""
    return name if BARE.match(name) else json.dumps(name)


def _attributes(op: Op, result: TensorType | None) -> Iterator[tuple[str, str]]:
    """Yield the attributes that must be written, given the type of the result."""
    unset = empty_values(type(op))
    for key, value in attributes(op).items():
        implied = result is not None and _says(result, key, value)
        if implied or (key in unset and value == unset[key]):
            continue
        if op.is_constant and key == "data":
            yield key, array_text(value, attributes(op)["dtype"])
        else:
            yield key, value_text(value)


def empty_values(cls: type[Op]) -> Mapping[str, bool | str]:
    """Return the attributes that are left out if they are empty: a bool's False, a str's ""."""
    fields = dataclasses.fields(cls)
    return {f.name: EMPTY[str(f.type)] for f in fields if str(f.type) in EMPTY}


def _says(type: TensorType, key: str, value: Any) -> bool:
    return key in FROM_TYPE and value == getattr(type, key)
