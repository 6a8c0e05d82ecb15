"""Nets that show faults below the graph: each has some kinds of kernels, and is small."""

from __future__ import annotations

import graphc as gc


def slices() -> gc.Net:
    """Backward slices, a padding with a value, a concatenation, and their gradients."""
    net = gc.Net("slices")
    x = net.input("x", (gc.N, 6))
    h = gc.affine(x, 7, name="h")
    h = gc.concat([h[:, ::-2], gc.pad(h[:, 1:4], ((0, 0), (1, 0)), 0.5)], axis=1)
    net.output("out", h)
    net.loss("loss", gc.mean(h * h * h))
    return net


def images() -> gc.Net:
    """Convolutions with dilation, stride and groups, and a pooling."""
    net = gc.Net("images")
    x = net.input("x", (gc.N, 2, 9, 8))
    h = gc.relu(gc.conv2d(x, 4, 3, padding=2, dilation=2, name="first"))
    h = gc.max_pool(gc.conv2d(h, 4, 3, padding=1, groups=4, name="depthwise"), 2)
    h = gc.conv2d(h, 3, 2, dilation=2, name="last")
    net.output("h", h)
    net.loss("loss", gc.mean(h * h))
    return net


def layers() -> gc.Net:
    """Two products with batchnorm, relu and dropout, and classes."""
    net = gc.Net("layers")
    x = net.input("x", (gc.N, 12))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 20, name="first"), name="bn"))
    h = gc.dropout(h, keep_prob=0.75, name="drop")
    scores = gc.affine(h, 5, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def noise() -> gc.Net:
    """A sample of a learned normal distribution, and uniform numbers."""
    net = gc.Net("noise")
    x = net.input("x", (gc.N, 12))
    policy = gc.Gaussian(gc.affine(x, 5), net.parameter("log_std", (5,)), squash=True)
    sample = net.output("sample", policy.sample())
    net.loss("loss", gc.mean(policy.log_prob(sample) + gc.random_uniform(x, (gc.N,))))
    return net


def maths() -> gc.Net:
    """One of each function of one number."""
    net = gc.Net("maths")
    x = net.input("x", (gc.N, 40))
    h = x * net.parameter("scale", (40,), init=1.0)
    net.output("tanh", gc.tanh(h))
    net.output("sigmoid", gc.sigmoid(h * 3))
    net.output("erf", gc.gelu(h))
    net.output("exp", gc.exp(h * 4))
    net.output("log", gc.log(gc.abs(h) + 0.125))
    net.output("root", gc.sqrt(h * h + 1))
    net.output("power", (gc.abs(h) + 0.5) ** 2.5)
    net.output("cube", h**3)
    net.output("softmax", gc.softmax(h))
    net.output("floor", gc.floor(h * 2.7))
    net.output("half", gc.clip(h, -0.7, 0.9))
    net.loss("loss", gc.mean(gc.tanh(h) * gc.gelu(h)))
    return net


def tables() -> gc.Net:
    """Rows of a table, attention over them, transposes, and their gradients."""
    net = gc.Net("tables")
    words = net.input("words", (gc.N, 5), dtype="int64")
    table = net.parameter("table", (11, 8), init="he")
    h = gc.gather(table, words)
    weights = gc.softmax(gc.matmul(h, gc.transpose(h, (0, 2, 1))) * 0.3)
    h = gc.matmul(weights, h)
    h = gc.transpose(gc.exp(gc.transpose(h, (2, 1, 0)) * 0.5), (2, 1, 0))
    net.output("h", h)
    net.loss("loss", gc.mean(gc.sum(h, axis=1) ** 2))
    return net
