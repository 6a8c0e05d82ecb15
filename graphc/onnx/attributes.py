"""The attributes of ONNX nodes as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto

from graphc.base.errors import ModelFileError
from graphc.base.work import spend_elements
from graphc.onnx.read import array_of

if TYPE_CHECKING:
    from onnx import NodeProto


def attributes_of(node: NodeProto, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's attributes by name; references to a function's attributes read `given`."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in given:
                found[attribute.name] = given[attribute.ref_attr_name]
        else:
            found[attribute.name] = _value(attribute)
    return found


def _value(attribute: AttributeProto) -> Any:
    kind = attribute.type
    spend_elements(8 * (len(attribute.ints) + len(attribute.floats) + len(attribute.strings)))
    if kind == AttributeProto.FLOAT:
        return _number(attribute.f)
    if kind == AttributeProto.INT:
        return int(attribute.i)
    if kind == AttributeProto.STRING:
        return _text(attribute.s)
    if kind == AttributeProto.FLOATS:
        return tuple(map(_number, attribute.floats))
    if kind == AttributeProto.INTS:
        return tuple(map(int, attribute.ints))
    if kind == AttributeProto.STRINGS:
        return tuple(map(_text, attribute.strings))
    if kind == AttributeProto.TENSOR:
        spend_elements(prod(attribute.t.dims))
        return array_of(attribute.t)
    if kind == AttributeProto.GRAPH:
        return attribute.g
    return attribute  # of a kind that no converter reads


def _number(single: float) -> float:
    """Return the shortest decimal that rounds to the float32: 0.9 is read as 0.9."""
    return float(str(np.float32(single)))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ModelFileError("an attribute is not text") from None
