"""The steps of `tests/tools/benchmarks/hand_written.py`, for nets that are mere chains."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.tools.benchmarks import hand_written
from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step, Unsupported
from tests.tools.benchmarks.peers.workloads import Workload

NAME = "chain"


class HandBuffers(Side):
    """With preallocated buffers."""

    kind: Any = hand_written.NumpyBuffers

    def versions(self) -> str:
        return f"numpy {np.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        self._announce(workload, parameters, workload.batch)
        keep = workload.keep if dropout else None
        step, fetch = self.kind(self.threads).train(NAME, keep, workload.lr)
        return lambda feeds: fetch(step(feeds["x"], feeds["y"]))

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        self._announce(workload, parameters, batch)
        infer = self.kind(self.threads).infer(NAME, batch)
        return lambda feeds: infer(feeds["x"])

    def _announce(self, workload: Workload, parameters: list[Array], batch: int) -> None:
        """Tell the steps the sizes, which they look up by a name, and the parameters."""
        chain = workload.chain
        if chain is None:
            raise Unsupported("it is written for chains of layers")
        hand_written.W[NAME] = {
            "sizes": list(chain.sizes),
            "batch": batch,
            "bn": chain.batchnorm,
            "keep": chain.keep,
        }
        layers = _layers(parameters, len(chain.sizes) - 1, chain.batchnorm)
        hand_written.make_params = lambda name: layers


class Layers(HandBuffers):
    """In the style of course layers, which allocate."""

    kind = hand_written.NumpyNaive


def _layers(parameters: list[Array], count: int, batchnorm: bool) -> list[dict[str, Array]]:
    """The parameters of each layer by the letters that the steps know them by."""
    left = iter(parameters)
    letters = "Wbgt" if batchnorm else "Wb"
    made = [{k: next(left).copy() for k in letters} for _ in range(count - 1)]
    return [*made, {k: next(left).copy() for k in "Wb"}]
