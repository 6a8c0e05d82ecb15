"""What functions of each element, along axes, of shapes and indices mean, in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .calls import words

DTYPES = {"bool": torch.bool, "int32": torch.int32, "int64": torch.int64}


def tensor(x: Any) -> Tensor:
    """Return a tensor; floats have 64 bits."""
    if isinstance(x, Tensor):
        return x
    found = torch.as_tensor(np.asarray(x))
    return found.double() if found.is_floating_point() else found


def both(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return a function of two operands, either of which may be a number."""

    def meaning(a: Any, b: Any) -> Tensor:
        a, b = tensor(a), tensor(b)
        if a.is_floating_point() != b.is_floating_point():
            a, b = a.double(), b.double()
        return function(a, b)

    return meaning


def floor_div(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return torch.floor(a / b)
    safe = torch.where(b == 0, 1, b)
    return torch.where(b == 0, 0, torch.div(a, safe, rounding_mode="floor"))


def trunc_div(a: Tensor, b: Tensor) -> Tensor:
    safe = torch.where(b == 0, 1, b)
    return torch.where(b == 0, 0, torch.div(a, safe, rounding_mode="trunc"))


def shrink(x: Tensor, threshold: float = 0.5, bias: float = 0.0) -> Tensor:
    return torch.where(x > threshold, x - bias, torch.where(x < -threshold, x + bias, 0 * x))


def where(condition: Tensor, a: Any, b: Any) -> Tensor:
    return torch.where(condition, tensor(a), tensor(b))


def clip(x: Tensor, low: float | None, high: float | None) -> Tensor:
    return torch.clamp(x, low, high)


def cast(x: Tensor, dtype: str) -> Tensor:
    if dtype in DTYPES:
        return x.detach().to(DTYPES[dtype]) if dtype != "bool" else x.detach() != 0
    return x.double()


def logical(of_bools: Any, of_bits: Any) -> Callable[..., Tensor]:
    return lambda *xs: (of_bools if xs[0].dtype == torch.bool else of_bits)(*xs)


# Along axes.


def axes_of(x: Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def meaning(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        axes = axes_of(x, axis)
        return function(x, axes, keepdims) if axes else function(x[None], (0,), False)

    return meaning


def one_by_one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a reduction over several axes from that over one."""

    def meaning(x: Tensor, axes: Sequence[int], keepdims: bool) -> Tensor:
        for axis in axes:
            x = function(x, axis, True)
        return x if keepdims else x.squeeze(tuple(axes))

    return meaning


def l2_norm(x: Tensor, axes: Any, keepdims: bool) -> Tensor:
    squares = (x * x).sum(axes, keepdims)
    return torch.where(squares > 0, torch.where(squares > 0, squares, 1).sqrt(), 0 * squares)


def scan(function: Callable[..., Tensor], start: float) -> Callable[..., Tensor]:
    def meaning(
        x: Tensor, axis: int = -1, exclusive: bool = False, reverse: bool = False
    ) -> Tensor:
        x = x.flip(axis) if reverse else x
        if exclusive:
            first = torch.full_like(x.narrow(axis, 0, 1), start)
            x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        x = function(x, axis)
        return x.flip(axis) if reverse else x

    return meaning


def product_scan(x: Tensor, axis: int) -> Tensor:
    parts = [x.narrow(axis, 0, i + 1).prod(axis, True) for i in range(x.shape[axis])]
    return torch.cat(parts, axis)


def arg(function: Any) -> Callable[..., Tensor]:
    def meaning(x: Tensor, axis: int = -1, keepdims: bool = False, last: bool = False) -> Tensor:
        a = x.detach().numpy()
        found = function(np.flip(a, axis) if last else a, axis=axis, keepdims=keepdims)
        return torch.as_tensor(np.array(a.shape[axis] - 1 - found if last else found))

    return meaning


def order(x: Tensor, axis: int, descending: bool) -> Tensor:
    """Return the indices that sort; of equals the first comes first."""
    a = x.detach().numpy()
    return torch.as_tensor(np.argsort(-a if descending else a, axis=axis, kind="stable"))


def topk(x: Tensor, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    indices = order(x, axis, largest).narrow(axis, 0, k)
    return torch.gather(x, axis, indices), indices


def sort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    return torch.gather(x, axis, order(x, axis, descending))


def argsort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    return order(x, axis, descending)


# Shapes.


def numpy_of(x: Tensor) -> Any:
    """Return the place of each entry of x, to be moved by NumPy."""
    return np.arange(x.numel()).reshape(x.shape)


def moved(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return what takes entries of x from where a NumPy function takes them."""

    def meaning(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        places = function(numpy_of(x), *args, **kwargs)
        return x.reshape(-1)[torch.as_tensor(np.array(places))]

    return meaning


def getitem(x: Any, key: Any) -> Any:
    return x[key]


def pad(x: Tensor, pads: Any, value: float = 0.0, mode: str = "constant") -> Tensor:
    pairs = [(p, p) if isinstance(p, int) else p for p in pads]
    if mode != "constant":
        places = np.pad(numpy_of(x), pairs, mode=mode)  # type: ignore[call-overload]
        return x.reshape(-1)[torch.as_tensor(places)]
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=value)


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.broadcast_to(torch.broadcast_shapes(x.shape, tuple(shape)))


def unsqueeze(x: Tensor, axis: Any) -> Tensor:
    places = moved(lambda a: np.expand_dims(a, axis))
    return places(x)


def resize(
    x: Tensor,
    sizes: Sequence[int],
    axes: Sequence[int],
    mode: str = "linear",
    places: str = "half_pixel",
    rounding: str = "round_prefer_floor",
) -> Tensor:
    for axis, size in zip(axes, sizes, strict=True):
        old = x.shape[axis]
        scale = size / old
        at = np.arange(size)
        if places == "half_pixel":
            where_ = (at + 0.5) / scale - 0.5
        elif places == "asymmetric":
            where_ = at / scale
        else:
            where_ = at * ((old - 1) / (size - 1)) if size > 1 else 0.0 * at
        x = (nearest if mode == "nearest" else linear)(x, axis, where_, rounding)
    return x


def nearest(x: Tensor, axis: int, at: Any, rounding: str) -> Tensor:
    how = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda a: np.ceil(a - 0.5),
        "round_prefer_ceil": lambda a: np.floor(a + 0.5),
    }[rounding]
    found = np.clip(how(at), 0, x.shape[axis] - 1).astype(int)
    return x.index_select(axis, torch.as_tensor(found))


def linear(x: Tensor, axis: int, at: Any, _: str) -> Tensor:
    at = np.clip(at, 0, x.shape[axis] - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
    share = torch.as_tensor(at - low).reshape(shape)
    first, second = (x.index_select(axis, torch.as_tensor(i)) for i in (low, high))
    return first * (1 - share) + second * share


# Indices.


def gather(x: Tensor, indices: Any, axis: int = 0) -> Tensor:
    indices = tensor(indices)
    taken = x.index_select(axis, indices.reshape(-1))
    axis %= x.ndim
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    indices = tensor(indices)
    if batch_dims:
        return torch.stack([gather_nd(a, i) for a, i in zip(x, indices, strict=True)])
    return x[tuple(indices[..., i] for i in range(indices.shape[-1]))]


def scatter(x: Tensor, places: Any, updates: Tensor, reduction: str) -> Tensor:
    """Write entries one after the other, at these places of x laid flat."""
    found = list(x.reshape(-1).unbind())
    how = {"none": lambda a, b: b, "add": torch.add, "max": torch.maximum, "min": torch.minimum}
    for place, update in zip(places.reshape(-1), updates.reshape(-1).unbind(), strict=True):
        found[place] = how[reduction](found[place], update)
    return torch.stack(found).reshape(x.shape)


def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, axis: int = -1, reduction: str = "none"
) -> Tensor:
    where_ = list(np.indices(indices.shape))
    where_[axis] = indices.numpy()
    return scatter(x, numpy_of(x)[tuple(where_)], updates, reduction)


def scatter_nd(x: Tensor, indices: Any, updates: Tensor, reduction: str = "none") -> Tensor:
    indices = np.asarray(indices)
    return scatter(x, numpy_of(x)[tuple(np.moveaxis(indices, -1, 0))], updates, reduction)


def one_hot(indices: Tensor, depth: int, dtype: str = "float32") -> Tensor:
    return (indices[..., None] == torch.arange(depth)).double()


def gelu(x: Tensor, form: str = "erf") -> Tensor:
    return F.gelu(x, approximate="tanh" if form == "tanh" else "none")


def hard_sigmoid(x: Tensor) -> Tensor:
    return torch.clamp(x / 6 + 0.5, 0, 1)


def sign(x: Tensor) -> Tensor:
    """Return the sign, and NaN of NaN, of which PyTorch returns 0."""
    return torch.where(x.isnan(), x.detach(), torch.sign(x))


SAME = words(
    "relu sigmoid tanh abs erf floor ceil round sin cos tan atan asinh asin acos "
    "atanh acosh exp expm1 sinh cosh log sqrt reciprocal log1p neg isnan isinf isfinite"
)
ACTIVATIONS = words("selu silu mish softplus softsign relu6")

MEANINGS: dict[str, Callable[..., Any]] = {
    **{f"gc.{name}": getattr(torch, name) for name in SAME},
    **{f"gc.{name}": getattr(F, name) for name in ACTIVATIONS},
    "gc.sign": sign,
    "gc.hard_tanh": F.hardtanh,
    "gc.hard_sigmoid": hard_sigmoid,
    "gc.hard_swish": lambda x: x * hard_sigmoid(x),
    "gc.stop_gradient": torch.detach,
    "gc.leaky_relu": lambda x, slope=0.01: torch.where(x > 0, x, slope * x),
    "gc.elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "gc.celu": lambda x, alpha=1.0: torch.where(
        x > 0, x, alpha * torch.expm1(x.clamp(max=0) / alpha)
    ),
    "gc.gelu": gelu,
    "gc.thresholded_relu": lambda x, alpha=1.0: torch.where(x > alpha, x, 0 * x),
    "gc.shrink": shrink,
    "gc.clip": clip,
    "gc.add": both(torch.add),
    "gc.sub": both(torch.sub),
    "gc.mul": both(torch.mul),
    "gc.div": both(torch.div),
    "gc.power": both(torch.pow),
    "gc.maximum": both(torch.maximum),
    "gc.minimum": both(torch.minimum),
    "gc.floor_div": both(floor_div),
    "gc.trunc_div": both(trunc_div),
    "gc.mod": both(torch.remainder),
    "gc.fmod": both(torch.fmod),
    "gc.equal": both(torch.eq),
    "gc.not_equal": both(torch.ne),
    "gc.less": both(torch.lt),
    "gc.less_equal": both(torch.le),
    "gc.greater": both(torch.gt),
    "gc.greater_equal": both(torch.ge),
    "gc.logical_and": logical(torch.logical_and, torch.bitwise_and),
    "gc.logical_or": logical(torch.logical_or, torch.bitwise_or),
    "gc.logical_xor": logical(torch.logical_xor, torch.bitwise_xor),
    "gc.logical_not": logical(torch.logical_not, torch.bitwise_not),
    "gc.where": where,
    "gc.cast": cast,
    "gc.sum": reduced(lambda x, axes, keep: x.sum(axes, keep)),
    "gc.mean": reduced(lambda x, axes, keep: x.mean(axes, keep)),
    "gc.max": reduced(one_by_one(lambda x, axis, keep: x.max(axis, keep).values)),
    "gc.min": reduced(one_by_one(lambda x, axis, keep: x.min(axis, keep).values)),
    "gc.prod": reduced(one_by_one(lambda x, axis, keep: x.prod(axis, keep))),
    "gc.logsumexp": reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "gc.sum_squares": reduced(lambda x, axes, keep: (x * x).sum(axes, keep)),
    "gc.l1_norm": reduced(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "gc.l2_norm": reduced(l2_norm),
    "gc.cumsum": scan(torch.cumsum, 0.0),
    "gc.cumprod": scan(product_scan, 1.0),
    "gc.softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "gc.log_softmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "gc.argmax": arg(np.argmax),
    "gc.argmin": arg(np.argmin),
    "gc.topk": topk,
    "gc.sort": sort,
    "gc.argsort": argsort,
    "gc.reshape": lambda x, shape: x.reshape(tuple(shape)),
    "gc.flatten": lambda x: x.reshape(x.shape[0], math.prod(x.shape[1:])),
    "gc.transpose": moved(np.transpose),
    "gc.concat": lambda xs, axis=-1: torch.cat(xs, axis),
    "gc.split": lambda x, parts, axis=-1: (
        torch.tensor_split(x, parts, axis) if isinstance(parts, int) else x.split(parts, axis)
    ),
    "gc.stack": lambda xs, axis=0: torch.stack(xs, axis),
    "gc.squeeze": moved(np.squeeze),
    "gc.unsqueeze": unsqueeze,
    "gc.pad": pad,
    "gc.broadcast_to": lambda x, shape: x.broadcast_to(tuple(shape)),
    "gc.expand": expand,
    "gc.tile": moved(np.tile),
    "gc.repeat": moved(np.repeat),
    "gc.resize": resize,
    "gc.flip": moved(np.flip),
    "gc.roll": moved(lambda x, shift, axis=-1: np.roll(x, shift, axis)),
    "gc.tril": lambda x, diagonal=0: torch.tril(x, diagonal),
    "gc.triu": lambda x, diagonal=0: torch.triu(x, diagonal),
    "gc.one_hot": one_hot,
    "gc.pick": lambda x, i: x[torch.arange(len(x)), i],
    "gc.gather": gather,
    "gc.gather_elements": lambda x, i, axis=-1: torch.gather(x, axis, tensor(i)),
    "gc.gather_nd": gather_nd,
    "gc.scatter_elements": scatter_elements,
    "gc.scatter_nd": scatter_nd,
    "gc.matmul": torch.matmul,
    "operator.getitem": moved(getitem),
}
