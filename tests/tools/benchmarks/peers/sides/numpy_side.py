"""NumPy with every buffer made beforehand: any net, as calls that write where they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step
from tests.tools.benchmarks.peers.workloads import DECAY, EPS, MOMENTUM, Workload

Call = Callable[[], object]
BLOCK = 1 << 15
"""The optimizer goes through the parameters in blocks that fit the cache."""

f32 = np.float32
add, multiply, subtract, dot = np.add, np.multiply, np.subtract, np.dot


class Value:
    """A buffer, the buffer of its gradient, and the last reader, which backward meets first."""

    def __init__(self, array: Array, trained: bool, feed: str | None = None) -> None:
        self.array, self.feed = array, feed
        self.grad = np.zeros_like(array) if trained else None
        self.reader: _Give | None = None


class Buffers(Side):
    """One list of calls forward, one backward, and the optimizer over one flat array."""

    def versions(self) -> str:
        return f"numpy {np.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        net = Calls(parameters, workload.batch, dropout, train=True)
        workload.declare(net)
        forward, backward = net.forward, net.backward()
        update = _update(net.flat, net.flat_gradients, workload.lr)
        feeds, losses = net.feeds, net.losses

        def step(given: Any) -> float:
            feeds.update(given)
            for call in forward:
                call()
            for call in backward:
                call()
            update()
            return float(sum(losses))

        return step

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        net = Calls(parameters, batch, dropout=False, train=False)
        workload.declare(net)
        forward, feeds, result = net.forward, net.feeds, net.result

        def infer(given: Any) -> Any:
            feeds.update(given)
            for call in forward:
                call()
            return result.array.copy()

        return infer


class Calls:
    """A maker that allocates buffers and notes calls."""

    def __init__(self, parameters: list[Array], batch: int, dropout: bool, train: bool) -> None:
        self.flat = np.concatenate([p.ravel() for p in parameters])
        self.flat_gradients = np.zeros_like(self.flat)
        self.feeds: dict[str, Any] = {}
        self.losses: list[float] = []
        self.forward: list[Call] = []
        self.result: Any = None
        self._backward: list[list[Call]] = []
        self._batch, self._dropout, self._train = batch, dropout, train
        self._parameters = iter(self._split(parameters))
        self._ones = np.ones(batch, f32)
        self._random = np.random.Generator(np.random.SFC64(1))

    def _split(self, parameters: list[Array]) -> list[tuple[Array, Array]]:
        ends = np.cumsum([p.size for p in parameters])
        return [
            tuple(f[e - p.size : e].reshape(p.shape) for f in (self.flat, self.flat_gradients))
            for p, e in zip(parameters, ends, strict=True)
        ]

    def backward(self) -> list[Call]:
        """The calls from the losses back to the parameters."""
        return [call for calls in reversed(self._backward) for call in calls]

    def _buffer(self, width: int, trained: bool = True) -> Value:
        return Value(np.empty((self._batch, width), f32), trained and self._train)

    def _back(self, *calls: Call) -> None:
        if self._train:
            self._backward.append(list(calls))

    # ------------------------------------------------------------------ feeds

    def input(self, name: str, width: int) -> Value:
        self.feeds[name] = np.zeros((self._batch, width), f32)
        return Value(self.feeds[name], False, name)

    target = input

    def labels(self, name: str, classes: int) -> Value:
        self.feeds[name] = np.zeros(self._batch, np.int64)
        return Value(self.feeds[name], False, name)

    # ------------------------------------------------------------------ layers

    def affine(self, h: Value, width: int) -> Value:
        (weight, dweight), (bias, dbias) = next(self._parameters), next(self._parameters)
        out, feeds, feed, ones = self._buffer(width), self.feeds, h.feed, self._ones
        z, d, x, turned = out.array, out.grad, h.array, weight.T
        if feed is None:
            self.forward.append(lambda: dot(x, weight, out=z))
            products: list[Call] = [lambda: dot(x.T, d, out=dweight)]
        else:
            self.forward.append(lambda: dot(feeds[feed], weight, out=z))
            products = [lambda: dot(feeds[feed].T, d, out=dweight)]
        self.forward.append(lambda: add(z, bias, out=z))
        products.append(lambda: dot(ones, d, out=dbias))
        if h.grad is not None:
            products += self._give(h, lambda into: dot(d, turned, out=into))
        self._back(*products)
        return out

    def relu(self, h: Value) -> Value:
        out = self._buffer(h.array.shape[1])
        x, z, d, zero = h.array, out.array, out.grad, f32(0)
        mask = np.empty(x.shape, bool)
        self.forward.append(lambda: np.maximum(x, zero, out=z))
        if self._train:
            give = self._give(h, lambda into: multiply(d, mask, out=into))
            self._back(lambda: np.greater(x, zero, out=mask), *give)
        return out

    def dropout(self, h: Value, keep: float) -> Value:
        if not self._dropout:
            return h
        out = self._buffer(h.array.shape[1])
        x, z, d, random = h.array, out.array, out.grad, self._random
        mask, limit, scale = np.empty_like(x), f32(keep), f32(1 / keep)
        self.forward += [
            lambda: random.random(out=mask, dtype=f32),
            lambda: np.less(mask, limit, out=mask),
            lambda: multiply(mask, scale, out=mask),
            lambda: multiply(x, mask, out=z),
        ]
        self._back(*self._give(h, lambda into: multiply(d, mask, out=into)))
        return out

    def batchnorm(self, h: Value) -> Value:
        (gamma, dgamma), (beta, dbeta) = next(self._parameters), next(self._parameters)
        out = self._buffer(h.array.shape[1])
        x, z, d, ones = h.array, out.array, out.grad, self._ones
        normal, extra, part = np.empty_like(x), np.empty_like(x), f32(1 / self._batch)
        mean, var, scale, factor = (np.empty_like(gamma) for _ in range(4))
        running = np.zeros_like(gamma), np.ones_like(gamma)
        keep, rest, eps = f32(DECAY), f32(1 - DECAY), f32(EPS)

        def forward() -> None:
            multiply(dot(ones, x, out=mean), part, out=mean)
            subtract(x, mean, out=normal)
            multiply(normal, normal, out=extra)
            multiply(dot(ones, extra, out=var), part, out=var)
            np.reciprocal(np.sqrt(add(var, eps, out=scale), out=scale), out=scale)
            multiply(normal, scale, out=normal)
            add(multiply(normal, gamma, out=z), beta, out=z)
            for kept, new in zip(running, (mean, var), strict=True):
                multiply(kept, keep, out=kept)
                add(kept, multiply(new, rest, out=new), out=kept)

        def backward(into: Array) -> None:
            dot(ones, multiply(d, normal, out=extra), out=dgamma)
            dot(ones, d, out=dbeta)
            multiply(normal, multiply(dgamma, part, out=factor), out=extra)
            subtract(d, extra, out=extra)
            subtract(extra, multiply(dbeta, part, out=factor), out=extra)
            multiply(extra, multiply(scale, gamma, out=factor), out=into)

        self.forward.append(forward)
        self._back(*self._give(h, backward))
        return out

    def add(self, a: Value, b: Value) -> Value:
        out = self._buffer(a.array.shape[1])
        x, y, z, d = a.array, b.array, out.array, out.grad
        self.forward.append(lambda: add(x, y, out=z))
        calls = [self._give(part, lambda into: np.copyto(into, d)) for part in (a, b)]
        self._back(*(call for part in calls for call in part))
        return out

    def concat(self, a: Value, b: Value) -> Value:
        cut = a.array.shape[1]
        out = self._buffer(cut + b.array.shape[1])
        x, y, z, d = a.array, b.array, out.array, out.grad
        self.forward += [lambda: np.copyto(z[:, :cut], x), lambda: np.copyto(z[:, cut:], y)]
        if d is not None:
            left, right = d[:, :cut], d[:, cut:]
            first = self._give(a, lambda into: np.copyto(into, left))
            self._back(*first, *self._give(b, lambda into: np.copyto(into, right)))
        return out

    def output(self, h: Value) -> None:
        self.result = h

    # ------------------------------------------------------------------ losses

    def softmax_loss(self, scores: Value, labels: Value) -> None:
        if not self._train:
            return
        losses, feeds, feed, place = self.losses, self.feeds, labels.feed, len(self.losses)
        x, rows, part = scores.array, np.arange(self._batch), f32(1 / self._batch)
        shifted, side = np.empty_like(x), np.empty((self._batch, 1), f32)
        losses.append(0.0)

        def backward(into: Array) -> None:
            y = feeds[feed]
            subtract(x, x.max(axis=1, keepdims=True, out=side), out=shifted)
            own = shifted[rows, y]
            np.exp(shifted, out=into)
            into.sum(axis=1, keepdims=True, out=side)
            losses[place] = (np.log(side[:, 0]) - own).sum() * part
            np.divide(into, side, out=into)
            into[rows, y] -= 1
            multiply(into, part, out=into)

        self._back(*self._give(scores, backward))

    def mse_loss(self, guess: Value, target: Value) -> None:
        if not self._train:
            return
        losses, feeds, feed, place = self.losses, self.feeds, target.feed, len(self.losses)
        x, share = guess.array, f32(1 / guess.array.size)
        losses.append(0.0)

        def backward(into: Array) -> None:
            subtract(x, feeds[feed], out=into)
            flat = into.ravel()
            losses[place] = dot(flat, flat) * share
            multiply(into, 2 * share, out=into)

        self._back(*self._give(guess, backward))

    def _give(self, to: Value, write: Callable[[Array], object]) -> list[Call]:
        """The call that leaves a cotangent in a value's gradient, where one is wanted."""
        return [] if to.grad is None else [_Give(to, to.grad, write)]


class _Give:
    """Write a cotangent, or add it when a later reader of the value has left one already."""

    def __init__(self, to: Value, grad: Array, write: Callable[[Array], object]) -> None:
        self._grad, self._write = grad, write
        self._extra = np.empty_like(grad)
        self._adds = False
        if to.reader is not None:
            to.reader._adds = True
        to.reader = self

    def __call__(self) -> None:
        if self._adds:
            self._write(self._extra)
            add(self._grad, self._extra, out=self._grad)
        else:
            self._write(self._grad)


def _update(flat: Array, gradients: Array, lr: float) -> Call:
    speeds = np.zeros_like(flat)
    scaled = np.empty(min(BLOCK, flat.size), f32)
    momentum, rate = f32(MOMENTUM), f32(lr)
    blocks = [
        (flat[i : i + BLOCK], gradients[i : i + BLOCK], speeds[i : i + BLOCK])
        for i in range(0, flat.size, BLOCK)
    ]

    def update() -> None:
        for p, g, v in blocks:
            multiply(v, momentum, out=v)
            add(v, g, out=v)
            subtract(p, multiply(v, rate, out=scaled[: p.size]), out=p)

    return update
