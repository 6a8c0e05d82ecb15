"""Nets written by hand for what is hard about fusing, sharing memory and sharing work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc import N
from tests.tools.generate import CLASSES, random_feeds

Make = Callable[[str], gc.Net]
Optimizers = Mapping[str, Callable[[], Any]]

NORMAL = gc.Normal(0.4)

OPTIMIZERS: Optimizers = {
    "sgd": lambda: gc.SGD(lr=0.05),
    "momentum": lambda: gc.SGD(lr=0.05, momentum=0.9),
    "nesterov": lambda: gc.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: gc.Adam(lr=0.01, eps=0.01),
    "adamw": lambda: gc.AdamW(lr=0.01, eps=0.01, weight_decay=0.1),
    "rmsprop": lambda: gc.RMSprop(lr=0.01, eps=0.01, momentum=0.5, weight_decay=0.1),
    "adagrad": lambda: gc.Adagrad(lr=0.05, eps=0.01),
    "clipped": lambda: gc.SGD(lr=0.05, momentum=0.9, clip_norm=0.5),
    "accumulated": lambda: gc.SGD(lr=0.05, momentum=0.9, accumulate=2),
    "clipped_adam": lambda: gc.Adam(lr=0.01, eps=0.01, clip_norm=0.5, accumulate=2),
}
"""Adam divides by the root of squares of gradients; some of them are rounding, so eps is large.
Lion, which takes their signs, has a net of its own."""


def start(dtype: str, width: int = 8) -> tuple[gc.Net, gc.Value]:
    net = gc.Net("net", dtype=dtype)
    return net, net.input("x", (N, width))


def finish(net: gc.Net, h: gc.Value) -> gc.Net:
    scores = gc.affine(gc.flatten(h), CLASSES)
    net.output("scores", scores)
    y = net.input("y", (N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def mlp(dtype: str) -> gc.Net:
    net, h = start(dtype)
    for width in (48, 33):
        h = gc.relu(gc.affine(h, width))
    return finish(net, h)


def seed_layers(dtype: str) -> gc.Net:
    net, h = start(dtype)
    for width in (40, 33):
        h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, width))), keep_prob=0.8)
    return finish(net, h)


def deep(dtype: str) -> gc.Net:
    net, h = start(dtype, 24)
    for _ in range(8):
        h = gc.relu(gc.affine(h, 24))
    return finish(net, h)


def wide(dtype: str) -> gc.Net:
    net, h = start(dtype, 40)
    for width in (70, 130):
        h = gc.relu(gc.affine(h, width))
    return finish(net, h)


def shared_weights(dtype: str) -> gc.Net:
    net, x = start(dtype, 20)
    h = gc.affine(x, 20, name="a")
    weight, bias = net["a.weight"], net["a.bias"]
    for _ in range(3):
        h = gc.relu(gc.affine(h, weight=weight, bias=bias)) + h * 0.5
    return finish(net, h)


def gated(dtype: str) -> gc.Net:
    """Two slices of a value that dies in one kernel, then several of its size at once."""
    net, x = start(dtype)
    h = gc.affine(x, 40)
    gate = gc.sigmoid(h[:, :20]) * gc.tanh(h[:, 20:])
    a, b, c = (gc.affine(gate, 40) for _ in range(3))
    mixed = gc.softmax(gc.softmax(a) * b + gc.softmax(c))
    return finish(net, mixed + a + gc.softmax(b))


def residual_of_slice(dtype: str) -> gc.Net:
    """A product of some columns of what is added to it."""
    net, x = start(dtype)
    h = gc.tanh(gc.affine(x, 32))
    weight = net.parameter("w", (20, 32), init=NORMAL)
    return finish(net, gc.relu(h - gc.matmul(h[:, 4:24], weight)))


def concat_of_slices(dtype: str) -> gc.Net:
    net, x = start(dtype)
    h = gc.tanh(gc.affine(x, 32))
    both = gc.concat([h[:, :16], x, h[:, 8:24], h, h], axis=1)
    return finish(net, gc.relu(gc.affine(both, 17)) + both[:, 5:22] + both[:, 12:29])


def slices_of_feeds(dtype: str) -> gc.Net:
    net, x = start(dtype, 20)
    a = x[:, 0:12]
    b, c = a[:, 2:10], x[:, 6:14]
    e = gc.affine(b * c + a[:, 4:12], 16)
    return finish(net, gc.concat([e, b, c], axis=1)[:, 3:29])


def dying_concat(dtype: str) -> gc.Net:
    """Values joined of two, whose memory others may take."""
    net, x = start(dtype)
    h, g = gc.relu(gc.affine(x, 16)), gc.tanh(gc.affine(x, 16))
    a = gc.relu(gc.affine(gc.concat([h, g], axis=1), 32))
    b = gc.batchnorm(gc.affine(gc.concat([a[:, :16], a[:, 16:]], axis=1), 32))
    return finish(net, gc.relu(gc.affine(gc.relu(b), 32)))


def chain_of_concats(dtype: str) -> gc.Net:
    net, x = start(dtype)
    h = gc.affine(x, 32)
    for _ in range(4):
        h = gc.concat([h[:, :16], gc.tanh(gc.affine(h, 16))], axis=1)
        h = gc.relu(gc.affine(h, 32))
    return finish(net, h)


def views_reshaped(dtype: str) -> gc.Net:
    net, x = start(dtype)
    h = gc.tanh(gc.affine(x, 8))
    cut = gc.reshape(h[:, 2:6], (N, 2, 2)) * 2.0
    stopped = gc.stop_gradient(h[:, 2:6]) * h[:, 0:4] + gc.exp(h[:, 0:8])[:, 4:8]
    return finish(net, gc.concat([gc.flatten(cut), stopped], axis=1))


def other_rows(dtype: str) -> gc.Net:
    """Products and normalization after reshaping to more, shorter rows."""
    net, x = start(dtype)
    h = gc.affine(x, 16)
    rows = gc.reshape(h, (2 * N, 8))
    z = gc.batchnorm(gc.relu(gc.affine(gc.softmax(rows), 6)))
    product = gc.affine(rows, 6)
    return finish(net, gc.reshape(z + product, (N, 12)))


def weights_reshaped(dtype: str) -> gc.Net:
    net, x = start(dtype)
    w = net.parameter("w", (4, 6), init=NORMAL)
    v = net.parameter("v", (6, 6), init=NORMAL)
    transposed = gc.matmul(gc.transpose(w, (1, 0)), gc.matmul(w, v))
    both = gc.matmul(gc.reshape(w, (6, 4)), w) + transposed
    return finish(net, gc.tanh(gc.matmul(x, gc.reshape(w, (8, 3)))) + gc.sum(both, (0, 1)))


def squared_weight(dtype: str) -> gc.Net:
    """A weight that is both factors of a product, so that its gradient reads it."""
    net, x = start(dtype)
    w = net.parameter("w", (36, 36), init=gc.Normal(0.2))
    net.loss("penalty", gc.mean(gc.tanh(gc.matmul(w, w)) ** 2))
    return finish(net, gc.matmul(gc.affine(x, 36), w))


def weight_by_rows_and_columns(dtype: str) -> gc.Net:
    net, x = start(dtype)
    w = net.parameter("w", (33, 33), init=NORMAL)
    b = net.parameter("b", (33,), init=NORMAL)
    m = w + b + gc.reshape(b, (33, 1))
    rows, columns = gc.sum(m * m, 1), gc.sum(gc.tanh(m), 0)
    net.loss("penalty", gc.mean(rows * columns) + gc.mean(gc.exp(gc.softmax(w)) * w))
    return finish(net, gc.matmul(gc.affine(x, 33), w))


def static_matrices(dtype: str) -> gc.Net:
    net, x = start(dtype)
    p = net.parameter("p", (1, 20), init=NORMAL)
    q = net.parameter("q", (20, 1), init=NORMAL)
    r = net.parameter("r", (1, 1), init=NORMAL)
    long = gc.concat([p, gc.tanh(p)], axis=1)
    v = gc.sum(q, 0) + gc.sum(r, 0) + gc.sum(r, 1)
    h = gc.affine(x, 20) * long[:, 5:25] + gc.transpose(q, (1, 0))
    return finish(net, h * v + gc.sum(long, 0)[3:23] + gc.sum(r))


def scalars(dtype: str) -> gc.Net:
    net, x = start(dtype)
    t, p = net.input("t", ()), net.parameter("p", (), init=gc.Constant(0.7))
    h = gc.affine(x, 20) * p + t * p
    net.output("line", p * t + 1.0)
    net.output("mean", gc.mean(h) * t)
    return finish(net, gc.tanh(h) * gc.exp(p * t * 0.1))


def plain_outputs(dtype: str) -> gc.Net:
    """Inputs, parameters, slices and reshaped values as outputs."""
    net, x = start(dtype)
    net.output("same", x)
    net.output("blocks", gc.reshape(x, (N, 2, 4)))
    h = gc.affine(x, 8, name="a")
    net.output("weight", net["a.weight"])
    net.output("flat", gc.reshape(net["a.weight"], (64,)))
    net.output("cut", h[:, 2:5])
    net.output("h", h)
    net.output("h_flat", gc.flatten(h))
    return finish(net, gc.relu(h))


def gradient_penalty(dtype: str) -> gc.Net:
    net, x = start(dtype)
    h = gc.tanh(gc.affine(x, 18))
    slope = gc.grad(gc.sum(gc.affine(h, 1)), x)
    assert isinstance(slope, gc.Value)
    net.loss("penalty", gc.mean((gc.sum(slope * slope, 1) - 1.0) ** 2))
    return finish(net, h)


def whole_numbers(dtype: str) -> gc.Net:
    net, x = start(dtype)
    k = net.input("k", (N,), dtype="int64")
    h = gc.affine(x, 20)
    above = gc.greater(h, 0.1)
    z = gc.where(above, h, h * 0.1) + gc.cast(gc.one_hot(k, 20), dtype)
    net.output("argmax", gc.argmax(z, axis=1))
    net.output("above", above)
    net.output("k_same", k)
    net.output("picked", gc.pick(h, k))
    return finish(net, z)


def towers(dtype: str) -> gc.Net:
    """Two inputs, two losses."""
    net, x = start(dtype, 12)
    z = net.input("z", (N, 5))
    a, b = gc.relu(gc.affine(x, 18)), gc.tanh(gc.affine(z, 18))
    c = a * b + a
    net.output("c", c)
    net.loss("again", gc.mean((gc.affine(c, 12) - x) ** 2))
    return finish(net, gc.concat([a, b, c], axis=1))


def three_axes(dtype: str) -> gc.Net:
    net = gc.Net("net", dtype=dtype)
    x = net.input("x", (N, 3, 4))
    h = gc.softmax(gc.relu(gc.affine(x, 8, axis=-1)))
    h = gc.affine(gc.transpose(h, (0, 2, 1)), 4, axis=-1)
    return finish(net, h[:, 2:6] * h[:, 0:4])


def images(dtype: str) -> gc.Net:
    """A block of a residual net: borders, strides, single pixels, pools."""
    net = gc.Net("net", dtype=dtype)
    x = net.input("x", (N, 2, 6, 6))
    h = gc.max_pool(gc.relu(gc.conv2d(x, 5, 3, padding=1, init=NORMAL)), 2)
    g = gc.relu(gc.batchnorm(gc.conv2d(h, 4, 3, stride=2, padding=1, bias=False, init=NORMAL)))
    h = g + gc.conv2d(h, 4, 1, stride=2, init=NORMAL)
    return finish(net, gc.avg_pool(h, 2, stride=1, padding=((1, 0), (0, 0))))


def lines_of_pixels(dtype: str) -> gc.Net:
    """One dimension of space: dilation, groups, overlapping pools, a transposed convolution."""
    net = gc.Net("net", dtype=dtype)
    h = net.input("x", (N, 4, 9))
    h = gc.conv1d(h, 4, 3, dilation=2, padding=1, groups=4, init=NORMAL)
    h = gc.max_pool(gc.tanh(h), 3, stride=2)
    h = gc.conv1d(gc.conv_transpose1d(h, 4, 2, stride=2, init=NORMAL), 6, 2, groups=2, init=NORMAL)
    return finish(net, h)


_MAKERS: tuple[Make, ...] = (
    mlp,
    seed_layers,
    deep,
    wide,
    shared_weights,
    gated,
    residual_of_slice,
    concat_of_slices,
    slices_of_feeds,
    dying_concat,
    chain_of_concats,
    views_reshaped,
    other_rows,
    weights_reshaped,
    squared_weight,
    weight_by_rows_and_columns,
    static_matrices,
    scalars,
    plain_outputs,
    gradient_penalty,
    whole_numbers,
    towers,
    three_axes,
    images,
    lines_of_pixels,
)

NETS: Mapping[str, Make] = {make.__name__: make for make in _MAKERS}


ROUNDING = 16
"""Roundings of an array's largest entry that may be left in its smallest ones."""


def feeds_of(net: gc.Net, n: int, seed: int = 0) -> dict[str, Any]:
    """An array for each input."""
    return random_feeds(net.graph(), n, seed)


def assert_close(found: Any, wanted: Any, tolerance: float, what: str) -> None:
    """Numbers, arrays, and dictionaries of arrays by name.

    Nets that diverge have entries near zero among huge ones: what is left of a difference of
    terms as large as those, whose rounding they cannot do without.
    """
    if isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys(), what
        for name in wanted:
            assert_close(found[name], wanted[name], tolerance, f"{what}: {name}")
        return
    a, b = np.asarray(found), np.asarray(wanted)
    assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: {a.dtype}{a.shape}"
    largest = np.max(np.abs(b), initial=0, where=np.isfinite(b))
    rounding = ROUNDING * np.finfo(b.dtype).eps * largest if b.dtype.kind == "f" else 0
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=max(tolerance, rounding), err_msg=what)
