"""A call by PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from tests.ops.opinfo.call import Call, Results


def theirs(function: Callable[..., Any], call: Call) -> Results:
    """What PyTorch gives; without dd0, dd1, ... where it has no second order."""
    tensors = {
        i: torch.tensor(array, requires_grad=i in call.wrt) for i, array in enumerate(call.arrays)
    }
    args, kwargs = call.filled(tensors)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the other ones have no second order
        made = tree_leaves(function(*args, **kwargs))
    outs = [leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf) for leaf in made]
    found = {f"y{i}": y for i, y in enumerate(outs)}
    wrt = {i: tensors[i] for i in call.wrt}
    flows = {key: y for key, y in found.items() if y.requires_grad}
    if flows:
        first = _gradients(call, flows, wrt, "d")
        found |= first | _second(call, {k: g for k, g in first.items() if g.requires_grad}, wrt)
    return {key: value.numpy(force=True) for key, value in found.items()}


def _gradients(
    call: Call, values: dict[str, Any], wrt: dict[int, Any], prefix: str
) -> dict[str, Any]:
    total = sum(
        (value * torch.as_tensor(call.weights(f"weights_{what}", value.shape))).sum()
        for what, value in values.items()
    )
    found = torch.autograd.grad(total, list(wrt.values()), create_graph=True, allow_unused=True)
    return {
        f"{prefix}{i}": torch.zeros_like(x) if gradient is None else gradient
        for (i, x), gradient in zip(wrt.items(), found, strict=True)
    }


def _second(call: Call, first: dict[str, Any], wrt: dict[int, Any]) -> dict[str, Any]:
    """Zeros where the gradients are constant; nothing where there is no second order."""
    if not first:
        return {f"dd{i}": torch.zeros_like(x) for i, x in wrt.items()}
    try:
        return _gradients(call, first, wrt, "dd")
    except RuntimeError as error:
        if "not implemented" in str(error) or "not differentiable" in str(error):
            return {}
        raise
