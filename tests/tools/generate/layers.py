"""Steps that are layers and products: what has parameters, and what follows it."""

from __future__ import annotations

import graphc as gc
from tests.tools.generate.growth import Growth, columns, features


def affine(g: Growth, x: gc.Value) -> gc.Value:
    axis = -1 if g.chance(0.3) else None
    out = gc.affine(x, g.width(), axis=axis, bias=g.chance(0.8))
    inputs = out.node.inputs
    if len(inputs) == 3 and axis is None:
        builder = g.net.builder
        g.shareable.append((builder.value(inputs[1]), builder.value(inputs[2])))
    return out


def shared_affine(g: Growth, x: gc.Value) -> gc.Value:
    """A weight, and mostly the bias, of a layer before."""
    flat = gc.flatten(x)
    fitting = [(w, b) for w, b in g.shareable if w.shape[0] == flat.shape[1]]
    if not fitting:
        return affine(g, x)
    weight, bias = g.choice(*fitting)
    return gc.affine(flat, weight=weight, bias=bias if g.chance(0.8) else g.chance(0.5))


def affine_relu(g: Growth, x: gc.Value) -> gc.Value:
    return gc.relu(affine(g, x))


def affine_batchnorm(g: Growth, x: gc.Value) -> gc.Value:
    return batchnorm(g, affine(g, x))


def batchnorm(g: Growth, x: gc.Value) -> gc.Value:
    if g.chance(0.6):
        return gc.batchnorm(x, frozen=g.chance(0.15))
    return gc.batchnorm(x, eps=g.choice(1e-3, 0.1), running_decay=g.choice(0.0, 0.5, 0.99))


def batchnorm_of_image(g: Growth, x: gc.Value) -> gc.Value:
    """A feature axis with one or two axes behind it."""
    size = features(x)
    channels = g.choice(*[k for k in (1, 2, 3, 5) if size % k == 0])
    shape = (channels, size // channels) if g.chance(0.5) else (channels, 1, size // channels)
    return batchnorm(g, gc.reshape(x, (gc.N, *shape)))


def prelu(g: Growth, x: gc.Value) -> gc.Value:
    """Of features; of a batch alone there are none."""
    return gc.prelu(x if x.type.rank > 1 else g.matrix(x))


def row_norm(g: Growth, x: gc.Value) -> gc.Value:
    h = x if x.type.rank > 1 else g.matrix(x)
    layer = gc.layernorm if g.chance(0.6) else gc.rmsnorm
    return layer(h, eps=g.choice(1e-3, 0.1))


def dropout(g: Growth, x: gc.Value) -> gc.Value:
    """Half of them of what has parameters, whose gradients read the mask."""
    x = affine(g, x) if g.chance(0.5) else x
    if g.chance(0.2):
        return gc.dropout(x, drop_prob=0.25)
    return gc.dropout(x, keep_prob=g.choice(0.5, 0.8, 0.8, 1.0))


def noise(g: Growth, x: gc.Value) -> gc.Value:
    """Random numbers added or multiplied, or a sample of a normal distribution that is learned."""
    draw = g.choice(gc.random_normal, gc.random_uniform)
    h = x + draw(x) * 0.5 if g.chance(0.5) else x * draw(x, (gc.N, *[1] * (x.type.rank - 1)))
    if x.type.rank < 2 or g.chance(0.6):
        return gc.tanh(h)
    policy = gc.Gaussian(gc.tanh(h), g.parameter(columns(x)) * 0.1, squash=g.chance(0.5))
    sample = policy.sample()
    g.loss(gc.mean(policy.log_prob(sample)) * 0.1)
    return sample


def residual(g: Growth, x: gc.Value) -> gc.Value:
    return x + gc.relu(gc.affine(x, columns(x), axis=-1))


def matmul(g: Growth, x: gc.Value) -> gc.Value:
    """By a parameter, which leading axes are broadcast against."""
    out = gc.matmul(x, g.parameter(columns(x), g.width()))
    return gc.tanh(out) if g.chance(0.5) else out


def matmul_of_rows(g: Growth, x: gc.Value) -> gc.Value:
    """A product for each row of the batch, with both factors from the net."""
    if x.type.rank != 3:
        return matmul(g, x)
    product = gc.matmul(x, gc.transpose(g.like(x), (0, 2, 1)))
    return gc.tanh(product * 0.3)


def product_of_slice(g: Growth, x: gc.Value) -> gc.Value:
    """A product of some columns of what is added to it."""
    h = g.matrix(x)
    if columns(h) < 6:
        return -h
    return gc.matmul(h[:, 1:5], g.parameter(4, columns(h))) + h


def other_rows(g: Growth, x: gc.Value) -> gc.Value:
    """Twice the rows for a while."""
    h = g.matrix(x)
    half = columns(h) // 2
    if columns(h) % 2:
        return gc.tanh(h)
    rows = gc.reshape(h, (2 * gc.N, half))
    if g.chance(0.5):
        rows = gc.affine(gc.softmax(rows), half)
    else:
        rows = gc.tanh(rows) - gc.mean(rows, 1, keepdims=True)
    return gc.reshape(rows, (gc.N, 2 * half))


def joined_rows(g: Growth, x: gc.Value) -> gc.Value:
    """Two values below each other, which one layer maps at once."""
    h = g.matrix(x)
    both = gc.affine(gc.concat([h, g.like(h)], axis=0), 2)
    return gc.reshape(both, (gc.N, 4))


STEPS = {
    affine: 8,
    shared_affine: 4,
    affine_relu: 8,
    affine_batchnorm: 7,
    batchnorm: 2,
    batchnorm_of_image: 1,
    prelu: 1,
    row_norm: 3,
    dropout: 4,
    noise: 2,
    residual: 3,
    matmul: 2,
    matmul_of_rows: 1,
    product_of_slice: 1,
    other_rows: 1,
    joined_rows: 1,
}
