"""What PyTorch gives for the stored calls.

    python -m tests.ops.opinfo.by_torch > tests/ops/opinfo/stored.json

writes it, each array as `seen`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from tests.images.cases import seen
from tests.ops.opinfo.samples import opinfos
from tests.ops.opinfo.stored import STORED
from tests.ops.opinfo.theirs import theirs

Tensor = torch.Tensor


def _recurrent(kind: str, both: bool = False) -> Callable[..., Any]:
    """torch.lstm and its like, with graphc's weights (in, out)."""

    def layer(x: Tensor, *rest: Tensor) -> list[Tensor]:
        states = 0 if both else 2 if kind == "lstm" else 1
        start = [h[None] for h in rest[:states]] or [x.new_zeros(2, len(x), 3)] * (
            2 if kind == "lstm" else 1
        )
        weights = [w.T if w.ndim == 2 else w for w in rest[states:]]
        initial: Any = start if kind == "lstm" else start[0]
        function = getattr(torch, kind)
        y, *last = function(x, initial, weights, True, 1, 0.0, False, both, True)
        return [y, *(torch.cat(list(h), dim=1) for h in last)]

    return layer


def _cell(kind: str) -> Callable[..., Any]:
    def cell(x: Tensor, h: Tensor, *rest: Tensor) -> Any:
        *more, w, u, b, c = rest
        function = getattr(torch, kind)
        return function(x, (h, *more) if more else h, w.T, u.T, b, c)

    return cell


def _attention(x: Tensor, *made: Tensor) -> Tensor:
    q, k, v = (
        F.linear(x, w.T, b).unflatten(-1, (2, -1)).transpose(1, 2)
        for w, b in zip(made[:6:2], made[1:6:2], strict=True)
    )
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(mixed.transpose(1, 2).flatten(2), made[6].T, made[7])


def _angles(x: Tensor) -> Tensor:
    steps, width = x.shape[-2:]
    powers = 10000 ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    return torch.arange(steps, dtype=x.dtype)[:, None] * powers


def _sinusoidal(x: Tensor) -> Tensor:
    angles = _angles(x)
    return x + torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def _rotary(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    sin, cos = _angles(x).sin(), _angles(x).cos()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _sums_after(x: Tensor) -> Tensor:
    return x.flip(1).cumsum(1).flip(1) - x


def _products_after(x: Tensor) -> Tensor:
    ones = torch.ones_like(x[:, :1])
    return torch.cat([ones, x.flip(1)[:, :-1]], 1).cumprod(1).flip(1)


LAYERS: Mapping[str, Callable[..., Any]] = {
    "affine": lambda x, w, b: F.linear(x.flatten(1), w.T, b),
    "conv1d": lambda x, w, b: F.conv1d(x, w, b, 2),
    "conv2d": lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2),
    "conv3d": F.conv3d,
    "conv_transpose1d": lambda x, w, b: F.conv_transpose1d(x, w, b, 2),
    "conv_transpose2d": lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1),
    "batchnorm": lambda x, g, b: F.batch_norm(x, None, None, g, b, True),
    "layernorm": lambda x, g, b: F.layer_norm(x, x.shape[-1:], g, b),
    "rmsnorm": lambda x, g: F.rms_norm(x, x.shape[-1:], g, 1e-5),
    "groupnorm": lambda x, g, b: F.group_norm(x, 2, g, b),
    "instancenorm": lambda x, g, b: F.instance_norm(x, None, None, g, b),
    "prelu": F.prelu,
    "embedding": F.embedding,
    "multi_head_attention": _attention,
    "learned_positions": torch.add,
    "sinusoidal_positions": _sinusoidal,
    "rotary_positions": _rotary,
    "rnn": _recurrent("rnn_tanh"),
    "rnn relu": _recurrent("rnn_relu"),
    "gru": _recurrent("gru"),
    "lstm": _recurrent("lstm"),
    "rnn both ways": _recurrent("rnn_tanh", both=True),
    "gru both ways": _recurrent("gru", both=True),
    "lstm both ways": _recurrent("lstm", both=True),
    "rnn_cell": _cell("rnn_tanh_cell"),
    "gru_cell": _cell("gru_cell"),
    "lstm_cell": _cell("lstm_cell"),
    "hard_sigmoid": lambda x: F.relu6(x + 3) / 6,
    "hinge_loss": lambda x, y: torch.relu(1 - x * y).mean(),
    "hinge_loss squared": lambda x, y: torch.relu(1 - x * y).square().mean(),
    "log_cosh_loss": lambda x, y: (x - y).cosh().log().mean(),
    "sigmoid_loss": lambda x, y: F.binary_cross_entropy_with_logits(
        x, y, pos_weight=torch.tensor([0.5, 2.0, 3.0], dtype=x.dtype)
    ),
    "weighted mse_loss": lambda x, y, w: ((x - y).square().mean(1) * w).sum() / w.sum(),
    "sum_squares": lambda x: x.square().sum(1),
    "gather_nd": lambda x, i: x[tuple(i.unbind(-1))],
    "pick": lambda x, i: x.gather(1, i[:, None])[:, 0],
    "accuracy": lambda x, y: (x.argmax(1) == y).double().mean(),
    "mean_absolute_error": lambda x, y: (x - y).abs().mean(),
    "cumsum": _sums_after,
    "cumprod": _products_after,
    "floor_div": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "trunc_div": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "stop_gradient": lambda x: x.detach() * x,
}


def function_of(name: str) -> Callable[..., Any]:
    """PyTorch's function of a stored call."""
    kind, _, layer = name.partition(" ")
    return LAYERS[layer] if kind == "graphc" else opinfos()[name]


def main() -> None:
    """Print the table."""
    table = {}
    for label, stored in STORED.items():
        found = theirs(function_of(stored.name), stored.call)
        assert all(math.isfinite(n) for array in found.values() for n in seen(array)), label
        table[label] = {
            key: [float(f"{n:.13g}") for n in seen(array)] for key, array in found.items()
        }
    lines = (f"{json.dumps(label)}: {json.dumps(row)}" for label, row in table.items())
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
