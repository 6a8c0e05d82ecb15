"""A small GPT and a small ViT: the workloads, what they note, and their numbers in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

LETTERS, STEPS, WIDTH, HEADS, LAYERS, BATCH = 65, 64, 128, 4, 4, 16


class SequenceMaker(Protocol):
    """What a net over sequences is declared with, besides what `Maker` has.

    Values are (batch, steps, width).  Parameters are taken in the order of the calls: the rows of
    an embedding and of positions, gamma and beta of a layernorm, weight and bias of a linear map.
    """

    def tokens(self, name: str, letters: int, steps: int) -> Any:
        """An int64 feed, (batch, steps)."""

    def embedding(self, ids: Any, letters: int, width: int) -> Any:
        """The row of each token."""

    def positions(self, h: Any, steps: int, width: int) -> Any:
        """h and the row of each step."""

    def layernorm(self, h: Any) -> Any:
        """Each vector with mean 0 and variance 1, scaled and moved."""

    def linear(self, h: Any, width: int) -> Any:
        """h @ weight + bias along the last axis."""

    def patches(self, h: Any) -> Any:
        """The pixels of an image as steps, row after row."""

    def mean_steps(self, h: Any) -> Any:
        """The mean over all steps, (batch, width)."""

    def heads(self, q: Any, k: Any, v: Any, count: int, causal: bool) -> Any:
        """Attention in so many parts of the width, side by side."""

    def gelu(self, h: Any) -> Any:
        """Its form by tanh."""

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""

    def output(self, h: Any) -> None:
        """What inference returns."""

    def sequence_loss(self, scores: Any, labels: Any) -> None:
        """Cross-entropy, the mean over all steps of all rows."""


@dataclass(frozen=True)
class Gpt:
    """A decoder of these sizes."""

    letters: int = LETTERS
    steps: int = STEPS
    width: int = WIDTH
    heads: int = HEADS
    layers: int = LAYERS

    def __call__(self, m: Any) -> None:
        """Declare the net."""
        h = m.embedding(m.tokens("ids", self.letters, self.steps), self.letters, self.width)
        h = m.positions(h, self.steps, self.width)
        for _ in range(self.layers):
            h = block(m, h, self.width, self.heads, causal=True)
        scores = m.linear(m.layernorm(h), self.letters)
        m.output(scores)
        m.sequence_loss(scores, m.tokens("y", self.letters, self.steps))


@dataclass(frozen=True)
class ViT:
    """An encoder of an image's patches (Dosovitskiy et al. 2020, arXiv:2010.11929), ten classes."""

    side: int = 32
    patch: int = 4
    width: int = 192
    heads: int = 3
    layers: int = 4

    def __call__(self, m: Any) -> None:
        """Declare the net."""
        image = m.image("x", (3, self.side, self.side))
        h = m.patches(m.conv(image, self.width, self.patch, self.patch, 0, True))
        h = m.positions(h, (self.side // self.patch) ** 2, self.width)
        for _ in range(self.layers):
            h = block(m, h, self.width, self.heads, causal=False)
        scores = m.affine(m.mean_steps(m.layernorm(h)), 10)
        m.output(scores)
        m.softmax_loss(scores, m.labels("y", 10))


def block(m: Any, h: Any, width: int, heads: int, causal: bool) -> Any:
    """Attention and two linear maps, each behind a layernorm and added to what it read."""
    normal = m.layernorm(h)
    q, k, v = (m.linear(normal, width) for _ in range(3))
    h = m.add(h, m.linear(m.heads(q, k, v, heads, causal), width))
    inner = m.gelu(m.linear(m.layernorm(h), 4 * width))
    return m.add(h, m.linear(inner, width))


# ---------------------------------------------------------------------- what it needs


@dataclass(frozen=True)
class Steps:
    """A value: how many steps of how many numbers."""

    steps: int
    width: int
    trained: bool = True


class SequenceOutline:
    """Notes parameters, feeds and flops; see `Outline`."""

    rows_forward: int
    rows_backward: int
    _normal: Callable[[tuple[int, ...], float, float], None]

    def __init__(self) -> None:
        self.token_feeds: dict[str, tuple[int, int]] = {}
        """By name: how many tokens there are, and the steps."""

    def tokens(self, name: str, letters: int, steps: int) -> Steps:
        self.token_feeds[name] = (letters, steps)
        return Steps(steps, 1)

    def embedding(self, ids: Steps, letters: int, width: int) -> Steps:
        self._normal((letters, width), 0.0, 0.5)
        return Steps(ids.steps, width)

    def positions(self, h: Steps, steps: int, width: int) -> Steps:
        self._normal((steps, width), 0.0, 0.1)
        return h

    def layernorm(self, h: Steps) -> Steps:
        self._normal((h.width,), 1.0, 0.1)
        self._normal((h.width,), 0.0, 0.1)
        return h

    def linear(self, h: Steps, width: int) -> Steps:
        self._normal((h.width, width), 0.0, h.width**-0.5)
        self._normal((width,), 0.0, 0.01)
        self._products(2 * h.steps * h.width * width)
        return Steps(h.steps, width)

    def patches(self, h: Any) -> Steps:
        return Steps(h.side * h.side, h.width)

    def mean_steps(self, h: Steps) -> Steps:
        return h

    def heads(self, q: Steps, k: Steps, v: Steps, count: int, causal: bool) -> Steps:
        self._products(4 * q.steps * q.steps * q.width)
        return q

    def gelu(self, h: Steps) -> Steps:
        return h

    def sequence_loss(self, scores: Steps, labels: Steps) -> None:
        """A loss has no product."""

    def _products(self, forward: int) -> None:
        self.rows_forward += forward
        self.rows_backward += 2 * forward


# ---------------------------------------------------------------------- float64

EPS = 1e-5
GELU, CUBE = (2 / np.pi) ** 0.5, 0.044715


class SequenceTape:
    """Computes at once and can go back; see `Tape`."""

    loss: float
    _feeds: Any
    _parameters: Any
    _back: list[Callable[[], None]]
    _record: Callable[[Any, Callable[[], None]], Any]
    _value: Callable[[Any], Any]

    def tokens(self, name: str, letters: int, steps: int) -> Any:
        return self._feeds[name]

    def embedding(self, ids: Any, letters: int, width: int) -> Any:
        table = next(self._parameters)

        def back() -> None:
            grad = np.zeros_like(table.array)
            np.add.at(grad, ids, out.grad)
            table.grad += grad

        out = self._value(table.array[ids])
        return self._record(out, back)

    def positions(self, h: Any, steps: int, width: int) -> Any:
        rows = next(self._parameters)

        def back() -> None:
            rows.grad += out.grad.sum(0)
            h.grad = h.grad + out.grad

        out = self._value(h.array + rows.array)
        return self._record(out, back)

    def layernorm(self, h: Any) -> Any:
        gamma, beta = next(self._parameters), next(self._parameters)
        scale = 1 / np.sqrt(h.array.var(-1, keepdims=True) + EPS)
        normal = (h.array - h.array.mean(-1, keepdims=True)) * scale

        def back() -> None:
            gamma.grad += (out.grad * normal).sum((0, 1))
            beta.grad += out.grad.sum((0, 1))
            d = out.grad * gamma.array
            centred = d - d.mean(-1, keepdims=True)
            h.grad = h.grad + scale * (centred - normal * (d * normal).mean(-1, keepdims=True))

        out = self._value(normal * gamma.array + beta.array)
        return self._record(out, back)

    def linear(self, h: Any, width: int) -> Any:
        weight, bias = next(self._parameters), next(self._parameters)

        def back() -> None:
            flat = h.array.reshape(-1, h.array.shape[-1])
            weight.grad += flat.T @ out.grad.reshape(-1, width)
            bias.grad += out.grad.sum((0, 1))
            h.grad = h.grad + out.grad @ weight.array.T

        out = self._value(h.array @ weight.array + bias.array)
        return self._record(out, back)

    def patches(self, h: Any) -> Any:
        n, channels = h.array.shape[:2]

        def back() -> None:
            h.grad = h.grad + out.grad.swapaxes(1, 2).reshape(h.array.shape)

        out = self._value(h.array.reshape(n, channels, -1).swapaxes(1, 2))
        return self._record(out, back)

    def mean_steps(self, h: Any) -> Any:
        def back() -> None:
            steps = h.array.shape[1]
            h.grad = h.grad + np.broadcast_to(out.grad[:, None] / steps, h.array.shape)

        out = self._value(h.array.mean(1))
        return self._record(out, back)

    def heads(self, q: Any, k: Any, v: Any, count: int, causal: bool) -> Any:
        def apart(x: Any) -> Any:
            return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)

        def together(x: Any) -> Any:
            return x.swapaxes(1, 2).reshape(q.array.shape)

        a, b, c = (apart(x.array) for x in (q, k, v))
        scale = a.shape[-1] ** -0.5
        seen = np.tri(a.shape[2], dtype=bool) if causal else True
        scores = np.where(seen, a @ b.swapaxes(-1, -2) * scale, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)

        def back() -> None:
            d = apart(out.grad)
            dp = d @ c.swapaxes(-1, -2)
            ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * scale
            q.grad = q.grad + together(ds @ b)
            k.grad = k.grad + together(ds.swapaxes(-1, -2) @ a)
            v.grad = v.grad + together(p.swapaxes(-1, -2) @ d)

        out = self._value(together(p @ c))
        return self._record(out, back)

    def gelu(self, h: Any) -> Any:
        x = h.array
        odd = np.tanh(GELU * (x + CUBE * x**3))

        def back() -> None:
            slope = 0.5 * x * (1 - odd**2) * GELU * (1 + 3 * CUBE * x**2)
            h.grad = h.grad + out.grad * (0.5 * (1 + odd) + slope)

        out = self._value(0.5 * x * (1 + odd))
        return self._record(out, back)

    def sequence_loss(self, scores: Any, labels: Any) -> None:
        shifted = scores.array - scores.array.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        own = np.take_along_axis(logs, labels[..., None], -1)

        def back() -> None:
            d = np.exp(logs)
            np.put_along_axis(d, labels[..., None], np.exp(own) - 1, -1)
            scores.grad = scores.grad + d / labels.size

        self.loss -= float(own.mean())
        self._back.append(back)
