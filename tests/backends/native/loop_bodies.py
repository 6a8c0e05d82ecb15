"""Bodies of typical `Loop` kernels."""

from __future__ import annotations

from graphc.ir.expr import Body, BodyBuilder, call, philox, select
from graphc.kernels.philox import threshold


def softmax_loss(dtype: str = "float32") -> Body:
    """The loss of each row of scores, its gradient, and how many rows are right."""
    b = BodyBuilder()
    x, label = b.load("x", "each", dtype), b.load("label", "row", "int64")
    largest = x.max("columns")
    powers = call("exp", x - largest)
    total = powers.sum("columns")
    here = b.index("columns").equals(label)
    picked = select(here, x, b.const(0, dtype)).sum("columns")
    b.store(call("log", total) + largest - picked, "loss", "row")
    gradient = (powers / total - here.cast(dtype)) / b.size("rows", dtype)
    b.store(gradient, "dx", "each")
    return b.body()


def bias_update(dtype: str = "float32") -> Body:
    """The gradient of a bias from d, and a step of momentum in place."""
    b = BodyBuilder()
    d, p, v = (b.load(n, s, dtype) for n, s in (("d", "each"), ("p", "column"), ("v", "column")))
    lr, mu = b.load("lr", "one", dtype), b.load("mu", "one", dtype)
    velocity = mu * v + d.sum("rows")
    b.store(velocity, "v.next", "column")
    b.store(p - lr * velocity, "p.next", "column")
    return b.body()


def batchnorm(dtype: str = "float32", keep: float = 0.8) -> Body:
    """Batchnorm with running averages, relu and dropout."""
    b = BodyBuilder()
    x = b.load("x", "each", dtype)
    names = ("gamma", "beta", "running.mean", "running.var")
    gamma, beta, mean0, var0 = (b.load(name, "column", dtype) for name in names)
    seed, draws = b.load("seed", "one", "uint64"), b.load("draws", "one", "int64")
    mean = x.mean("rows")
    centred = x - mean
    var = (centred * centred).mean("rows")
    scale = 1 / call("sqrt", var + 1e-5)
    normal = centred * scale
    y = call("maximum", normal * gamma + beta, b.const(0, dtype))
    kept = philox(seed, draws, 77) < threshold(keep)
    b.store(select(kept, y * (1 / keep), b.const(0, dtype)), "y", "each")
    b.store(normal, "normal", "each")
    b.store(scale, "scale", "column")
    b.store(mean0 * 0.9 + mean * 0.1, "running.mean.next", "column")
    b.store(var0 * 0.9 + var * 0.1, "running.var.next", "column")
    return b.body()


def batchnorm_gradient(dtype: str = "float32") -> Body:
    """The gradient of batchnorm in its input, gamma, beta, and of a bias before it."""
    b = BodyBuilder()
    dy, normal = b.load("dy", "each", dtype), b.load("normal", "each", dtype)
    gamma, scale = b.load("gamma", "column", dtype), b.load("scale", "column", dtype)
    dbeta, dgamma = dy.sum("rows"), (dy * normal).sum("rows")
    rows = b.size("rows", dtype)
    dx = gamma * scale * (dy - (dbeta + normal * dgamma) / rows)
    b.store(dx, "dx", "each")
    b.store(dx.sum("rows"), "dbias", "column")
    b.store(dgamma, "dgamma", "column")
    b.store(dbeta, "dbeta", "column")
    return b.body()


def relu_dropout(dtype: str = "float32") -> Body:
    """Scaled relu with dropout: plain elements with random words."""
    b = BodyBuilder()
    x = b.load("x", "each", dtype)
    kept = philox(b.load("seed", "one", "uint64"), b.load("draws", "one", "int64"), 5) < 2**31
    b.store(select(kept, call("maximum", x, 0.0) * 2.0, b.const(0, dtype)), "y", "each")
    return b.body()


def momentum(dtype: str = "float32") -> Body:
    """A step of momentum in place."""
    b = BodyBuilder()
    p, v, g = (b.load(name, "each", dtype) for name in ("p", "v", "g"))
    velocity = b.load("mu", "one", dtype) * v + g
    b.store(velocity, "v.next", "each")
    b.store(p - b.load("lr", "one", dtype) * velocity, "p.next", "each")
    return b.body()


def standardize(dtype: str = "float32") -> Body:
    """Batchnorm at inference: a scale and a shift computed once a column."""
    b = BodyBuilder()
    x = b.load("x", "each", dtype)
    names = ("gamma", "beta", "mean", "var")
    gamma, beta, mean, var = (b.load(name, "column", dtype) for name in names)
    b.store((x - mean) * (gamma / call("sqrt", var + 1e-5)) + beta, "y", "each")
    return b.body()


def mean_of_all(dtype: str = "float32") -> Body:
    """The mean of a single row, as a number."""
    b = BodyBuilder()
    b.store(b.load("x", "each", dtype).mean("columns"), "mean", "one")
    return b.body()
