"""Losses and scores in float64: what every side is compared with before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tests.tools.benchmarks.peers.gpt import SequenceTape
from tests.tools.benchmarks.peers.outline import Feeds, outline
from tests.tools.benchmarks.peers.workloads import EPS, MOMENTUM, WORKLOADS

STEPS = 5


class Value:
    """An array and the gradient of the loss by it."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)
        self.grad: Any = 0.0


class Tape(SequenceTape):
    """A maker that computes at once and can go back; dropout keeps everything."""

    _value = Value

    def __init__(self, feeds: Feeds, parameters: Sequence[Value]) -> None:
        self.loss = 0.0
        self.result: Any = None
        self._feeds, self._parameters = feeds, iter(parameters)
        self._back: list[Callable[[], None]] = []

    def backward(self) -> None:
        """Fill in the gradients."""
        for step in reversed(self._back):
            step()

    def input(self, name: str, width: int) -> Value:
        return Value(self._feeds[name].astype(np.float64))

    def image(self, name: str, shape: tuple[int, int, int]) -> Value:
        return Value(self._feeds[name].astype(np.float64))

    def conv(
        self, h: Value, channels: int, kernel: int, stride: int, pad: int, bias: bool
    ) -> Value:
        weight = next(self._parameters)
        moved = next(self._parameters) if bias else Value(np.zeros(channels))
        around = np.pad(h.array, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        seen = sliding_window_view(around, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
        n, _, height, width = seen.shape[:4]
        columns = seen.transpose(0, 2, 3, 1, 4, 5).reshape(n * height * width, -1)
        matrix = weight.array.reshape(channels, -1)

        def back() -> None:
            d = out.grad.transpose(0, 2, 3, 1).reshape(-1, channels)
            weight.grad += (d.T @ columns).reshape(weight.array.shape)
            moved.grad += d.sum(0)
            d_columns = (d @ matrix).reshape(n, height, width, -1, kernel, kernel)
            d_around = np.zeros_like(around)
            for i in range(kernel):
                for j in range(kernel):
                    rows = slice(i, i + (height - 1) * stride + 1, stride)
                    met = slice(j, j + (width - 1) * stride + 1, stride)
                    d_around[:, :, rows, met] += d_columns[..., i, j].transpose(0, 3, 1, 2)
            inside = slice(pad, around.shape[2] - pad), slice(pad, around.shape[3] - pad)
            h.grad = h.grad + d_around[:, :, *inside]

        y = (columns @ matrix.T + moved.array).reshape(n, height, width, channels)
        out = Value(y.transpose(0, 3, 1, 2))
        return self._record(out, back)

    def depthwise(self, h: Value, kernel: int, stride: int) -> Value:
        weight, pad = next(self._parameters), kernel // 2
        around = np.pad(h.array, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        side = (h.array.shape[2] - 1) // stride + 1
        places = [(i, j) for i in range(kernel) for j in range(kernel)]

        def seen(array: Any, i: int, j: int) -> Any:
            rows, columns = (slice(k, k + (side - 1) * stride + 1, stride) for k in (i, j))
            return array[:, :, rows, columns]

        def back() -> None:
            d_around = np.zeros_like(around)
            d_weight = np.zeros_like(weight.array)
            for i, j in places:
                d_weight[:, 0, i, j] = (out.grad * seen(around, i, j)).sum((0, 2, 3))
                seen(d_around, i, j)[...] += out.grad * weight.array[:, 0, i, j, None, None]
            weight.grad += d_weight
            h.grad = h.grad + d_around[:, :, pad : -pad or None, pad : -pad or None]

        y = sum(seen(around, i, j) * weight.array[:, 0, i, j, None, None] for i, j in places)
        out = Value(y)
        return self._record(out, back)

    def max_pool(self, h: Value, size: int) -> Value:
        n, c, height, width = h.array.shape
        squares = h.array.reshape(n, c, height // size, size, width // size, size)
        largest = squares.max(axis=(3, 5), keepdims=True)

        def back() -> None:
            hit = squares == largest
            spread = hit * out.grad[:, :, :, None, :, None] / hit.sum((3, 5), keepdims=True)
            h.grad = h.grad + spread.reshape(h.array.shape)

        out = Value(largest[:, :, :, 0, :, 0])
        return self._record(out, back)

    def mean_pool(self, h: Value) -> Value:
        pixels = h.array.shape[2] * h.array.shape[3]

        def back() -> None:
            h.grad = h.grad + np.broadcast_to(out.grad[..., None, None] / pixels, h.array.shape)

        out = Value(h.array.mean((2, 3)))
        return self._record(out, back)

    def flatten(self, h: Value) -> Value:
        def back() -> None:
            h.grad = h.grad + out.grad.reshape(h.array.shape)

        out = Value(h.array.reshape(len(h.array), -1))
        return self._record(out, back)

    def target(self, name: str, width: int) -> Value:
        return self.input(name, width) if name in self._feeds else Value(0.0)

    def labels(self, name: str, classes: int) -> Value:
        return Value(self._feeds.get(name, np.zeros(0, np.int64)))

    def affine(self, h: Value, width: int) -> Value:
        weight, bias = next(self._parameters), next(self._parameters)

        def back() -> None:
            weight.grad += h.array.T @ out.grad
            bias.grad += out.grad.sum(0)
            h.grad = h.grad + out.grad @ weight.array.T

        out = Value(h.array @ weight.array + bias.array)
        return self._record(out, back)

    def batchnorm(self, h: Value) -> Value:
        gamma, beta = next(self._parameters), next(self._parameters)
        axes, by = ((0,), (-1,)) if h.array.ndim == 2 else ((0, 2, 3), (-1, 1, 1))
        scale = 1 / np.sqrt(h.array.var(axes, keepdims=True) + EPS)
        normal = (h.array - h.array.mean(axes, keepdims=True)) * scale

        def back() -> None:
            gamma.grad += (out.grad * normal).sum(axes)
            beta.grad += out.grad.sum(axes)
            d = out.grad * gamma.array.reshape(by)
            slope = d - d.mean(axes, keepdims=True)
            slope -= normal * (d * normal).mean(axes, keepdims=True)
            h.grad = h.grad + scale * slope

        out = Value(normal * gamma.array.reshape(by) + beta.array.reshape(by))
        return self._record(out, back)

    def relu(self, h: Value) -> Value:
        def back() -> None:
            h.grad = h.grad + out.grad * (h.array > 0)

        out = Value(np.maximum(h.array, 0))
        return self._record(out, back)

    def relu6(self, h: Value) -> Value:
        def back() -> None:
            h.grad = h.grad + out.grad * ((h.array > 0) & (h.array < 6))

        out = Value(h.array.clip(0, 6))
        return self._record(out, back)

    def dropout(self, h: Value, keep: float) -> Value:
        return h

    def add(self, a: Value, b: Value) -> Value:
        def back() -> None:
            a.grad, b.grad = a.grad + out.grad, b.grad + out.grad

        out = Value(a.array + b.array)
        return self._record(out, back)

    def concat(self, a: Value, b: Value) -> Value:
        def back() -> None:
            cut = a.array.shape[1]
            a.grad, b.grad = a.grad + out.grad[:, :cut], b.grad + out.grad[:, cut:]

        out = Value(np.concatenate([a.array, b.array], axis=1))
        return self._record(out, back)

    def output(self, h: Value) -> None:
        self.result = h.array

    def softmax_loss(self, scores: Value, labels: Value) -> None:
        if not labels.array.size:
            return
        rows = np.arange(len(labels.array))
        shifted = scores.array - scores.array.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

        def back() -> None:
            d = np.exp(logs)
            d[rows, labels.array] -= 1
            scores.grad = scores.grad + d / len(rows)

        self.loss -= float(logs[rows, labels.array].mean())
        self._back.append(back)

    def mse_loss(self, guess: Value, target: Value) -> None:
        difference = guess.array - target.array

        def back() -> None:
            guess.grad = guess.grad + 2 * difference / difference.size

        self.loss += float((difference**2).mean())
        self._back.append(back)

    def _record(self, out: Value, back: Callable[[], None]) -> Value:
        self._back.append(back)
        return out


def losses(name: str, feeds: Feeds) -> list[float]:
    """The losses of a few steps of SGD with momentum on one batch, without dropout."""
    workload = WORKLOADS[name]
    arrays = [p.astype(np.float64) for p in outline(name).parameters]
    speeds = [np.zeros_like(p) for p in arrays]
    found = []
    for _ in range(STEPS):
        parameters = [Value(p) for p in arrays]
        tape = Tape(feeds, parameters)
        workload.declare(tape)
        tape.backward()
        found.append(tape.loss)
        for array, speed, value in zip(arrays, speeds, parameters, strict=True):
            speed *= MOMENTUM
            speed += value.grad
            array -= workload.lr * speed
    return found


def scores(name: str, feeds: Feeds) -> Any:
    """What the net's output is."""
    tape = Tape(feeds, [Value(p.astype(np.float64)) for p in outline(name).parameters])
    WORKLOADS[name].declare(tape)
    return tape.result
