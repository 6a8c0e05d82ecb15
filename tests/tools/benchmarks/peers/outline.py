"""What every side starts from: parameters, feeds, and the flops of a net's products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tests.tools.benchmarks.peers.gpt import SequenceOutline
from tests.tools.benchmarks.peers.workloads import WORKLOADS, Workload

Array = NDArray[np.float32]
Feeds = Mapping[str, NDArray[np.generic]]

PARAMETERS_SEED, FEEDS_SEED = 7, 11


@dataclass(frozen=True)
class Part:
    """A value: its columns or channels, whether a gradient is wanted, and an image's side."""

    width: int
    trained: bool
    side: int = 0


class Outline(SequenceOutline):
    """A maker that only notes what a net needs."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.parameters: list[Array] = []
        self.feeds: dict[str, tuple[str, tuple[int, ...]]] = {}
        """By name: "input" or "target" and the shape of a row, "labels" and how many classes."""
        self.outputs: list[int] = []
        self.normalised: list[int] = []
        """The widths of the batchnorms."""
        self.rows_forward = self.rows_backward = 0
        self._random = np.random.RandomState(PARAMETERS_SEED)
        workload.declare(self)

    def flops(self, batch: int, train: bool) -> int:
        """The multiplications and additions of the matrix products, for so many rows."""
        return batch * (self.rows_forward + (self.rows_backward if train else 0))

    def input(self, name: str, width: int) -> Part:
        self.feeds[name] = ("input", (width,))
        return Part(width, False)

    def labels(self, name: str, classes: int) -> Part:
        self.feeds[name] = ("labels", (classes,))
        return Part(classes, False)

    def target(self, name: str, width: int) -> Part:
        self.feeds[name] = ("target", (width,))
        return Part(width, False)

    def affine(self, h: Part, width: int) -> Part:
        self._normal((h.width, width), 0.0, (2 / h.width) ** 0.5)
        self._normal((width,), 0.0, 0.01)
        product = 2 * h.width * width
        self.rows_forward += product
        self.rows_backward += product * (1 + h.trained)
        return Part(width, True)

    def image(self, name: str, shape: tuple[int, int, int]) -> Part:
        self.feeds[name] = ("input", shape)
        return Part(shape[0], False, shape[1])

    def conv(self, h: Part, channels: int, kernel: int, stride: int, pad: int, bias: bool) -> Part:
        depth = h.width * kernel * kernel
        self._normal((channels, h.width, kernel, kernel), 0.0, (2 / depth) ** 0.5)
        if bias:
            self._normal((channels,), 0.0, 0.01)
        side = (h.side + 2 * pad - kernel) // stride + 1
        product = 2 * side * side * depth * channels
        self.rows_forward += product
        self.rows_backward += product * (1 + h.trained)
        return Part(channels, True, side)

    def depthwise(self, h: Part, kernel: int, stride: int) -> Part:
        self._normal((h.width, 1, kernel, kernel), 0.0, (2 / kernel**2) ** 0.5)
        return replace(h, side=(h.side - 1) // stride + 1)

    def max_pool(self, h: Part, size: int) -> Part:
        return Part(h.width, h.trained, h.side // size)

    def mean_pool(self, h: Part) -> Part:
        return Part(h.width, h.trained)

    def flatten(self, h: Part) -> Part:
        return Part(h.width * h.side * h.side, h.trained)

    def batchnorm(self, h: Part) -> Part:
        self.normalised.append(h.width)
        self._normal((h.width,), 1.0, 0.1)
        self._normal((h.width,), 0.0, 0.1)
        return h

    def relu(self, h: Part) -> Part:
        return h

    relu6 = relu

    def dropout(self, h: Part, keep: float) -> Part:
        return h

    def add(self, a: Part, b: Part) -> Part:
        return replace(a, trained=a.trained or b.trained)

    def concat(self, a: Part, b: Part) -> Part:
        return Part(a.width + b.width, a.trained or b.trained)

    def output(self, h: Part) -> None:
        self.outputs.append(h.width)

    def softmax_loss(self, scores: Part, labels: Part) -> None:
        """A loss has no product."""

    def mse_loss(self, guess: Part, target: Part) -> None:
        """A loss has no product."""

    def _normal(self, shape: tuple[int, ...], centre: float, spread: float) -> None:
        values = centre + spread * self._random.standard_normal(shape)
        self.parameters.append(np.ascontiguousarray(values, np.float32))


def outline(name: str) -> Outline:
    """The outline of a workload."""
    return Outline(WORKLOADS[name])


def batches(name: str, rows: int, count: int, inference: bool = False) -> list[Feeds]:
    """So many batches of random feeds; for inference without what only a loss reads."""
    random = np.random.RandomState(FEEDS_SEED)
    noted = outline(name)
    feeds = noted.feeds.items()
    wanted = {k: v for k, v in feeds if not inference or v[0] == "input"}
    made: list[Feeds] = []
    for _ in range(count):
        batch: dict[str, NDArray[np.generic]] = {}
        for feed, (letters, steps) in noted.token_feeds.items():
            batch[feed] = random.randint(0, letters, (rows, steps)).astype(np.int64)
        for feed, (kind, shape) in wanted.items():
            if kind == "labels":
                batch[feed] = random.randint(0, shape[0], rows).astype(np.int64)
            else:
                batch[feed] = random.standard_normal((rows, *shape)).astype(np.float32)
        made.append(batch)
    return made
