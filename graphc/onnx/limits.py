"""Checks of names and sizes in a model before any of it is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from graphc.base.errors import ModelFileError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

LONGEST_NAME = 1000
MOST_DIMENSIONS = 32
LARGEST = 2**63 - 1
"""The largest byte count that a tensor's shape may imply, before it is compared with its data."""


def check_limits(model: ModelProto) -> None:
    """Raise ModelFileError for names that no valid model has."""
    for graph in graphs_of(model):
        for node in graph:
            for name in _names(node):
                check_name(name)
    for name in (*_public_names(model.graph), *_other_names(model)):
        check_name(name)


def graphs_of(model: ModelProto) -> Iterator[list[NodeProto]]:
    """Yield the nodes of the graph, of the functions, and of the graphs inside their attributes."""
    left = [list(model.graph.node), *(list(function.node) for function in model.functions)]
    while left:
        nodes = left.pop()
        yield nodes
        for node in nodes:
            for attribute in node.attribute:
                left.extend(list(graph.node) for graph in _graphs_in(attribute))


def names_read(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Yield the names that nodes read, those of the graphs inside their attributes included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in _graphs_in(attribute):
                yield from (value.name for value in graph.output)
                yield from names_read(graph.node)


def _graphs_in(attribute: AttributeProto) -> Iterable[GraphProto]:
    return [attribute.g] if attribute.HasField("g") else attribute.graphs


def check_name(name: str | bytes) -> None:
    """Raise ModelFileError for a name with unprintable characters, or one that is very long."""
    if isinstance(name, bytes):  # protocol buffers return bytes for invalid text
        raise ModelFileError(f"the name {name[:40]!r} is not text")
    if len(name) > LONGEST_NAME:
        raise ModelFileError(f"the name {name[:40]!r}... has {len(name):,} characters")
    if not name.isprintable():
        raise ModelFileError(f"the name {name[:40]!r} has characters that are not printable")


def check_sizes(tensor: TensorProto) -> None:
    """Raise ModelFileError for an impossible shape."""
    sizes, nbytes = list(tensor.dims), 16
    for size in sizes:
        nbytes *= max(size, 1)
        if size < 0 or nbytes > LARGEST or len(sizes) > MOST_DIMENSIONS:
            raise ModelFileError(f"tensor {tensor.name!r} has the shape {tuple(sizes[:8])}")


def _names(node: NodeProto) -> Iterator[str]:
    yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for attribute in node.attribute:
        yield from (attribute.name, attribute.ref_attr_name)


def _public_names(graph: GraphProto) -> Iterator[str]:
    yield graph.name
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        yield tensor.name


def _other_names(model: ModelProto) -> Iterator[str]:
    yield model.producer_name
    for opset in model.opset_import:
        yield opset.domain
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
        yield from (opset.domain for opset in function.opset_import)
    for entry in model.metadata_props:
        yield entry.key
