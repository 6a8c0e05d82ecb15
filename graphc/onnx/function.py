"""The bodies of ops that a model, or ONNX itself, defines as functions of other ops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import FunctionProto, NodeProto, defs, helper

from graphc.onnx.call import Binding, Call, NotSupported, attributes_of, type_of


def body_of(
    node: NodeProto, call: Call, functions: Mapping[tuple[str, str], FunctionProto]
) -> FunctionProto | None:
    """Return the function that a node calls, or None if there is none."""
    return functions.get((node.domain, node.op_type)) or _from_onnx(node, call)


def defaults_of(node: NodeProto, call: Call, function: FunctionProto) -> dict[str, Any]:
    """Return the values of attributes that a call of a function may omit."""
    schema = schema_of(node.domain, node.op_type, call.version)
    declared = [] if schema is None else [a.default_value for a in schema.attributes.values()]
    given = [default for default in declared if default.name]
    return attributes_of(NodeProto(attribute=[*given, *function.attribute_proto]), {})


def has_function(domain: str, op: str, version: int) -> bool:
    """Return whether ONNX defines the op as a function of others."""
    schema = schema_of(domain, op, version)
    return schema is not None and bool(schema.has_function or schema.has_context_dependent_function)


def schema_of(domain: str, op: str, version: int) -> Any:
    """Return ONNX's declaration of an op, or None if it has none."""
    try:
        return defs.get_schema(op, version, domain)
    except defs.SchemaError:
        return None


def _from_onnx(node: NodeProto, call: Call) -> FunctionProto | None:
    schema = schema_of(node.domain, node.op_type, call.version)
    if schema is None:
        return None
    function = FunctionProto()
    if schema.has_function:
        versions = [v for v in schema.function_opset_versions if v <= call.version]
        data = schema.get_function_with_opset_version(versions[-1]) if versions else b""
    elif schema.has_context_dependent_function:
        versions = [
            v for v in schema.context_dependent_function_opset_versions if v <= call.version
        ]
        types = [_type_proto(operand) for operand in call.operands]
        if not versions:
            return None
        try:
            data = schema.get_context_dependent_function_with_opset_version(
                versions[-1], node.SerializeToString(), types
            )
        except (ValueError, RuntimeError) as error:  # operands that the function does not take
            raise NotSupported(str(error).partition("\n")[0]) from None
    else:
        return None
    function.ParseFromString(data)
    return function if function.node else None


def _type_proto(operand: Binding | None) -> bytes:
    if operand is None:
        return b""
    found = type_of(operand)
    try:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(found.dtype))
    except ValueError:
        raise NotSupported(f"ONNX has no {found.dtype}") from None
    sizes = [dim if isinstance(dim, int) else "N" for dim in found.shape]
    made: bytes = helper.make_tensor_type_proto(kind, sizes).SerializeToString()
    return made
