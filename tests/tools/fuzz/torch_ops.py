"""Ops and layers in PyTorch: an independent translation, each in torch's own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.ops.activations import (
    Celu,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    PRelu,
    Selu,
    Shrink,
    Silu,
    Softsign,
    ThresholdedRelu,
)
from graphc.ops.argmax import Argmax, Argmin
from graphc.ops.arithmetic import Ceil, Floor, FloorDiv, Fmod, Mod, Pow, Round, TruncDiv
from graphc.ops.attention import CausalSoftmax
from graphc.ops.autodiff import Gradient
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.cumulative import Cumsum
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.elementwise import Add, Called, Div, Mul, Neg, Power, Sub
from graphc.ops.functions import (
    Abs,
    Erf,
    Exp,
    Expm1,
    Log,
    Log1p,
    LogSoftmax,
    Sigmoid,
    Sign,
    Softmax,
    Softplus,
    Sqrt,
    Tanh,
)
from graphc.ops.gather import Embedding, Gather
from graphc.ops.index import OneHot, Pick
from graphc.ops.index_tuples import FlatIndex
from graphc.ops.linalg import AffineLayer, MatMul
from graphc.ops.logic import And, Not, Or, Xor
from graphc.ops.loops.op import Scan
from graphc.ops.losses.base import RowLoss
from graphc.ops.losses.classes import NllLoss, SoftmaxLoss, SoftNllLoss, SvmLoss, WeightedNllLoss
from graphc.ops.losses.elements import (
    HingeLoss,
    HuberLoss,
    LogCoshLoss,
    MaeLoss,
    MseLoss,
    PoissonLoss,
    SigmoidLoss,
)
from graphc.ops.losses.rows import CosineLoss, KlLoss
from graphc.ops.norm import BatchNorm
from graphc.ops.pad import Pad
from graphc.ops.pool_layer import AvgPoolLayer, GlobalAvgPool, MaxPoolLayer, PoolLayer
from graphc.ops.random_numbers import Noise
from graphc.ops.reduce import Max, Mean, Min
from graphc.ops.row_norm import GroupNorm, LayerNorm, RmsNorm, Standardize
from graphc.ops.scatter import GatherElements, ScatterElements
from graphc.ops.select import (
    Clip,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Maximum,
    Minimum,
    NotEqual,
    Relu,
    Where,
)
from graphc.ops.shape import Cast, Reshape, StopGradient, Transpose
from graphc.ops.slicing import Concat, Slice
from graphc.ops.sorting import TopK
from graphc.ops.source import Constant
from graphc.ops.sums import BroadcastTo, Sum

Tensor = torch.Tensor
Rule = Callable[[Any, Sequence[Tensor], bool], Tensor]
"""rule(op, operands, train): the op is concrete, floats are float64."""


def _affine(op: AffineLayer, ins: Sequence[Tensor], train: bool) -> Tensor:
    x = ins[0] if op.last_axis else ins[0].flatten(1)
    return F.linear(x, ins[1].T, ins[2] if len(ins) == 3 else None)


def _batchnorm(op: BatchNorm, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, gamma, beta, mean, var = ins
    if not train or op.frozen:
        return F.batch_norm(x, mean, var, gamma, beta, False, eps=op.eps)
    if x.numel() == x.shape[1]:  # one number a feature: torch refuses, its own mean is left of it
        return x * 0 + beta.reshape(1, -1, *[1] * (x.ndim - 2)) + 0 * gamma.sum()
    return F.batch_norm(x, None, None, gamma, beta, True, eps=op.eps)


def _groupnorm(op: GroupNorm, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, gamma, beta = ins
    if x.shape[1:].numel() == op.groups:  # one number a group: as of batchnorm
        return x * 0 + beta.reshape(1, -1, *[1] * (x.ndim - 2)) + 0 * gamma.sum()
    return F.group_norm(x, op.groups, gamma, beta, op.eps)


def _dropout(op: Dropout, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, seed, draws = ins
    if not train:
        return x
    mask = DropoutMask(tuple(x.shape), "float64", op.keep_prob, op.stream)
    return x * torch.as_tensor(mask.reference([seed.numpy(), draws.numpy()]))


def _noise(op: Noise, ins: Sequence[Tensor], train: bool) -> Tensor:
    drawn = op.drawn.reference([key.numpy() for key in ins[1:]])
    return torch.as_tensor(drawn if train else np.full_like(drawn, op.drawn.mean)).double()


def _row_loss(op: RowLoss, ins: Sequence[Tensor], train: bool) -> Tensor:
    own = ins[: op.operands]
    rows = _labelled_rows(op, own) if isinstance(op, NllLoss) else _rows(op, own)
    weight = ins[-1] if len(ins) > op.operands else torch.ones_like(rows)
    if op.reduction == "none":
        return rows * weight
    total = torch.dot(rows, weight)
    if isinstance(op, NllLoss):
        weight = weight * _counts(op, own)
    return total / weight.sum() if op.reduction == "mean" else total


def _labelled_rows(op: NllLoss, ins: Sequence[Tensor]) -> Tensor:
    logs, labels, *classes = ins
    ignore = -100 if op.ignore is None else op.ignore
    weight = classes[0] if classes else None
    rows = F.nll_loss(logs, labels.long(), weight, ignore_index=ignore, reduction="none")
    scaled = logs if weight is None else logs * weight
    even = torch.where(labels != ignore, -scaled.mean(1), 0.0)
    return (1 - op.label_smoothing) * rows + op.label_smoothing * even


def _counts(op: NllLoss, ins: Sequence[Tensor]) -> Tensor:
    """What F.nll_loss divides by: its loss of logarithms that are all -1."""
    whole = NllLoss("none", 0.0, op.ignore)
    return _labelled_rows(whole, [-torch.ones_like(ins[0]).detach(), *ins[1:]])


def _rows(op: RowLoss, ins: Sequence[Tensor]) -> Tensor:
    scores, target = ins[:2]
    if isinstance(op, CosineLoss):
        cosine = F.cosine_similarity(scores, target)  # its embedding loss adds 1e-12 to the squares
        return torch.where(ins[2] > 0, 1 - cosine, F.relu(cosine - op.margin))
    if isinstance(op, KlLoss):
        return F.kl_div(scores, target, reduction="none").flatten(1).sum(1)
    if isinstance(op, SoftNllLoss):
        return -(scores * target).sum(1)
    if isinstance(op, SoftmaxLoss):
        share = op.label_smoothing
        return F.cross_entropy(scores, target.long(), reduction="none", label_smoothing=share)
    if isinstance(op, SvmLoss):  # torch divides by the classes
        loss = F.multi_margin_loss(scores, target.long(), reduction="none")
        return loss * scores.shape[1]
    each = _element_loss(op, scores, target)
    return each.flatten(1).mean(1) if each.ndim > 1 else each


def _element_loss(op: RowLoss, scores: Tensor, target: Tensor) -> Tensor:
    if isinstance(op, MaeLoss):
        return F.l1_loss(scores, target, reduction="none")
    if isinstance(op, HuberLoss):
        return F.huber_loss(scores, target, reduction="none", delta=op.delta)
    if isinstance(op, SigmoidLoss):
        more = torch.tensor(op.pos_weight, dtype=scores.dtype)
        return F.binary_cross_entropy_with_logits(scores, target, pos_weight=more, reduction="none")
    if isinstance(op, PoissonLoss):
        return F.poisson_nll_loss(scores, target, reduction="none")
    if isinstance(op, LogCoshLoss):
        error = scores - target
        return F.softplus(-2 * error.abs()) + error.abs() - log(2)
    if isinstance(op, HingeLoss):
        missed = torch.relu(1 - scores * target)
        return missed**2 if op.squared else missed
    assert isinstance(op, MseLoss)
    return F.mse_loss(scores, target, reduction="none")


def _around(x: Tensor, pads: Sequence[Sequence[int]], value: float = 0.0) -> Tensor:
    """Padded in its last dimensions; what is negative is cut off."""
    return F.pad(x, [size for pair in reversed(pads) for size in pair], value=value)


def _conv(op: ConvLayer, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, *rest = ins
    function = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    bias = rest[1] if len(rest) == 2 else None
    around = _around(x, op.padding)
    return function(around, rest[0], bias, op.stride, 0, op.dilation, op.groups)


def _conv_transpose(op: ConvTransposeLayer, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, weight, *bias = ins
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.ndim - 3]
    whole = function(x, weight, None, op.stride, 0, 0, op.groups, op.dilation)
    pairs = zip(op.padding, op.more, strict=True)
    y = _around(whole, [(-before, more - after) for (before, after), more in pairs])
    return y + bias[0].reshape(-1, *[1] * (x.ndim - 2)) if bias else y


def _reached(op: PoolLayer, x: Tensor, value: float) -> Tensor:
    """x as far as the last window reaches."""
    around = _around(x, op.padding, value)
    out = op.infer([TensorType(tuple(x.shape), "float64")]).shape[2:]
    missing = []
    for size, count, k, s, d in zip(
        around.shape[2:], out, op.kernel, op.stride, op.dilation, strict=True
    ):
        assert isinstance(count, int)
        missing.append((0, (count - 1) * s + (k - 1) * d + 1 - size))
    return _around(around, missing, value)


def _max_pool(op: MaxPoolLayer, ins: Sequence[Tensor], train: bool) -> Tensor:
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[ins[0].ndim - 3]
    reached = _reached(op, ins[0], -torch.inf)
    return function(reached, op.kernel, op.stride, 0, op.dilation)


def _avg_pool(op: AvgPoolLayer, ins: Sequence[Tensor], train: bool) -> Tensor:
    """By convolution with ones, of the numbers and of what counts."""
    (x,) = ins
    ones = torch.ones((x.shape[1], 1, *op.kernel), dtype=x.dtype)
    function = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    reached = _reached(op, x, 0.0)
    counted = torch.zeros_like(reached[:1])
    inside = [
        slice(0 if op.count_include_pad else before, before + size + after * op.count_include_pad)
        for size, (before, after) in zip(x.shape[2:], op.padding, strict=True)
    ]
    counted[(slice(None), slice(None), *inside)] = 1
    total, count = (
        function(part, ones, None, op.stride, 0, op.dilation, x.shape[1])
        for part in (reached, counted)
    )
    return total / count


def _gradient(op: Gradient, ins: Sequence[Tensor], train: bool) -> Tensor:
    of, wrt = ins
    if not of.requires_grad or not wrt.requires_grad:
        return torch.zeros_like(wrt)
    (found,) = torch.autograd.grad(of, wrt, create_graph=True, allow_unused=True)
    return torch.zeros_like(wrt) if found is None else found


def _cast(op: Cast, ins: Sequence[Tensor], train: bool) -> Tensor:
    return ins[0].to(_kind(op.dtype))


def _kind(dtype: str) -> torch.dtype:
    return torch.float64 if dtype.startswith("float") else getattr(torch, dtype)


def _causal_softmax(op: Any, ins: Sequence[Tensor], train: bool) -> Tensor:
    later = torch.ones(ins[0].shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(ins[0].masked_fill(later, -torch.inf), dim=-1)


def _pick(op: Pick, ins: Sequence[Tensor], train: bool) -> Tensor:
    return ins[0].gather(1, ins[1].long()[:, None])[:, 0]


def _cumsum(op: Cumsum, ins: Sequence[Tensor], train: bool) -> Tensor:
    (x,) = ins
    if op.reverse:
        x = x.flip(op.axis)
    sums = x.cumsum(op.axis) - (x if op.exclusive else 0)
    return sums.flip(op.axis) if op.reverse else sums


def _topk(op: TopK, ins: Sequence[Tensor], train: bool) -> Tensor:
    order = torch.sort(ins[0], dim=op.axis, descending=op.largest, stable=True).indices
    return order.narrow(op.axis, 0, op.k)


def _shrink(op: Shrink, ins: Sequence[Tensor], train: bool) -> Tensor:
    (x,) = ins
    if op.bias == op.threshold:
        return F.softshrink(x, op.threshold)
    assert op.bias == 0
    return F.hardshrink(x, op.threshold)


def _slice(op: Slice, ins: Sequence[Tensor], train: bool) -> Tensor:
    (x,) = ins
    for axis, start, stop, step in op.cuts:
        x = x.index_select(axis, torch.arange(int(start), int(stop), step))  # type: ignore[arg-type]
    return x


def _gather(op: Gather, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, indices = ins
    axis = op.axis % x.ndim
    held = indices.long().clamp(0, x.shape[axis] - 1)
    found = x.index_select(axis, held.reshape(-1))
    return found.reshape(*x.shape[:axis], *held.shape, *x.shape[axis + 1 :])


def _held(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    return indices.long().clamp(0, x.shape[axis] - 1)


def _scatter(op: ScatterElements, ins: Sequence[Tensor], train: bool) -> Tensor:
    x, indices, updates = ins
    places = _held(x, indices, op.axis)
    if op.reduction != "none":
        how = {"add": "sum", "max": "amax", "min": "amin"}[op.reduction]
        return x.scatter_reduce(op.axis, places, updates, how)
    for place, update in zip(places.split(1, op.axis), updates.split(1, op.axis), strict=True):
        x = x.scatter(op.axis, place, update)  # of several at once torch's gradient is wrong
    return x


def _flat_index(op: FlatIndex, ins: Sequence[Tensor], train: bool) -> Tensor:
    parts = [_held(torch.empty(n), ins[0][..., i], 0).numpy() for i, n in enumerate(op.sizes)]
    return torch.as_tensor(np.asarray(np.ravel_multi_index(tuple(parts), op.sizes)))


def _scan(op: Scan, ins: Sequence[Tensor], train: bool) -> Tensor:
    """One result of a loop, by a loop in Python."""
    step, n = op.step, op.rows(ins)
    values = dict(zip(step.inputs, ins, strict=True))
    count = int(values[step.lengths].max().clamp(0, op.steps)) if step.lengths else op.steps
    found: dict[int, Tensor] = {}
    for t in reversed(range(count)) if op.reverse else range(count):
        at = values | {name: values[name][t] for name in step.sequences}
        at |= {step.number: torch.tensor(t, dtype=torch.int32)} if step.number else {}
        for node in step.nodes:
            if node.name not in at:
                at[node.name] = computed(node, [at[name] for name in node.inputs], n, train)
        values |= {one.input: at[one.next] for one in step.carried}
        found[t] = at[op.result]
    if op.kind == "last":
        return values[op.result]
    type = step.types[op.result]
    zero = torch.zeros(shape_at(type.shape, n), dtype=_kind(type.dtype))
    return torch.stack([found.get(t, zero) for t in range(op.steps)])


def _reduced(function: Callable[..., Tensor]) -> Rule:
    def rule(op: Any, ins: Sequence[Tensor], train: bool) -> Tensor:
        return function(ins[0], dim=op.axes, keepdim=op.keepdims) if op.axes else ins[0]

    return rule


def _plain(function: Callable[..., Tensor]) -> Rule:
    return lambda op, ins, train: function(*ins)


def computed(node: Node, ins: Sequence[Tensor], n: int, train: bool) -> Tensor:
    """The value of a node for `n` rows; no source but a constant."""
    op = node.op.at(n)
    if isinstance(op, Constant):
        return torch.tensor(op.array(), dtype=_kind(node.type.dtype))
    return RULES[type(op)](op, ins, train)


RULES: Mapping[type[Op], Rule] = {
    AffineLayer: _affine,
    BatchNorm: _batchnorm,
    Dropout: _dropout,
    Noise: _noise,
    SoftmaxLoss: _row_loss,
    SvmLoss: _row_loss,
    NllLoss: _row_loss,
    WeightedNllLoss: _row_loss,
    SoftNllLoss: _row_loss,
    KlLoss: _row_loss,
    CosineLoss: _row_loss,
    HingeLoss: _row_loss,
    LogCoshLoss: _row_loss,
    PoissonLoss: _row_loss,
    MseLoss: _row_loss,
    MaeLoss: _row_loss,
    HuberLoss: _row_loss,
    SigmoidLoss: _row_loss,
    LayerNorm: lambda op, ins, train: F.layer_norm(ins[0], ins[0].shape[-1:], *ins[1:], op.eps),
    RmsNorm: lambda op, ins, train: F.rms_norm(ins[0], ins[0].shape[-1:], ins[1], op.eps),
    ConvLayer: _conv,
    ConvTransposeLayer: _conv_transpose,
    MaxPoolLayer: _max_pool,
    AvgPoolLayer: _avg_pool,
    GlobalAvgPool: lambda op, ins, train: ins[0].mean(tuple(range(2, ins[0].ndim)), keepdim=True),
    GroupNorm: _groupnorm,
    Pad: lambda op, ins, train: _around(ins[0], op.pads, op.value),
    LeakyRelu: lambda op, ins, train: F.leaky_relu(ins[0], op.slope),
    PRelu: lambda op, ins, train: F.prelu(*ins),
    Elu: lambda op, ins, train: F.elu(ins[0], op.alpha),
    Selu: _plain(F.selu),
    Celu: lambda op, ins, train: F.celu(ins[0], op.alpha),
    ThresholdedRelu: lambda op, ins, train: F.threshold(ins[0], op.alpha, 0.0),
    Shrink: _shrink,
    Gelu: lambda op, ins, train: F.gelu(
        ins[0], approximate="tanh" if op.form == "tanh" else "none"
    ),
    Silu: _plain(F.silu),
    Mish: _plain(F.mish),
    Softsign: _plain(F.softsign),
    HardSigmoid: _plain(F.hardsigmoid),
    HardSwish: _plain(F.hardswish),
    Erf: _plain(torch.erf),
    Softplus: _plain(F.softplus),
    Standardize: lambda op, ins, train: (ins[0] - ins[1]) / ins[2],
    Gradient: _gradient,
    Add: _plain(torch.add),
    Sub: _plain(torch.sub),
    Mul: _plain(torch.mul),
    Div: _plain(torch.div),
    Neg: _plain(torch.neg),
    Power: lambda op, ins, train: torch.pow(ins[0], op.exponent),
    Exp: _plain(torch.exp),
    Floor: _plain(torch.floor),
    Ceil: _plain(torch.ceil),
    Round: _plain(torch.round),
    Log1p: _plain(torch.log1p),
    Expm1: _plain(torch.expm1),
    **{kind: _plain(getattr(torch, kind.name)) for kind in Called.__subclasses__()},
    Pow: _plain(torch.pow),
    FloorDiv: lambda op, ins, train: torch.div(*ins, rounding_mode="floor"),
    TruncDiv: lambda op, ins, train: torch.div(*ins, rounding_mode="trunc"),
    Mod: _plain(torch.remainder),
    Fmod: _plain(torch.fmod),
    And: _plain(torch.bitwise_and),
    Or: _plain(torch.bitwise_or),
    Xor: _plain(torch.bitwise_xor),
    Not: _plain(torch.bitwise_not),
    Log: _plain(torch.log),
    Sqrt: _plain(torch.sqrt),
    Abs: _plain(torch.abs),
    Sign: _plain(torch.sign),
    Tanh: _plain(torch.tanh),
    Sigmoid: _plain(torch.sigmoid),
    Softmax: lambda op, ins, train: F.softmax(ins[0], dim=op.axis),
    LogSoftmax: lambda op, ins, train: F.log_softmax(ins[0], dim=op.axis),
    Relu: _plain(F.relu),
    Maximum: _plain(torch.maximum),
    Minimum: _plain(torch.minimum),
    Clip: lambda op, ins, train: ins[0].clamp(op.low, op.high),
    Where: _plain(torch.where),
    Less: _plain(torch.lt),
    LessEqual: _plain(torch.le),
    Greater: _plain(torch.gt),
    GreaterEqual: _plain(torch.ge),
    Equal: _plain(torch.eq),
    NotEqual: _plain(torch.ne),
    Sum: _reduced(torch.sum),
    Mean: _reduced(torch.mean),
    Max: _reduced(torch.amax),
    Min: _reduced(torch.amin),
    Cumsum: _cumsum,
    TopK: _topk,
    Argmin: lambda op, ins, train: torch.argmin(ins[0], dim=op.axis),
    Argmax: lambda op, ins, train: torch.argmax(ins[0], dim=op.axis),
    OneHot: lambda op, ins, train: F.one_hot(ins[0].long(), op.depth).double(),
    Pick: _pick,
    Gather: _gather,
    Embedding: lambda op, ins, train: F.embedding(ins[1].long(), ins[0]),
    GatherElements: lambda op, ins, train: ins[0].gather(op.axis, _held(ins[0], ins[1], op.axis)),
    ScatterElements: _scatter,
    FlatIndex: _flat_index,
    Reshape: lambda op, ins, train: ins[0].reshape(op.shape),
    Transpose: lambda op, ins, train: ins[0].permute(op.axes),
    Concat: lambda op, ins, train: torch.cat(list(ins), dim=op.axis),
    Slice: _slice,
    Cast: _cast,
    StopGradient: lambda op, ins, train: ins[0].detach(),
    BroadcastTo: lambda op, ins, train: ins[0].expand(op.shape),
    MatMul: lambda op, ins, train: torch.matmul(
        ins[0].mT if op.trans_a else ins[0], ins[1].mT if op.trans_b else ins[1]
    ),
    CausalSoftmax: _causal_softmax,
    Scan: _scan,
}
