"""Read a file or a ModelProto as a model, and check its names, shapes and data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from graphc.base.errors import GraphError, ModelFileError
from graphc.files.container import read_whole, unpack
from graphc.files.disk import check_plain, reason, shown
from graphc.ir.op import Array
from graphc.ir.tensor_type import MOST_DIMENSIONS

LONGEST_NAME = 1000
LARGEST = 2**63 - 1
"""The most bytes that a shape in a model may imply, before they are compared with its data."""


def check_limits(model: ModelProto) -> None:
    """Check all names in a model; raise ModelFileError for a very long or unprintable one."""
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
    """Check the shape of an ONNX tensor; raise ModelFileError if it is impossible."""
    sizes, nbytes = list(tensor.dims), 16  # complex128 is the widest dtype
    for size in sizes:
        nbytes *= max(size, 1)
        if size < 0 or nbytes > LARGEST or len(sizes) > MOST_DIMENSIONS:
            raise ModelFileError(f"ONNX tensor {tensor.name!r} has the shape {tuple(sizes[:8])}")


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


HINT = "give the path of an .onnx file, or an onnx.ModelProto"
BYTES = "onnx.load_from_string makes an onnx.ModelProto from bytes"
OURS = "gc.save wrote it: gc.load reads it"
LARGEST_FILE = 2**31
"""The size from which on protocol buffers cannot represent a model."""


def read_model(source: str | Path | ModelProto, external_data: bool) -> tuple[ModelProto, str]:
    """Return the model and its name in errors; raise ModelFileError if it is not a model."""
    if isinstance(source, ModelProto):
        model, name, folder = source, source.graph.name or "model", None
    else:
        path = path_of("load", source, BYTES if isinstance(source, bytes) else HINT)
        model, name, folder = _parsed(path), path.name, path.parent
    check_limits(model)
    _take_external(model, folder if external_data else None)
    return model, name


def path_of(call: str, given: object, hint: str) -> Path:
    """Return the path that a call was given; raise GraphError if it is not a path."""
    if isinstance(given, (str, os.PathLike)):
        return Path(given)
    raise GraphError(f"{call}: {type(given).__name__} is not a path", hint=hint)


def _parsed(path: Path) -> ModelProto:
    try:
        check_plain(path)
        if os.path.getsize(path) >= LARGEST_FILE:
            raise ModelFileError(f"{path} is larger than 2 GB")
        data = read_whole(path)
    except OSError as error:
        raise ModelFileError(f"cannot read {shown(path)}: {reason(error)}", hint=HINT) from None
    model = ModelProto()
    if not _parse(model, data) or not model.HasField("graph"):
        hint = OURS if _is_ours(data) else HINT
        raise ModelFileError(f"{path} is not an ONNX model, or is damaged", hint=hint)
    return model


def _is_ours(data: bytes) -> bool:
    """Return whether `gc.save` wrote the data."""
    try:
        unpack(data)
    except ValueError:
        return False
    return True


def _parse(message: Message, data: bytes) -> bool:
    try:
        message.ParseFromString(data)
    except (DecodeError, RecursionError):
        return False
    return True


def array_of(tensor: TensorProto) -> Array:
    """Return an ONNX tensor as an array, numbers of BFLOAT16 in float32.

    Raise ModelFileError if shape and data do not fit.
    """
    check_sizes(tensor)
    if tensor.data_type == TensorProto.STRING:
        raise ModelFileError(f"ONNX tensor {tensor.name!r} contains text, not numbers")
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelFileError(f"the data of ONNX tensor {tensor.name!r} is in another file")
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # the library lets any exception of its parts through
        sentence = str(error).partition("\n")[0]
        raise ModelFileError(f"ONNX tensor {tensor.name!r} cannot be read: {sentence}") from None
    if array.shape != tuple(tensor.dims):
        raise ModelFileError(
            f"ONNX tensor {tensor.name!r} does not have the data that its shape requires"
        )
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _take_external(model: ModelProto, folder: Path | None) -> None:
    """Read data that is in other files; raise ModelFileError for any if no folder is given."""
    for tensor in _all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            if folder is None:
                raise ModelFileError(
                    f"the data of ONNX tensor {tensor.name!r} is in another file",
                    hint="for a file that you trust: load(path, external_data=True)",
                )
            check_sizes(tensor)
            _read_external(folder, tensor)


def _read_external(folder: Path, tensor: TensorProto) -> None:
    """Read data in another file; onnx refuses links, devices, and files of other folders."""
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if not name or os.path.isabs(name) or ".." in Path(name).parts or not name.isprintable():
        raise _refused(tensor, f"{name[:40]!r} is not inside the model's folder")
    try:
        load_external_data_for_tensor(tensor, str(folder))
    except Exception as error:  # the library lets any exception of its parts through
        raise _refused(tensor, str(error).partition("\n")[0]) from None
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT


def _refused(tensor: TensorProto, why: str) -> ModelFileError:
    return ModelFileError(f"the data of ONNX tensor {tensor.name!r} cannot be read: {why}")


def _all_tensors(model: ModelProto) -> Iterable[Any]:
    yield from model.graph.initializer
    for nodes in graphs_of(model):
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
