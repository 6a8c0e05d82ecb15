"""graphc by its public interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step, Unsupported
from tests.tools.benchmarks.peers.workloads import DECAY, EPS, KINDS, MOMENTUM, Workload


class Declare:
    """A maker that declares a net."""

    def __init__(self, dropout: bool) -> None:
        self.net = gc.Net("peer")
        self._dropout = dropout

    def input(self, name: str, width: int) -> gc.Value:
        return self.net.input(name, (gc.N, width))

    target = input

    def image(self, name: str, shape: tuple[int, int, int]) -> gc.Value:
        return self.net.input(name, (gc.N, *shape))

    def conv(
        self, h: gc.Value, channels: int, kernel: int, stride: int, pad: int, bias: bool
    ) -> gc.Value:
        return gc.conv2d(h, channels, kernel, stride=stride, padding=pad, bias=bias)

    def depthwise(self, h: gc.Value, kernel: int, stride: int) -> gc.Value:
        width = h.shape[1]
        return gc.conv2d(
            h, width, kernel, stride=stride, padding=kernel // 2, groups=width, bias=False
        )

    def max_pool(self, h: gc.Value, size: int) -> gc.Value:
        return gc.max_pool(h, size)

    def mean_pool(self, h: gc.Value) -> gc.Value:
        return gc.flatten(gc.global_avg_pool(h))

    def flatten(self, h: gc.Value) -> gc.Value:
        return gc.flatten(h)

    def labels(self, name: str, classes: int) -> gc.Value:
        return self.net.input(name, (gc.N,), dtype="int64")

    def affine(self, h: gc.Value, width: int) -> gc.Value:
        return gc.affine(h, width)

    def batchnorm(self, h: gc.Value) -> gc.Value:
        return gc.batchnorm(h, eps=EPS, running_decay=DECAY)

    def relu(self, h: gc.Value) -> gc.Value:
        return gc.relu(h)

    def relu6(self, h: gc.Value) -> gc.Value:
        return gc.clip(h, 0, 6)

    def dropout(self, h: gc.Value, keep: float) -> gc.Value:
        return gc.dropout(h, keep_prob=keep) if self._dropout else h

    def add(self, a: gc.Value, b: gc.Value) -> gc.Value:
        return gc.add(a, b)

    def concat(self, a: gc.Value, b: gc.Value) -> gc.Value:
        return gc.concat([a, b], axis=1)

    def tokens(self, name: str, letters: int, steps: int) -> gc.Value:
        return self.net.input(name, (gc.N, steps), dtype="int64")

    def embedding(self, ids: gc.Value, letters: int, width: int) -> gc.Value:
        return gc.embedding(ids, letters, width)

    def positions(self, h: gc.Value, steps: int, width: int) -> gc.Value:
        return gc.learned_positions(h)

    def layernorm(self, h: gc.Value) -> gc.Value:
        return gc.layernorm(h)

    def linear(self, h: gc.Value, width: int) -> gc.Value:
        return gc.affine(h, width, axis=-1)

    def patches(self, h: gc.Value) -> gc.Value:
        return gc.transpose(gc.reshape(h, (*h.shape[:2], -1)), (0, 2, 1))

    def mean_steps(self, h: gc.Value) -> gc.Value:
        return gc.mean(h, 1)

    def heads(self, q: gc.Value, k: gc.Value, v: gc.Value, count: int, causal: bool) -> gc.Value:
        def apart(x: gc.Value) -> gc.Value:
            parts = gc.reshape(x, (*x.shape[:2], count, -1))
            return gc.transpose(parts, (0, 2, 1, 3))

        seen = gc.attention(*map(apart, (q, k, v)), causal=causal)
        return gc.reshape(gc.transpose(seen, (0, 2, 1, 3)), q.shape)

    def gelu(self, h: gc.Value) -> gc.Value:
        return gc.gelu(h, "tanh")

    def sequence_loss(self, scores: gc.Value, labels: gc.Value) -> None:
        rows = scores.shape[1] * gc.N
        flat = gc.reshape(scores, (rows, scores.shape[2]))
        self.net.loss("class_loss", gc.softmax_loss(flat, gc.reshape(labels, (rows,))))

    def output(self, h: gc.Value) -> None:
        self.net.output("output", h)

    def softmax_loss(self, scores: gc.Value, labels: gc.Value) -> None:
        self.net.loss("class_loss", gc.softmax_loss(scores, labels))

    def mse_loss(self, guess: gc.Value, target: gc.Value) -> None:
        self.net.loss("square_loss", gc.mse_loss(guess, target))


class OnNumPy(Side):
    """The numpy backend."""

    backend = "numpy"
    kinds = KINDS
    precision: Any = None

    def versions(self) -> str:
        return f"graphc {gc.__version__}, numpy {np.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        optimizer = gc.SGD(lr=workload.lr, momentum=MOMENTUM)
        return self.executor(workload, parameters, dropout, workload.batch, optimizer).step

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        ex = self.executor(workload, parameters, False, batch, None)
        return self._inferring(ex, batch, "output")

    def load(self, path: Path, batch: int) -> Infer:
        plan = gc.compile(gc.onnx.load(path.with_suffix(".onnx")), batch=batch, **self._options())
        return self._inferring(gc.Executor(plan, seed=0), batch, "y")

    def executor(
        self,
        workload: Workload,
        parameters: list[Array],
        dropout: bool,
        batch: int,
        optimizer: Any,
    ) -> gc.Executor:
        """The net at these parameters."""
        made = Declare(dropout)
        workload.declare(made)
        plan = gc.compile(made.net, batch=batch, optimizer=optimizer, **self._options())
        ex = gc.Executor(plan, seed=0)
        for name, array in zip(plan.parameter_names, parameters, strict=True):
            ex.parameters[name] = array
        return ex

    def _inferring(self, ex: gc.Executor, batch: int, output: str) -> Infer:
        forward = gc.freeze(ex, batch=batch, precision=self.precision).forward
        return lambda feeds: forward(feeds, copy=False)[output]

    def _options(self) -> dict[str, Any]:
        return {"backend": self.backend, "precision": self.precision, "threads": self.threads}


class Native(OnNumPy):
    """The native backend."""

    backend = "native"

    def versions(self) -> str:
        return f"graphc {gc.__version__}"

    def _options(self) -> dict[str, Any]:
        net = gc.Net("probe")
        net.output("out", gc.relu(net.input("x", (gc.N, 1))))
        try:
            gc.compile(net, batch=1, backend=self.backend)
        except gc.GraphError as error:
            raise Unsupported(error.sentence) from None
        return super()._options()


class Unfrozen(Native):
    """The plan as it is compiled, whose weights are parameters."""

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        raise Unsupported("it trains as graphc does")

    def _inferring(self, ex: gc.Executor, batch: int, output: str) -> Infer:
        return lambda feeds: ex.forward(feeds, copy=False)[output]


class Bfloat16(Native):
    """Products in bfloat16 where the compiler expects it to be faster."""

    precision: Any = "bf16"
    bits = 8


class Blocks(Bfloat16):
    """Every product in bfloat16, added in blocks."""

    precision: Any = {"*": "bf16_blocks"}  # noqa: RUF012
