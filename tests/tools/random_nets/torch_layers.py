"""What layers and losses mean, in PyTorch.  `p(name)` gives a layer's own parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .torch_elements import tensor


def affine(
    c: Any,
    x: Tensor,
    units: int | None = None,
    weight: Tensor | None = None,
    bias: Any = True,
    axis: int | None = None,
    name: str = "",
) -> Tensor:
    x = x if axis == -1 else x.reshape(x.shape[0], math.prod(x.shape[1:]))
    x = x @ (c.parameter(f"{name}.weight") if weight is None else weight)
    return x + c.parameter(f"{name}.bias") if bias is True else x


def normal(c: Any, x: Tensor, axes: Any, eps: float) -> Tensor:
    """Return x with mean 0 and variance 1 over axes."""
    return over_size(c, c.watched(x - c.watched(x.mean(axes, keepdim=True))), axes, eps)


def over_size(c: Any, x: Tensor, axes: Any, eps: float) -> Tensor:
    """Return x over the root of its mean square; what may cancel has noise of its own."""
    return c.watched(x / c.watched(((x * x).mean(axes, keepdim=True) + eps).sqrt()))  # type: ignore[no-any-return]


def channels(x: Tensor, *values: Tensor) -> list[Tensor]:
    """Return values of each channel so that they broadcast with x (N, c, ...)."""
    return [v.reshape(1, -1, *[1] * (x.ndim - 2)) for v in values]


def scaled(c: Any, x: Tensor, name: str) -> Tensor:
    gamma, beta = channels(x, c.parameter(f"{name}.gamma"), c.parameter(f"{name}.beta"))
    return x * gamma + beta


def batchnorm(
    c: Any,
    x: Tensor,
    eps: float = 1e-5,
    running_decay: float = 0.9,
    frozen: bool = False,
    name: str = "",
) -> Tensor:
    axes = (0, *range(2, x.ndim))
    if frozen or not c.train:
        mean, var = channels(x, *(c.states[f"{name}.running_{key}"] for key in ("mean", "var")))
        return scaled(c, (x - mean) / (var + eps).sqrt(), name)
    for key, now in (("mean", x.mean(axes)), ("var", x.var(axes, correction=0))):
        old = c.states[f"{name}.running_{key}"]
        c.next[f"{name}.running_{key}"] = running_decay * old + (1 - running_decay) * now.detach()
    return scaled(c, normal(c, x, axes, eps), name)


def groupnorm(c: Any, x: Tensor, groups: int, eps: float = 1e-5, name: str = "") -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1)
    return scaled(c, normal(c, parts, (2,), eps).reshape(x.shape), name)


def instancenorm(c: Any, x: Tensor, eps: float = 1e-5, name: str = "") -> Tensor:
    return scaled(c, normal(c, x, tuple(range(2, x.ndim)), eps), name)


def layernorm(c: Any, x: Tensor, eps: float = 1e-5, name: str = "") -> Tensor:
    return normal(c, x, (-1,), eps) * c.parameter(f"{name}.gamma") + c.parameter(f"{name}.beta")


def rmsnorm(c: Any, x: Tensor, eps: float = 1e-5, name: str = "") -> Tensor:
    return over_size(c, x, (-1,), eps) * c.parameter(f"{name}.gamma")


def dropout(
    c: Any, x: Tensor, keep_prob: float | None = None, drop_prob: float = 0.0, name: str = ""
) -> Tensor:
    keep = 1 - drop_prob if keep_prob is None else keep_prob
    return x * c.mask(name) / keep if c.train else x


def prelu(c: Any, x: Tensor, name: str = "") -> Tensor:
    (slope,) = channels(x, c.parameter(f"{name}.slope"))
    return torch.where(x > 0, x, slope * x)


def embedding(
    c: Any,
    ids: Tensor,
    count: int | None = None,
    width: int | None = None,
    weight: Tensor | None = None,
    dtype: str = "",
    name: str = "",
) -> Tensor:
    rows = c.parameter(f"{name}.weight") if weight is None else weight
    return rows[ids]


def mlp(
    c: Any, x: Tensor, hidden: list[int], units: int, batchnorm: bool = False, name: str = ""
) -> Tensor:
    names = [
        [n.rpartition(".")[0] for n in c.leaves if n.startswith(f"{kind}_") and n.endswith(end)]
        for kind, end in (("affine", ".weight"), ("batchnorm", ".gamma"))
    ]
    for i in range(len(hidden)):
        x = c.watched(affine(c, x, name=names[0][i]))
        x = torch.relu(norm(c, x, name=names[1][i]) if batchnorm else x)
    return affine(c, x, name=name)


norm = batchnorm


def standardize(c: Any, x: Tensor, name: str = "") -> Tensor:
    return (x - c.states[f"{name}.mean"]) / c.states[f"{name}.scale"]


# Sequences.


def attention(
    c: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = scores if mask is None else scores + mask
    if causal:
        seen = torch.ones(scores.shape[-2:]).tril().bool()
        scores = scores.masked_fill(~seen, -torch.inf)
    return c.watched(torch.softmax(c.watched(scores), -1)) @ v  # type: ignore[no-any-return]


def multi_head_attention(
    c: Any,
    x: Tensor,
    heads: int,
    context: Tensor | None = None,
    causal: bool = False,
    bias: bool = True,
    name: str = "",
) -> Tensor:
    other = x if context is None else context

    def part(source: Tensor, key: str) -> Tensor:
        whole = c.watched(affine(c, source, axis=-1, bias=bias, name=f"{name}.{key}"))
        return whole.reshape(*whole.shape[:-1], heads, -1).transpose(1, 2)

    found = attention(c, part(x, "q"), part(other, "k"), part(other, "v"), causal=causal)
    found = found.transpose(1, 2).reshape(x.shape)
    return affine(c, found, axis=-1, bias=bias, name=name)


def angles(x: Tensor) -> Tensor:
    places = torch.arange(x.shape[-2]).double()[:, None]
    pairs = torch.arange(x.shape[-1] // 2).double()
    return places / 10000 ** (2 * pairs / x.shape[-1])


def sinusoidal_positions(c: Any, x: Tensor) -> Tensor:
    turned = angles(x)
    return x + torch.stack([turned.sin(), turned.cos()], -1).reshape(x.shape[-2:])


def rotary_positions(c: Any, x: Tensor) -> Tensor:
    sin, cos = angles(x).sin(), angles(x).cos()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def learned_positions(c: Any, x: Tensor, name: str = "") -> Tensor:
    return x + c.parameter(f"{name}.weight")


def rnn_cell(
    c: Any,
    x: Tensor,
    h: Tensor,
    wi: Tensor,
    wh: Tensor,
    bi: Any = 0.0,
    bh: Any = 0.0,
    activation: str = "tanh",
) -> Tensor:
    return c.bent(getattr(torch, activation), x @ wi + bi + h @ wh + bh)  # type: ignore[no-any-return]


def gru_cell(
    c: Any,
    x: Tensor,
    h: Tensor,
    wi: Tensor,
    wh: Tensor,
    bi: Any = 0.0,
    bh: Any = 0.0,
    reset_after: bool = True,
) -> Tensor:
    width = h.shape[-1]
    r, z, n = (x @ wi + bi).split(width, -1)
    other = h @ wh + bh
    r = c.bent(torch.sigmoid, r + other[:, :width])
    z = c.bent(torch.sigmoid, z + other[:, width : 2 * width])
    if reset_after:
        n = c.bent(torch.tanh, n + r * other[:, 2 * width :])
    else:
        rest = bh[2 * width :] if isinstance(bh, Tensor) else bh
        n = c.bent(torch.tanh, n + (r * h) @ wh[:, 2 * width :] + rest)
    return (1 - z) * n + z * h


def lstm_cell(
    c: Any, x: Tensor, h: Tensor, s: Tensor, wi: Tensor, wh: Tensor, bi: Any = 0.0, bh: Any = 0.0
) -> tuple[Tensor, Tensor]:
    i, f, g, o = (x @ wi + bi + h @ wh + bh).chunk(4, -1)
    i, f, o = (c.bent(torch.sigmoid, gate) for gate in (i, f, o))
    s = f * s + i * c.bent(torch.tanh, g)
    return o * c.bent(torch.tanh, s), s


def recurrent(cell: Callable[..., Any], states: int) -> Callable[..., Any]:
    def one_way(
        c: Any,
        x: Tensor,
        width: int,
        name: str,
        initial: Any,
        reverse: bool,
        bias: bool,
        options: Any,
    ) -> Any:
        keys = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if bias else [])
        weights = [c.parameter(f"{name}.{key}") for key in keys]
        state = initial or [torch.zeros(len(x), width).double()] * states
        found = []
        for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
            state = cell(c, x[:, t], *state, *weights, **options)
            state = list(state) if isinstance(state, tuple) else [state]
            found.append(state[0])
        return torch.stack(found[::-1] if reverse else found, 1), state

    def meaning(
        c: Any,
        x: Tensor,
        width: int,
        initial: Any = None,
        bias: bool = True,
        reverse: bool = False,
        bidirectional: bool = False,
        name: str = "",
        **options: Any,
    ) -> Any:
        initial = [initial] if isinstance(initial, Tensor) else initial
        all_, last = one_way(c, x, width, name, initial, reverse, bias, options)
        if bidirectional:
            others, other = one_way(c, x, width, f"{name}.reverse", initial, True, bias, options)
            all_ = torch.cat([all_, others], -1)
            last = [torch.cat([a, b], -1) for a, b in zip(last, other, strict=True)]
        return [all_, *last]

    return meaning


# Images.


def places(value: Any, space: int) -> list[int]:
    return [value] * space if isinstance(value, int) else list(value)


def pairs_of(padding: Any, space: int) -> list[tuple[int, int]]:
    if isinstance(padding, int):
        return [(padding, padding)] * space
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def flat_pairs(pairs: Any) -> list[int]:
    return [n for pair in reversed(pairs) for n in pair]


def conv(
    c: Any,
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    space = x.ndim - 2
    if padding == "same":
        padding = []
        for size, kernel, step in zip(x.shape[2:], w.shape[2:], places(stride, space), strict=True):
            more = max(0, (math.ceil(size / step) - 1) * step + kernel - size)
            padding.append((more // 2, more - more // 2))
    x = F.pad(x, flat_pairs(pairs_of(padding, space)))
    function = (F.conv1d, F.conv2d, F.conv3d)[space - 1]
    return function(x, w, b, stride=stride, dilation=dilation, groups=groups)


def conv_trained(
    c: Any, x: Tensor, channels: int, kernel: int, bias: bool = True, name: str = "", **options: Any
) -> Tensor:
    b = c.parameter(f"{name}.bias") if bias else None
    return conv(c, x, c.parameter(f"{name}.weight"), b, **options)


def conv_transpose(c: Any, x: Tensor, w: Tensor, b: Tensor | None = None, **options: Any) -> Tensor:
    function = (F.conv_transpose1d, F.conv_transpose2d)[x.ndim - 3]
    return function(x, w, b, **options)  # type: ignore[operator, no-any-return]


def conv_transpose_trained(
    c: Any, x: Tensor, channels: int, kernel: int, bias: bool = True, name: str = "", **options: Any
) -> Tensor:
    b = c.parameter(f"{name}.bias") if bias else None
    return conv_transpose(c, x, c.parameter(f"{name}.weight"), b, **options)


def windows(
    x: Tensor, kernel: int, stride: Any, padding: Any, dilation: int, ceil: bool, value: float
) -> tuple[Tensor, Tensor]:
    """Return the entries of each window along a new last axis, and which of them are padding.

    1 marks what is within the padding's reach, 2 what `ceil` adds beyond it.
    """
    space, stride = x.ndim - 2, kernel if stride is None else stride
    pairs = pairs_of(padding, space)
    reach = dilation * (kernel - 1) + 1
    more = []
    for size, (before, after) in zip(x.shape[2:], pairs, strict=True):
        room = size + before + after - reach
        steps = math.ceil(room / stride) if ceil else room // stride
        if ceil and steps * stride >= size + before:
            steps -= 1
        more.append(max(0, steps * stride - room))
    kinds = F.pad(torch.zeros(x.shape[2:]), flat_pairs(pairs), value=1)
    kinds = F.pad(kinds, flat_pairs([(0, m) for m in more]), value=2)
    x = F.pad(
        x, flat_pairs([(a, b + m) for (a, b), m in zip(pairs, more, strict=True)]), value=value
    )
    kinds = kinds.expand(x.shape)
    for axis in range(2, 2 + space):
        x = x.unfold(axis, reach, stride)[..., ::dilation]
        kinds = kinds.unfold(axis, reach, stride)[..., ::dilation]
    return x.flatten(2 + space), kinds.flatten(2 + space)


def max_pool(
    c: Any,
    x: Tensor,
    kernel: int,
    stride: Any = None,
    padding: Any = 0,
    dilation: int = 1,
    ceil: bool = False,
) -> Tensor:
    return windows(x, kernel, stride, padding, dilation, ceil, -torch.inf)[0].max(-1).values


def avg_pool(
    c: Any,
    x: Tensor,
    kernel: int,
    stride: Any = None,
    padding: Any = 0,
    dilation: int = 1,
    ceil: bool = False,
    count_include_pad: bool = False,
) -> Tensor:
    found, kinds = windows(x, kernel, stride, padding, dilation, ceil, 0.0)
    return found.sum(-1) / (kinds < (2 if count_include_pad else 1)).sum(-1)


def adaptive_avg_pool(c: Any, x: Tensor, size: Any) -> Tensor:
    return F.adaptive_avg_pool2d(x, size)


# Losses.


def lost(each: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Reduce the losses of rows, and weigh them."""
    if weight is not None:
        each = each * weight
    if reduction == "mean":
        return each.mean() if weight is None else each.sum() / weight.sum()
    return each.sum() if reduction == "sum" else each


def rowwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a loss, the mean over what a row has, from the loss of each number."""

    def meaning(
        c: Any,
        a: Tensor,
        b: Tensor,
        *args: Any,
        weight: Any = None,
        reduction: str = "mean",
        **options: Any,
    ) -> Tensor:
        each = function(a, b, *args, **options)
        return lost(each.reshape(len(each), -1).mean(1), weight, reduction)

    return meaning


def nll_loss(
    c: Any,
    logs: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    class_weight: Any = None,
    ignore: int | None = None,
    smooth: float = 0.0,
) -> Tensor:
    count = logs.shape[1]
    counted = torch.ones(labels.shape).double() if weight is None else weight
    known = labels
    if ignore is not None:
        counted = counted * (labels != ignore)
        known = torch.where(labels == ignore, 0, labels)
    of_class = torch.ones(count).double() if class_weight is None else tensor(class_weight)
    each = -((1 - smooth) * logs.gather(1, known[:, None])[:, 0] * of_class[known])
    if smooth:
        each = each - smooth / count * (logs * channels(logs, of_class)[0]).sum(1)
    each = c.watched(each * counted)
    if reduction == "mean":
        return each.sum() / c.watched((counted * of_class[known]).sum())  # type: ignore[no-any-return]
    return each.sum() if reduction == "sum" else each


def softmax_loss(
    c: Any, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0, **options: Any
) -> Tensor:
    logs = torch.log_softmax(scores, 1)
    if not labels.is_floating_point():
        return nll_loss(c, logs, labels, smooth=label_smoothing, **options)
    target = (1 - label_smoothing) * labels + label_smoothing / scores.shape[1]
    each = -(target * logs).sum(1)
    return lost(each, options.get("weight"), options.get("reduction", "mean"))


def svm_loss(
    c: Any, scores: Tensor, labels: Tensor, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    right = scores.gather(1, labels[:, None])
    margins = torch.relu(scores - right + 1)
    margins = margins * (torch.arange(scores.shape[1]) != labels[:, None])
    return lost(margins.sum(1), weight, reduction)


def sigmoid_each(x: Tensor, t: Tensor, pos_weight: Any = 1.0) -> Tensor:
    return tensor(pos_weight) * t * F.softplus(-x) + (1 - t) * F.softplus(x)


def hinge_each(x: Tensor, t: Tensor, squared: bool = False) -> Tensor:
    margin = torch.relu(1 - t * x)
    return margin * margin if squared else margin


def huber_each(a: Tensor, b: Tensor, delta: float = 1.0) -> Tensor:
    return F.huber_loss(a, b, reduction="none", delta=delta)


def log_cosh_each(a: Tensor, b: Tensor) -> Tensor:
    error = (a - b).abs()
    return error + F.softplus(-2 * error) - math.log(2)


def kl_loss(
    c: Any, logs: Tensor, target: Tensor, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    each = torch.where(target > 0, target * (target.log() - logs), 0 * logs)
    return lost(each.reshape(len(each), -1).sum(1), weight, reduction)


def cosine(c: Any, a: Tensor, b: Tensor, axis: int = -1, eps: float = 1e-8) -> Tensor:
    norms = [c.watched(v.norm(dim=axis).clamp(min=eps)) for v in (a, b)]
    return (a * b).sum(axis) / (norms[0] * norms[1])


def cosine_loss(
    c: Any,
    a: Tensor,
    b: Tensor,
    target: Tensor,
    margin: float = 0.0,
    weight: Any = None,
    reduction: str = "mean",
) -> Tensor:
    found = cosine(c, a, b)
    return lost(torch.where(target > 0, 1 - found, torch.relu(found - margin)), weight, reduction)


def accuracy(c: Any, scores: Tensor, labels: Tensor) -> Tensor:
    best = torch.as_tensor(np.argmax(scores.detach().numpy(), axis=1))
    return (best == labels).double().mean()


MEANINGS: dict[str, Callable[..., Any]] = {
    "gc.affine": affine,
    "gc.batchnorm": batchnorm,
    "gc.groupnorm": groupnorm,
    "gc.instancenorm": instancenorm,
    "gc.layernorm": layernorm,
    "gc.rmsnorm": rmsnorm,
    "gc.dropout": dropout,
    "gc.prelu": prelu,
    "gc.embedding": embedding,
    "gc.mlp": mlp,
    "gc.standardize": standardize,
    "gc.attention": attention,
    "gc.multi_head_attention": multi_head_attention,
    "gc.sinusoidal_positions": sinusoidal_positions,
    "gc.rotary_positions": rotary_positions,
    "gc.learned_positions": learned_positions,
    "gc.rnn": recurrent(rnn_cell, 1),
    "gc.gru": recurrent(gru_cell, 1),
    "gc.lstm": recurrent(lstm_cell, 2),
    "gc.rnn_cell": rnn_cell,
    "gc.gru_cell": gru_cell,
    "gc.lstm_cell": lstm_cell,
    "gc.conv": conv,
    **{f"gc.conv{space}d": conv_trained for space in (1, 2, 3)},
    "gc.conv_transpose": conv_transpose,
    **{f"gc.conv_transpose{space}d": conv_transpose_trained for space in (1, 2)},
    "gc.max_pool": max_pool,
    "gc.avg_pool": avg_pool,
    "gc.adaptive_avg_pool": adaptive_avg_pool,
    "gc.global_avg_pool": lambda c, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "gc.global_max_pool": lambda c, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "gc.softmax_loss": softmax_loss,
    "gc.nll_loss": nll_loss,
    "gc.svm_loss": svm_loss,
    "gc.sigmoid_loss": rowwise(sigmoid_each),
    "gc.mse_loss": rowwise(lambda a, b: (a - b) ** 2),
    "gc.mae_loss": rowwise(lambda a, b: (a - b).abs()),
    "gc.huber_loss": rowwise(huber_each),
    "gc.log_cosh_loss": rowwise(log_cosh_each),
    "gc.poisson_loss": rowwise(lambda a, b: a.exp() - b * a),
    "gc.hinge_loss": rowwise(hinge_each),
    "gc.kl_loss": kl_loss,
    "gc.cosine_loss": cosine_loss,
    "gc.cosine_similarity": cosine,
    "gc.accuracy": accuracy,
    "gc.mean_absolute_error": lambda c, a, b: (a - b).abs().mean(),
}
