"""Calls whose results PyTorch gave once: for where it is not installed.

All numbers are waves; those of a second operand are others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphc.ir.op import Array
from tests.images.cases import waves
from tests.ops.opinfo.call import Call, Operand, mapped
from tests.ops.opinfo.signatures import OURS
from tests.ops.opinfo.signatures.layers import LAYERS


class Stored(NamedTuple):
    """A call of what has that name in OURS or, after `graphc`, in LAYERS."""

    name: str
    call: Call

    @property
    def ours(self) -> Callable[..., Any]:
        kind, _, layer = self.name.partition(" ")
        return LAYERS[layer] if kind == "graphc" else OURS[self.name]


@dataclass(frozen=True, eq=False)
class Held:
    """An array that PyTorch does not differentiate by."""

    array: Array


def _stored(label: str, name: str, args: Any, kwargs: Any, made: Mapping[str, Array]) -> Stored:
    arrays: list[Array] = []
    held: list[int] = []

    def operand(leaf: Any) -> Any:
        if isinstance(leaf, Held):
            held.append(len(arrays))
        elif not isinstance(leaf, np.ndarray):
            return leaf
        arrays.append(leaf.array if isinstance(leaf, Held) else leaf)
        return Operand(len(arrays) - 1)

    placed, named, own = mapped(operand, (args, kwargs, dict(made)))
    parameters = {f"made.{key}": value.number for key, value in own.items()}
    floats = [i for i, array in enumerate(arrays) if array.dtype == np.float64]
    wrt = tuple(i for i in floats if i not in held)
    whole = (*placed, *own.values())
    return Stored(name, Call(label, whole, named, tuple(arrays), wrt, parameters))


def w(*shape: int, phase: float = 1.0) -> Array:
    """Numbers between -1 and 1."""
    return waves(shape, phase)


def v(*shape: int) -> Array:
    """Others."""
    return waves(shape, 2.2)


def p(*shape: int, phase: float = 0.7) -> Array:
    """From 0.5 to 2.5."""
    return waves(shape, phase) + 1.5


def whole(*shape: int, below: int) -> Array:
    """Whole numbers from 0 up."""
    return (np.arange(np.prod(shape)) * 7 % 5 % below).reshape(shape)


X, Y = w(3, 4) * 2.3, v(3, 4)
MASK = w(3, 4) > 0.2
IMAGE = w(2, 4, 5, 4)
_UNARY = (
    *("abs", "asinh", "atan", "cos", "cosh", "erf", "exp", "expm1", "sigmoid", "sign", "sin"),
    *("sinh", "tan", "tanh", "square", "floor", "ceil", "round"),
    *(f"nn.functional.{name}" for name in ("relu", "relu6", "selu", "silu", "mish", "softsign")),
    *(f"nn.functional.{name}" for name in ("celu", "elu", "gelu", "leaky_relu", "hardtanh")),
    *(f"nn.functional.{name}" for name in ("hardshrink", "softshrink", "softplus", "logsigmoid")),
)
_INSIDE = ("acos", "asin", "atanh")
_POSITIVE = ("log", "log1p", "sqrt", "reciprocal", "rsqrt")
_BINARY = ("add", "sub", "mul", "maximum", "minimum", "fmod", "remainder", "div/no_rounding_mode")
_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
_REDUCED = ("sum", "mean", "amax", "amin", "prod", "logsumexp", "var", "linalg.vector_norm")
_LOSSES = ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "poisson_nll_loss")
WITH_ZERO = np.where(MASK, 0.0, X)


def _calls() -> Iterator[tuple[Any, ...]]:
    """Names, arguments and options; a text before the name tells calls of one function apart."""
    yield from ((name, X * (0.4 if name == "tan" else 1)) for name in _UNARY)
    yield from ((name, w(3, 4) * 0.9) for name in _INSIDE)
    yield from ((name, p(3, 4)) for name in _POSITIVE)
    yield "acosh", p(3, 4) + 1.0
    yield from ((name, X, p(4)) for name in _BINARY)
    yield from ((name, X, Y) for name in _COMPARED)
    yield "pow", p(3, 4), Y
    yield "of a number", "pow", p(3, 4), -1.5
    yield "tanh", "nn.functional.gelu", X, {"approximate": "tanh"}
    yield "nn.functional.glu", X
    yield "nn.functional.threshold", X, 0.5, 0.0
    yield "nn.functional.hardswish", X
    yield "clamp", X, -0.5, 1.0
    yield "by values", "clamp", X, Y - 1.0, Y + 0.5
    yield "where", X, MASK, Y
    yield "masked_fill", X, MASK, 2.0
    yield "isclose", X, X + 1e-9
    yield "logical_and", X, WITH_ZERO
    yield "logical_xor", X, WITH_ZERO
    yield "logical_not", WITH_ZERO
    yield "graphc floor_div", np.array([7, -7, 5]), np.array([2, 2, -3])
    yield from _along_axes()
    yield from _matrices()
    yield from _moved()
    yield from _indexed()
    yield from _images()
    yield from _losses()
    yield from _layers()


def _along_axes() -> Iterator[tuple[Any, ...]]:
    yield from ((name, X, {"dim": (1,)}) for name in _REDUCED if name != "prod")
    yield "prod", X, 1
    yield "zeros", "prod", WITH_ZERO, 1
    yield "cumsum", X, 1
    yield "cumprod", WITH_ZERO, 1
    yield "softmax", X, 1
    yield "log_softmax", X, 0
    yield "argmax", X, 1
    yield "argmin", X, 0
    yield "any", WITH_ZERO, 1
    yield "max/reduction_with_dim", X, 1
    yield "norm", X, 3, 1


def _matrices() -> Iterator[tuple[Any, ...]]:
    yield "matmul", w(2, 1, 3, 4), v(3, 4, 2)
    yield "of vectors", "matmul", w(4), v(4, 2)
    yield "addmm", w(2, 3), v(2, 4), w(4, 3), {"beta": 0.5, "alpha": 2.0}
    yield "nn.functional.linear", w(2, 3, 4), v(5, 4), w(5)
    q, k, value = w(2, 2, 3, 4), v(2, 2, 5, 4), w(2, 2, 5, 2, phase=0.3)
    attention = "nn.functional.scaled_dot_product_attention"
    yield attention, q, k, value
    yield "causal", attention, q, k, value, {"is_causal": True}
    yield "mask", attention, q, k, value, v(3, 5)
    yield "seen", attention, q, k, value, w(3, 5) > -0.6, {"scale": 0.3}


def _moved() -> Iterator[tuple[Any, ...]]:
    yield "cat", [X, Y[:2]], 0
    yield "stack", [X, Y], 1
    yield "split_with_sizes", X, [1, 3], 1
    yield "tile", X, (2, 1)
    yield "repeat_interleave", X, 2, 1
    yield "flip", X, (0, 1)
    yield "roll", X, 1, 1
    yield "tril", X
    yield "triu", X, 1
    yield "permute", IMAGE, (2, 0, 3, 1)
    yield "expand", w(3, 1), (2, 3, 4)
    yield "squeeze", w(3, 1, 2), 1
    yield "unsqueeze", X, 1
    yield "reshape", X, (2, 6)
    yield "slice", X, 1, 0, 4, 2
    yield "nn.functional.pad/constant", X, (1, 2), "constant", 0.5
    for mode in ("reflect", "replicate", "circular"):
        yield f"nn.functional.pad/{mode}", IMAGE, (1, 2, 2, 1), mode
    yield "nn.functional.pixel_shuffle", IMAGE, 2


def _indexed() -> Iterator[tuple[Any, ...]]:
    rows = whole(2, 4, below=3)
    yield "gather", X, 0, rows
    yield "index_select", X, 1, whole(6, below=4)
    yield "take_along_dim", X, rows, 0
    yield "scatter", X, 1, np.array([[0, 2], [3, 1], [1, 0]]), w(3, 2)
    yield "scatter_add", X, 0, rows, w(2, 4)
    for reduction in ("sum", "amax", "amin"):
        yield f"scatter_reduce/{reduction}", X, 0, rows, w(2, 4), reduction
    yield "index_add", X, 0, np.array([2, 0]), w(2, 4)
    yield "index_put", X, (np.array([0, 2]), np.array([1, 3])), w(2)
    yield "nn.functional.embedding", w(5, 3), whole(2, 3, below=5)
    yield "nn.functional.one_hot", whole(2, 3, below=4), 4
    yield "topk", X, 2, 1
    yield "sort", X, 1, True
    yield "argsort", X, 0
    yield "kthvalue", X, 2, 1


def _images() -> Iterator[tuple[Any, ...]]:
    for n in (1, 2, 3):
        space = (4,) * n
        yield f"nn.functional.conv{n}d", w(1, 2, *space), v(2, 2, *(2,) * n), w(2), 1, 1
        yield f"nn.functional.conv_transpose{n}d", w(1, 2, *space), v(2, 1, *(2,) * n), w(1), 2
        yield f"nn.functional.max_pool{n}d", w(1, 2, *space), 2
        yield f"nn.functional.avg_pool{n}d", w(1, 2, *space), 3, 1, 1
    yield "overlapping", "nn.functional.max_pool2d", IMAGE, 3, 2, 1
    yield "nn.functional.adaptive_avg_pool2d", IMAGE, (3, 2)
    yield "global", "nn.functional.adaptive_avg_pool2d", IMAGE, 1
    for mode in ("nearest", "bilinear", "bicubic", "area"):
        yield f"nn.functional.interpolate/{mode}", IMAGE, (7, 3), None, mode
    vectors = p(4), w(4)
    yield "nn.functional.batch_norm", IMAGE, None, None, *vectors, True
    yield "frozen", "nn.functional.batch_norm", IMAGE, Held(w(4)), Held(p(4)), *vectors
    yield "nn.functional.group_norm", IMAGE, 2, *vectors
    yield "nn.functional.instance_norm", IMAGE, None, None, *vectors
    yield "nn.functional.layer_norm", IMAGE, (4,), *vectors
    yield "nn.functional.rms_norm", IMAGE, (4,), vectors[0], 1e-5
    yield "nn.functional.normalize", X


def _losses() -> Iterator[tuple[Any, ...]]:
    yield from ((f"nn.functional.{name}", X, Y) for name in _LOSSES)
    labels, shares = np.array([1, 3, 0]), np.exp(Y) / np.exp(Y).sum(1, keepdims=True)
    yield "nn.functional.binary_cross_entropy_with_logits", X, shares
    yield "nn.functional.kl_div", X, shares, {"reduction": "batchmean"}
    yield "nn.functional.nll_loss", X, labels
    yield "weights", "nn.functional.nll_loss", X, labels, Held(p(4)), {"ignore_index": 3}
    yield "nn.functional.cross_entropy", X, labels
    yield "smooth", "nn.functional.cross_entropy", X, labels, {"label_smoothing": 0.2}
    yield "weights", "nn.functional.cross_entropy", X, labels, Held(p(4)), {"ignore_index": 3}
    yield "of images", "nn.functional.cross_entropy", IMAGE, whole(2, 5, 4, below=4)
    yield "shares", "nn.functional.cross_entropy", X, shares
    yield "nn.functional.multi_margin_loss", X, labels
    yield "nn.functional.cosine_similarity", X, Y
    side = np.array([1.0, -1.0, -1.0])
    yield "nn.functional.cosine_embedding_loss", X, Y, side, {"margin": -0.5}
    signs = np.sign(Y)
    yield "graphc hinge_loss", X, signs
    yield "graphc hinge_loss squared", X, signs
    yield "graphc log_cosh_loss", X, Y
    yield "graphc sigmoid_loss", X[:, :3], shares[:, :3]
    yield "graphc weighted mse_loss", X, Y, p(3)
    yield "graphc accuracy", X, labels
    yield "graphc mean_absolute_error", X, Y


def _layers() -> Iterator[tuple[Any, ...]]:
    def made(**shapes: tuple[int, ...]) -> dict[str, Array]:
        named = enumerate(shapes.items())
        return {key.replace("__", "."): w(*size, phase=i + 0.5) for i, (key, size) in named}

    yield "graphc hard_sigmoid", X * 3.0
    yield "graphc sum_squares", X
    yield "graphc stop_gradient", X
    yield "graphc gather_nd", X, np.array([[0, 1], [2, 3]])
    yield "graphc pick", X, np.array([1, 3, 0])
    yield "graphc cumsum", X
    yield "graphc cumprod", X
    yield "graphc trunc_div", np.array([7, -7, 5]), np.array([2, 2, -3])
    yield "graphc affine", IMAGE, made(weight=(80, 3), bias=(3,))
    yield "graphc conv1d", w(2, 2, 5), made(weight=(3, 2, 2), bias=(3,))
    yield "graphc conv2d", IMAGE, made(weight=(4, 2, 3, 3), bias=(4,))
    yield "graphc conv3d", w(1, 2, 3, 3, 3), made(weight=(2, 2, 2, 2, 2), bias=(2,))
    yield "graphc conv_transpose1d", w(2, 2, 4), made(weight=(2, 3, 2), bias=(3,))
    yield "graphc conv_transpose2d", w(2, 2, 3, 3), made(weight=(2, 3, 3, 3), bias=(3,))
    vectors = made(gamma=(4,), beta=(4,))
    for name in ("batchnorm", "layernorm", "groupnorm", "instancenorm"):
        yield f"graphc {name}", IMAGE, vectors
    yield "graphc rmsnorm", IMAGE, made(gamma=(4,))
    yield "graphc prelu", IMAGE, made(slope=(4,))
    yield "graphc embedding", whole(2, 3, below=5), made(weight=(5, 3))
    heads = {f"{part}{role}": (4,) * n for part in ("q__", "k__", "v__", "") for role, n in ROLES}
    yield "graphc multi_head_attention", w(2, 3, 4), made(**heads)
    yield "graphc learned_positions", w(2, 3, 4), made(weight=(3, 4))
    yield "graphc sinusoidal_positions", w(2, 3, 4)
    yield "graphc rotary_positions", w(2, 3, 4)
    for name, gates in (("rnn", 1), ("rnn relu", 1), ("gru", 3), ("lstm", 4)):
        size = 3 * gates
        one = {f"weight_{of}": (n, size) for of, n in (("ih", 2), ("hh", 3))}
        one |= {f"bias_{of}": (size,) for of in ("ih", "hh")}
        states = (w(2, 3), v(2, 3)) if name == "lstm" else (w(2, 3),)
        yield f"graphc {name}", w(2, 2, 2), *states, made(**one)
        if name != "rnn relu":
            both = one | {f"reverse__{key}": shape for key, shape in one.items()}
            yield f"graphc {name} both ways", w(2, 2, 2), made(**both)
            yield f"graphc {name}_cell", w(2, 2), *states, *made(**one).values()


ROLES = (("weight", 2), ("bias", 1))


def _all() -> Iterator[tuple[str, Stored]]:
    for parts in _calls():
        texts = 2 if len(parts) > 1 and isinstance(parts[1], str) else 1
        name, *args = parts[texts - 1 :]
        more = args.pop() if isinstance(args[-1], dict) else {}
        layer = name.startswith("graphc ")
        label = f"{name}, {parts[0]}" if texts == 2 else name
        yield label, _stored(label, name, tuple(args), {} if layer else more, more if layer else {})


STORED: dict[str, Stored] = dict(_all())
assert len(STORED) == sum(1 for _ in _calls()), "labels are single"
