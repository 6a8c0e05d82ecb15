"""What a side is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tests.tools.benchmarks.peers.outline import Array, Feeds
from tests.tools.benchmarks.peers.workloads import Kind, Workload

Step = Callable[[Any], float]
"""A training step on feeds; it returns the loss as a number."""

Infer = Callable[[Any], Any]
"""From feeds to the output as a NumPy array."""


class Unsupported(Exception):
    """This side leaves the workload out; the text says why."""


class Side:
    """A framework with a number of threads.  Whatever it does not override it does not support."""

    kinds: tuple[Kind, ...] = ("rows",)
    """The nets that it has the layers of here."""
    bits: Literal[8, 24] = 24
    """The significant bits of the factors of its products."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def versions(self) -> str:
        """What is measured, with its version."""
        raise NotImplementedError

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        """A new net at these parameters, and SGD with momentum."""
        raise Unsupported("it does not train")

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        """The net for inference at a batch."""
        raise Unsupported("it is not timed at inference")

    def load(self, path: Path, batch: int) -> Infer:
        """The exported network of this path, with .onnx or .pt behind it, at a batch."""
        raise Unsupported("it reads no networks of others here")

    def feeds(self, feeds: Feeds) -> Any:
        """The argument of a step for one batch of arrays; copies nothing."""
        return dict(feeds)
