"""The text of graphs: nodes, roots, and the values of attributes.

Values are numbers, strings, dimensions, tuples, bytes and frozen dataclasses.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.base.errors import GraphError, counted
from graphc.base.work import bytes_left, spend_bytes
from graphc.ir.op import Layer, Op, attributes, step_of
from graphc.ir.tensor_type import Batch, TensorType, numpy_dtype

if TYPE_CHECKING:  # graphs print themselves
    from graphc.ir.graph import Graph, Node
    from graphc.ir.step_graph import StepGraph

BARE = re.compile(r"(?!(?:inf|nan)\Z)[A-Za-z_][A-Za-z0-9_./]*\Z")
FROM_TYPE = ("shape", "dtype")
"""Attributes that are left out if they are those of the node's type."""
EMPTY: Mapping[str, bool | str | None] = {"bool": False, "str": "", "TermOrder | None": None}
"""By the types of attributes, the values that are left out."""


def graph_text(graph: Graph, locs: bool = False) -> str:
    """Return the graph, a line for each node and root; `locs` adds the user's lines as comments."""
    return "\n".join(_lines(graph, locs)) + "\n"


def _lines(graph: Graph, locs: bool) -> Iterator[str]:
    yield f"graph {name_text(graph.name)}"
    yield from _node_lines(graph, locs)
    for name, value in graph.outputs.items():
        yield f"output {name_text(name)} = {name_text(value)}"
    if graph.losses:
        yield f"losses {', '.join(map(name_text, graph.losses))}"
    for name, value in graph.gradients.items():
        yield f"gradient {name_text(name)} = {name_text(value)}"
    for name, value in graph.updates.items():
        yield f"update {name_text(name)} = {name_text(value)}"


def _node_lines(nodes: Iterable[Node], locs: bool) -> Iterator[str]:
    """Yield a line for each node; the steps of loops come before the first node of the loop."""
    steps: dict[StepGraph, str] = {}
    for node in nodes:
        step = step_of(node.op)
        if step is not None and step not in steps:
            steps[step] = node.name
            yield from _step_lines(node.name, step, locs)
        where = f"  # {'; '.join(map(str, node.locs))}" if locs and node.locs else ""
        yield node_text(node, steps) + where.replace("\n", " ")


def _step_lines(name: str, step: StepGraph, locs: bool) -> Iterator[str]:
    """Yield the lines of a step: its inputs, and then its nodes."""
    yield f"step {name_text(name)}: {head_text(step)}"
    yield from (f"  {line}" for line in _node_lines(step.nodes, locs))
    yield "end"


def head_text(step: StepGraph) -> str:
    """Return the inputs of a step by their kinds."""
    carried = (f"{name_text(one.input)}={name_text(one.next)}" for one in step.carried)
    parts = [f"sequences={_names(step.sequences)}", f"carried=({', '.join(carried)})"]
    parts += [f"whole={_names(step.whole)}"]
    parts += [f"number={name_text(step.number)}"] if step.number else []
    parts += [f"lengths={name_text(step.lengths)}"] if step.lengths else []
    return " ".join(parts)


def _names(names: Iterable[str]) -> str:
    return f"({', '.join(map(name_text, names))})"


def node_text(node: Node, steps: Mapping[StepGraph, str] | None = None) -> str:
    """Return `name: type = op(operands)  attribute=value ...`.

    `steps` has the names of the steps of loops that are written out.
    """
    operands = ", ".join(map(name_text, node.inputs))
    parts = [f"{name_text(node.name)}: {node.type} = {word_of(type(node.op))}({operands})"]
    parts.extend(f"{key}={value}" for key, value in _attributes(node.op, node.type, steps))
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


def _attributes(
    op: Op, result: TensorType | None, steps: Mapping[StepGraph, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the attributes that must be written, given the type of the result."""
    unset, step = empty_values(type(op)), step_of(op)
    for key, value in attributes(op).items():
        implied = result is not None and _is_in_type(result, key, value)
        if implied or (key in unset and value == unset[key]):
            continue
        if op.is_constant and key == "data":
            yield key, array_text(value, attributes(op)["dtype"])
        elif step is not None and value is step:
            known = (steps or {}).get(step)
            yield key, counted(len(step.nodes), "node") if known is None else name_text(known)
        else:
            yield key, value_text(value)


def empty_values(cls: type[Op]) -> Mapping[str, bool | str | None]:
    """Return the attributes that are left out if they have these values, those of `EMPTY`."""
    fields = dataclasses.fields(cls)
    return {f.name: EMPTY[str(f.type)] for f in fields if str(f.type) in EMPTY}


def _is_in_type(type: TensorType, key: str, value: Any) -> bool:
    return key in FROM_TYPE and value == getattr(type, key)


_KINDS: dict[str, tuple[type, ...]] = {"f": (float, int), "b": (bool,)}
SHOWN = 16
"""Arrays of at most this many numbers are written as numbers, larger ones as compressed bytes."""


def value_text(value: Any) -> str:
    """Return the text of an attribute; raise GraphError for a value that text cannot hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, Batch)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bytes):
        return bytes_text(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(value_text, value))}{',' if len(value) == 1 else ''})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init and f.compare]
        inside = ", ".join(f"{name}={value_text(getattr(value, name))}" for name in fields)
        return f"{type(value).__name__}({inside})"
    raise GraphError(
        f"an attribute of type {type(value).__name__} cannot be written as text",
        hint="attributes are numbers, strings, None, tuples, bytes and frozen dataclasses of these",
    )


def bytes_text(data: bytes) -> str:
    """Return compressed bytes: `zlib"..."`."""
    return f'zlib"{base64.b64encode(zlib.compress(data, 6)).decode()}"'


def bytes_value(text: str) -> bytes:
    """Return the bytes that `bytes_text` wrote between the quotes.

    Raise ValueError if they are damaged.  A few letters can expand to any number of bytes: no more
    are made than the work budget allows.
    """
    stream, left = zlib.decompressobj(), bytes_left()
    try:
        packed = base64.b64decode(text, validate=True)
        data = stream.decompress(packed, 0 if left is None else left + 1)
    except zlib.error as error:
        raise ValueError(f"the compressed bytes are damaged ({error})") from None
    spend_bytes(len(data))
    if not stream.eof or stream.unused_data:
        raise ValueError("the compressed bytes are damaged (they do not end where they should)")
    return data


def array_text(data: bytes, dtype: str) -> str:
    """Return a small array as numbers, `[0.5, 1.0]`, if these give every bit; else as bytes.

    Those of bfloat16 are written as their bits.
    """
    array = np.frombuffer(data, numpy_dtype(dtype))
    if array.size <= SHOWN:
        numbers = [_number_text(number) for number in array]
        if _read_back(numbers, dtype) == data:
            return f"[{', '.join(numbers)}]"
    return bytes_text(data)


def array_value(numbers: list[Any], dtype: str) -> bytes:
    """Return the bytes of numbers; raise ValueError if one does not fit the dtype."""
    dtype = numpy_dtype(dtype)
    kinds = _KINDS.get(np.dtype(dtype).kind, (int,))
    try:
        if all(type(number) in kinds for number in numbers):
            return np.array(numbers, dtype).tobytes()
    except OverflowError:
        pass
    raise ValueError(f"the numbers do not fit {dtype}")


def _number_text(number: Any) -> str:
    if isinstance(number, (np.bool_, np.integer)):
        return repr(number.item())
    text = str(number)  # the shortest decimal that reads back in this dtype
    return text if set(text) & set(".einf") else f"{text}.0"


def _read_back(numbers: list[str], dtype: str) -> bytes:
    if dtype in ("float32", "float64"):
        return array_value([float(number) for number in numbers], dtype)
    return array_value([json.loads(number.lower()) for number in numbers], dtype)
