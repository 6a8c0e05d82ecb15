"""The same functions in PyTorch, and the table of what it gives.

python -m tests.images.by_torch > tests/images/table.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from tests.images.cases import CASES, Case, operands, seen, waves

Tensor = torch.Tensor

THEIRS: Mapping[str, Callable[..., Tensor]] = {
    "conv2d": F.conv2d,
    "conv2d stride 2, padding 1": lambda x, w: F.conv2d(x, w, stride=2, padding=1),
    "conv2d dilation 2, padding (2, 1)": lambda x, w: F.conv2d(x, w, dilation=2, padding=(2, 1)),
    "conv2d 2 groups": lambda x, w, b: F.conv2d(x, w, b, groups=2),
    "conv2d depthwise, stride (1, 2)": lambda x, w: F.conv2d(
        x, w, stride=(1, 2), padding=1, groups=4
    ),
    "conv2d uneven padding": lambda x, w: F.conv2d(F.pad(x, (1, 0, 0, 2)), w),
    "conv2d same": lambda x, w: F.conv2d(x, w, padding="same"),
    "conv1d": lambda x, w, b: F.conv1d(x, w, b, stride=2),
    "conv3d": lambda x, w: F.conv3d(x, w, padding=1),
    "conv_transpose2d": F.conv_transpose2d,
    "conv_transpose2d stride 2": lambda x, w: F.conv_transpose2d(
        x, w, stride=2, padding=1, output_padding=1
    ),
    "conv_transpose2d 2 groups, dilation 2": lambda x, w: F.conv_transpose2d(
        x, w, groups=2, dilation=2, padding=1
    ),
    "conv_transpose1d": lambda x, w, b: F.conv_transpose1d(x, w, b, stride=3),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool2d overlapping, padding 1, ceil": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max_pool2d dilation 2": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "avg_pool2d ceil": lambda x: F.avg_pool2d(x, 2, 2, 1, True, False),
    "avg_pool2d with padding": lambda x: F.avg_pool2d(x, 3, 2, 1, True, True),
    "avg_pool1d": lambda x: F.avg_pool1d(x, 3, 1),
    "global_avg_pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "global_max_pool": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "batchnorm": lambda x, gamma, beta: F.batch_norm(x, None, None, gamma, beta, True),
    "groupnorm": lambda x, gamma, beta: F.group_norm(x, 2, gamma, beta),
    "instancenorm": lambda x, gamma, beta: F.instance_norm(x, None, None, gamma, beta),
}


def results(name: str, case: Case) -> dict[str, Any]:
    """What tests compare: the value, its gradients, and gradients of the squares of these."""
    ins = [torch.tensor(array, requires_grad=True) for array in operands(case)]
    y = THEIRS[name](*ins)
    cotangent = torch.tensor(waves(tuple(y.shape), 0.7))
    bent = (torch.tanh(y) * cotangent).sum()
    first = torch.autograd.grad(bent, ins, create_graph=True)
    total = sum((part * part).sum() for part in first)
    second = torch.autograd.grad(total, ins, allow_unused=True)
    found = {"y": y, **{f"d{i}": part for i, part in enumerate(first)}}
    for i, (part, x) in enumerate(zip(second, ins, strict=True)):
        found[f"dd{i}"] = torch.zeros_like(x) if part is None else part
    return {key: value.detach().numpy() for key, value in found.items()}


def table() -> Iterator[str]:
    """The lines of the table."""
    version = torch.__version__.partition("+")[0]
    yield f'"""What PyTorch {version} gives for the cases, as `seen`: made by by_torch.py."""'
    yield "\nfrom __future__ import annotations\n"
    yield "TABLE: dict[str, dict[str, tuple[float, float]]] = {"
    for name, case in CASES.items():
        yield f'    "{name}": {{'
        for key, value in results(name, case).items():
            yield f'        "{key}": {seen(value)},'
        yield "    },"
    yield "}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in table())
