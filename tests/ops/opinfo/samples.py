"""PyTorch's own samples of its operators, the OpInfos of torch.testing."""

from __future__ import annotations

import sys
import unittest
import warnings
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_map

from graphc.ir.op import Array
from tests.ops.opinfo.call import Call, Operand


@cache
def opinfos() -> dict[str, Any]:
    """By name, with the variant after a slash."""
    found: dict[str, Any] = {}
    for op in _op_db():
        name = f"{op.name}/{op.variant_test_name}" if op.variant_test_name else op.name
        assert name not in found
        found[name] = op
    return found


def _op_db() -> list[Any]:
    """torch.testing's list.

    It imports `expecttest`, which PyTorch's wheels do not bring and samples do not use.
    """
    if "expecttest" not in sys.modules:
        try:
            import expecttest  # noqa: F401
        except ImportError:
            stand_in = ModuleType("expecttest")
            stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
            sys.modules["expecttest"] = stand_in
    from torch.testing._internal.common_methods_invocations import op_db

    return list(op_db)


def calls(name: str) -> list[Call]:
    """The samples in float64, or in int64 where there are none; always the same numbers."""
    op = opinfos()[name]
    dtype = torch.float64 if torch.float64 in op.dtypes else torch.int64
    differentiable = op.supports_autograd and dtype == torch.float64
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(op.sample_inputs("cpu", dtype, requires_grad=differentiable))
    return [_call(f"{name} {number}", sample) for number, sample in enumerate(samples)]


def _call(label: str, sample: Any) -> Call:
    tensors: list[Any] = []
    numbers: dict[int, int] = {}

    def operand(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in numbers:
            numbers[id(leaf)] = len(tensors)
            tensors.append(leaf)
        return Operand(numbers[id(leaf)])

    args, kwargs = tree_map(operand, ((sample.input, *sample.args), sample.kwargs))
    arrays: list[Array] = [tensor.numpy(force=True) for tensor in tensors]
    wrt = tuple(i for i, tensor in enumerate(tensors) if tensor.requires_grad)
    return Call(label, args, kwargs, tuple(arrays), wrt)
