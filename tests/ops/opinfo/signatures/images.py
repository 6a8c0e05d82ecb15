"""PyTorch's convolutions, pools, pads, resizing and norms, by graphc."""

from __future__ import annotations

from math import floor
from typing import Any

import graphc as gc
from graphc.ops.norm import BatchNorm
from graphc.ops.row_norm import GroupNorm, LayerNorm, RmsNorm
from graphc.ops.source import State
from tests.ops.opinfo.refused import refuse
from tests.ops.opinfo.signatures.extra_axis import without_batch

Value = gc.Value


def conv(space: int) -> Any:
    @without_batch(space + 2)
    def function(
        x: Value,
        weight: Value,
        bias: Value | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Value:
        around = 0 if padding == "valid" else padding
        return gc.conv(
            x,
            weight,
            bias,
            _each(stride),
            padding=_each(around),
            dilation=_each(dilation),
            groups=groups,
        )

    return function


def conv_transpose(space: int) -> Any:
    @without_batch(space + 2)
    def function(
        x: Value,
        weight: Value,
        bias: Value | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Value:
        return gc.conv_transpose(
            x,
            weight,
            bias,
            _each(stride),
            padding=_each(padding),
            output_padding=_each(output_padding),
            dilation=_each(dilation),
            groups=groups,
        )

    return function


def _each(given: Any) -> Any:
    """One number that stands for all of them is told without a tuple."""
    return given[0] if isinstance(given, (tuple, list)) and len(given) == 1 else given


def max_pool(space: int) -> Any:
    @without_batch(space + 2)
    def function(
        x: Value,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Value:
        refuse("the places of the largest are asked for", return_indices)
        return gc.max_pool(
            x,
            _each(kernel_size),
            _each(stride or None),
            padding=_each(padding),
            dilation=_each(dilation),
            ceil=ceil_mode,
        )

    return function


def avg_pool(space: int) -> Any:
    @without_batch(space + 2)
    def function(
        x: Value,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Value:
        refuse("another divisor is asked for", divisor_override is not None)
        return gc.avg_pool(
            x,
            _each(kernel_size),
            _each(stride or None),
            padding=_each(padding),
            ceil=ceil_mode,
            count_include_pad=count_include_pad,
        )

    return function


def _sizes(x: Value, space: int, given: Any) -> list[int]:
    several = [given] * space if isinstance(given, int) else list(given)
    old = x.shape[-space:]
    return [old[i] if size is None else size for i, size in enumerate(several)]


def adaptive_avg_pool(space: int) -> Any:
    @without_batch(space + 2)
    def function(x: Value, output_size: Any) -> Value:
        sizes = _sizes(x, space, output_size)
        if set(sizes) == {1}:
            return gc.global_avg_pool(x)
        return gc.adaptive_avg_pool(x, sizes)

    return function


def adaptive_max_pool(space: int) -> Any:
    @without_batch(space + 2)
    def function(x: Value, output_size: Any, return_indices: bool = False) -> Value:
        refuse("the places of the largest are asked for", return_indices)
        refuse("windows of other sizes", set(_sizes(x, space, output_size)) != {1})
        return gc.global_max_pool(x)

    return function


def pad(x: Value, pad: Any, mode: str = "constant", value: float | None = None) -> Value:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    whole = [(0, 0)] * (x.type.rank - len(pairs)) + pairs
    if mode == "constant":
        x, whole = _cut(x, whole), [(max(0, a), max(0, b)) for a, b in whole]
    modes: Any = {"constant": "constant", "replicate": "edge", "circular": "wrap"}
    return gc.pad(x, whole, value or 0.0, mode=modes.get(mode, mode))


def _cut(x: Value, pairs: list[tuple[int, int]]) -> Value:
    """What negative pads cut off."""
    spans = zip(x.shape, pairs, strict=True)
    return x[tuple(slice(-a if a < 0 else None, n + b if b < 0 else None) for n, (a, b) in spans)]


def interpolate(
    x: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    space = x.type.rank - 2
    kinds: Any = {"bicubic": "cubic", "nearest": "nearest", "nearest-exact": "nearest"}
    if mode == "area":
        wanted = size if size is not None else scale_factor
        several = [wanted] * space if isinstance(wanted, (int, float)) else list(wanted)
        if size is None:
            several = [floor(n * s) for n, s in zip(x.shape[2:], several, strict=True)]
        return gc.adaptive_avg_pool(x, several)
    how: dict[str, Any] = {"mode": kinds.get(mode, "linear"), "axes": range(2, x.type.rank)}
    if mode == "nearest":
        how |= {"places": "asymmetric", "rounding": "floor"}
    elif mode == "nearest-exact":
        how |= {"rounding": "round_prefer_ceil"}
    elif align_corners:
        how |= {"places": "align_corners"}
    if size is not None:
        return gc.resize(x, _sizes(x, space, size), **how)
    several = [scale_factor] * space if isinstance(scale_factor, float) else list(scale_factor)
    if recompute_scale_factor:
        return gc.resize(
            x, [floor(n * s) for n, s in zip(x.shape[2:], several, strict=True)], **how
        )
    return gc.resize(x, scales=several, **how)


def _ones_and_zeros(
    x: Value, weight: Value | None, bias: Value | None, size: Any
) -> tuple[Value, Value]:
    zero = gc.broadcast_to(gc.sum(x) * 0.0, size)
    return zero + 1.0 if weight is None else weight, zero if bias is None else bias


def batch_norm(
    x: Value,
    mean: Value | None,
    var: Value | None,
    weight: Value | None = None,
    bias: Value | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    refuse("x has no features", x.type.rank < 2)
    gamma, beta = _ones_and_zeros(x, weight, bias, (x.shape[1],))
    if training:  # the running statistics are written, not read
        starts = [x.builder.apply(State(gamma.shape, x.dtype, start)) for start in (0.0, 1.0)]
        return gc.apply(BatchNorm(eps), x, gamma, beta, *starts)
    refuse("no running statistics to use", mean is None or var is None)
    return gc.apply(BatchNorm(eps, frozen=True), x, gamma, beta, mean, var)


def group_norm(
    x: Value, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    gamma, beta = _ones_and_zeros(x, weight, bias, (x.shape[1],))
    return gc.apply(GroupNorm(num_groups, eps), x, gamma, beta)


def instance_norm(
    x: Value,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    refuse("by running statistics", not use_input_stats)
    return group_norm(x, x.shape[1], weight, bias, eps)


def _last_axis(x: Value, shape: Any, *vectors: Any) -> tuple[Value, list[Any]]:
    """x with the normalised axes as one, and so each vector."""
    size, kept = 1, x.shape[: x.type.rank - len(shape)]
    for dim in shape:
        size *= dim
    rows = kept or (1,)
    return (
        gc.reshape(x, (*rows, size)),
        [None if v is None else gc.reshape(v, (size,)) for v in vectors],
    )


def layer_norm(
    x: Value, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    flat, (gamma, beta) = _last_axis(x, shape, weight, bias)
    vectors = _ones_and_zeros(flat, gamma, beta, (flat.shape[-1],))
    return gc.reshape(gc.apply(LayerNorm(eps), flat, *vectors), x.shape)


def rms_norm(x: Value, shape: Any, weight: Any = None, eps: float | None = None) -> Value:
    flat, (gamma,) = _last_axis(x, shape, weight)
    vectors = _ones_and_zeros(flat, gamma, None, (flat.shape[-1],))
    least = 2.220446049250313e-16 if eps is None else eps
    return gc.reshape(gc.apply(RmsNorm(least), flat, vectors[0]), x.shape)


def normalize(x: Value, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Value:
    refuse("norms other than 1 and 2", p not in (1, 2))
    function = gc.l2_norm if p == 2 else gc.l1_norm
    return x / gc.clip(function(x, dim, keepdims=True), eps, None)


def linear_interpolation(x: Value, size: Any = None, scale_factor: Any = None) -> Value:
    return interpolate(x, size, scale_factor, "bilinear", True)


PADS = ("constant", "reflect", "replicate", "circular", "replicate_negative")
MODES = ("area", "bicubic", "bilinear", "linear", "nearest", "nearest-exact", "trilinear")

OURS = {
    **{f"nn.functional.conv{n}d": conv(n) for n in (1, 2, 3)},
    **{f"nn.functional.conv_transpose{n}d": conv_transpose(n) for n in (1, 2, 3)},
    **{f"nn.functional.max_pool{n}d": max_pool(n) for n in (1, 2, 3)},
    **{f"nn.functional.avg_pool{n}d": avg_pool(n) for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_avg_pool{n}d": adaptive_avg_pool(n) for n in (1, 2, 3)},
    **{f"nn.functional.adaptive_max_pool{n}d": adaptive_max_pool(n) for n in (1, 2, 3)},
    **{f"nn.functional.pad/{mode}": pad for mode in PADS},
    "constant_pad_nd": lambda x, sizes, value=0: pad(x, sizes, "constant", value),
    **{f"nn.functional.interpolate/{mode}": interpolate for mode in MODES},
    "nn.functional.upsample_bilinear": linear_interpolation,
    "nn.functional.upsample_nearest": lambda x, size=None, scale_factor=None: interpolate(
        x, size, scale_factor
    ),
    "nn.functional.batch_norm": batch_norm,
    "nn.functional.group_norm": group_norm,
    "nn.functional.instance_norm": instance_norm,
    "nn.functional.layer_norm": layer_norm,
    "nn.functional.rms_norm": rms_norm,
    "nn.functional.normalize": normalize,
}
