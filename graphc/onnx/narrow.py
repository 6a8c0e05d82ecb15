"""Values of BFLOAT16 in ONNX: they are held in float32, and rounded once where they are made."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, defs

from graphc.features.precision.bfloat16 import nearest
from graphc.ir.build import Value
from graphc.ir.op import Op
from graphc.onnx.call import Binding, Call
from graphc.onnx.function import schema_of
from graphc.ops.rounding import RoundBfloat16
from graphc.ops.shape import Cast

NARROW = TensorProto.BFLOAT16


def declared_narrow(graph: GraphProto) -> Iterator[str]:
    """Yield the inputs and initializers of a graph that are of BFLOAT16."""
    yield from (x.name for x in graph.input if x.type.tensor_type.elem_type == NARROW)
    yield from (tensor.name for tensor in graph.initializer if tensor.data_type == NARROW)


def narrow_inside(node: NodeProto, call: Call) -> Iterator[str]:
    """Yield the results of a node that are results of BFLOAT16 of the graphs inside it."""
    for body in call.attributes.values():
        if isinstance(body, GraphProto):
            last = zip(reversed(node.output), reversed(body.output), strict=False)
            yield from (name for name, x in last if x.type.tensor_type.elem_type == NARROW)


def narrow_results(node: NodeProto, call: Call) -> Iterator[str]:
    """Yield the results of BFLOAT16 of an op, by its attributes or its operands."""
    given = call.attributes
    dtypes = [given[name] for name in ("to", "dtype", "output_dtype") if given.get(name)]
    if isinstance(given.get("value"), np.ndarray):
        dtypes += [a.t.data_type for a in node.attribute if a.name == "value"]
    if dtypes:
        yield from node.output if NARROW in dtypes else ()
        return
    schema = schema_of(node.domain, node.op_type, call.version) if any(call.narrow) else None
    if schema is None:
        return
    kinds = _kinds(schema.inputs, len(call.narrow))
    narrow = {kind for kind, is_narrow in zip(kinds, call.narrow, strict=True) if is_narrow}
    for name, kind in zip(node.output, _kinds(schema.outputs, len(node.output)), strict=True):
        of_entries = kind not in kinds and {kind, *narrow} == {"S", "T"}
        if kind in narrow or of_entries:  # a sequence is of the kind S, its entries are of T
            yield name


def _kinds(formals: list[defs.OpSchema.FormalParameter], count: int) -> list[str]:
    """Return the type variables of operands or results, of which the last one may repeat."""
    kinds = [str(formal.type_str) for formal in formals]
    return [*kinds, *kinds[-1:] * (count - len(kinds))][:count]


def held(result: Binding | None, ops: Collection[Op]) -> Binding | None:
    """Return a result of BFLOAT16 as it is held: rounded, unless all ops that made it are exact."""
    if isinstance(result, np.ndarray) and result.dtype.kind == "f":
        return nearest(result)
    if not isinstance(result, Value) or result.dtype != "float32":
        return result
    exact = ops and all(op.is_exact and op.roles and not isinstance(op, Cast) for op in ops)
    if isinstance(result.node.op, RoundBfloat16) or (exact and not any(op.is_random for op in ops)):
        return result
    return result.builder.apply(RoundBfloat16(), result)
