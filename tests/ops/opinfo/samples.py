"""PyTorch's own samples of its operators, the OpInfos of torch.testing."""

from __future__ import annotations

import sys
import unittest
import warnings
from functools import cache
from types import ModuleType
from typing import Any

import torch


def _op_db() -> list[Any]:
    """torch.testing's list.

    It imports `expecttest`, which PyTorch's wheels do not bring and these samples do not use.
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


@cache
def opinfos() -> dict[str, Any]:
    """By name, with the variant after a slash."""
    found: dict[str, Any] = {}
    for op in _op_db():
        name = f"{op.name}/{op.variant_test_name}" if op.variant_test_name else op.name
        assert name not in found
        found[name] = op
    return found


def samples(name: str) -> list[Any]:
    """The samples in float64, or in int64 where there are none; always the same numbers."""
    op = opinfos()[name]
    dtype = torch.float64 if torch.float64 in op.dtypes else torch.int64
    differentiable = op.supports_autograd and dtype == torch.float64
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(op.sample_inputs("cpu", dtype, requires_grad=differentiable))
