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
    wrt = {f"{i}": tensors[i] for i in call.wrt}
    flows = {key: y for key, y in found.items() if y.requires_grad}
    if flows:
        weights = {key: _weights(call, key, y).requires_grad_() for key, y in flows.items()}
        first = _gradients(flows, weights, wrt, "d")
        wrt |= {f"_{key}": weight for key, weight in weights.items()}
        found |= first | _second(call, first, wrt)
    return {key: value.numpy(force=True) for key, value in found.items()}


def _weights(call: Call, what: str, value: Any) -> Any:
    return torch.as_tensor(call.weights(f"weights_{what}", value.shape))


def _gradients(
    values: dict[str, Any], weights: dict[str, Any], wrt: dict[str, Any], prefix: str
) -> dict[str, Any]:
    total = sum((value * weights[key]).sum() for key, value in values.items())
    found = torch.autograd.grad(total, list(wrt.values()), create_graph=True, allow_unused=True)
    return {
        f"{prefix}{key}": torch.zeros_like(x) if gradient is None else gradient
        for (key, x), gradient in zip(wrt.items(), found, strict=True)
    }


def _second(call: Call, first: dict[str, Any], wrt: dict[str, Any]) -> dict[str, Any]:
    """Zeros where the gradients are constant; nothing where there is no second order."""
    moving = {key: gradient for key, gradient in first.items() if gradient.requires_grad}
    if not moving:
        return {f"dd{key}": torch.zeros_like(x) for key, x in wrt.items()}
    weights = {key: _weights(call, key, gradient) for key, gradient in moving.items()}
    try:
        return _gradients(moving, weights, wrt, "dd")
    except RuntimeError as error:
        if "not implemented" in str(error) or "not differentiable" in str(error):
            return {}
        raise
