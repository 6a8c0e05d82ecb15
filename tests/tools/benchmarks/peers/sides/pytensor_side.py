"""PyTensor in its default mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.random.utils import RandomStream
from pytensor.tensor.special import log_softmax

from tests.tools.benchmarks.peers.outline import Array
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Step
from tests.tools.benchmarks.peers.workloads import DECAY, EPS, MOMENTUM, Workload

pytensor.config.floatX = "float32"


def single(number: float) -> Any:
    """A number that does not widen float32."""
    return np.float32(number)


class Symbols:
    """A maker of symbolic expressions; parameters are shared variables."""

    def __init__(self, parameters: list[Array], dropout: bool) -> None:
        self.shared = [pytensor.shared(p.copy()) for p in parameters]
        self.feeds: dict[str, Any] = {}
        self.losses: list[Any] = []
        self.result: Any = None
        self.updates: dict[Any, Any] = {}
        self._next, self._dropout = iter(self.shared), dropout

    def input(self, name: str, width: int) -> Any:
        return self.feeds.setdefault(name, pt.matrix(name, dtype="float32"))

    target = input

    def labels(self, name: str, classes: int) -> Any:
        return self.feeds.setdefault(name, pt.vector(name, dtype="int64"))

    def affine(self, h: Any, width: int) -> Any:
        return pt.dot(h, next(self._next)) + next(self._next)

    def batchnorm(self, h: Any) -> Any:
        gamma, beta = next(self._next), next(self._next)
        mean = h.mean(0)
        var = pt.sqr(h - mean).mean(0)
        width = gamma.get_value().shape
        for start, new in ((0, mean), (1, var)):
            kept = pytensor.shared(np.full(width, start, np.float32))
            self.updates[kept] = single(DECAY) * kept + single(1 - DECAY) * new
        return (h - mean) / pt.sqrt(var + single(EPS)) * gamma + beta

    def relu(self, h: Any) -> Any:
        return pt.maximum(h, single(0))

    def dropout(self, h: Any, keep: float) -> Any:
        if not self._dropout:
            return h
        stream = RandomStream(seed=len(self.updates))
        mask = pt.lt(stream.uniform(0, 1, size=h.shape), single(keep)).astype("float32")
        self.updates.update(stream.updates())
        return h * mask * single(1 / keep)

    def add(self, a: Any, b: Any) -> Any:
        return a + b

    def concat(self, a: Any, b: Any) -> Any:
        return pt.concatenate((a, b), axis=1)

    def output(self, h: Any) -> None:
        self.result = h

    def softmax_loss(self, scores: Any, labels: Any) -> None:
        logs = log_softmax(scores, axis=1)
        self.losses.append(-logs[pt.arange(labels.shape[0]), labels].mean())

    def mse_loss(self, guess: Any, target: Any) -> None:
        self.losses.append(pt.sqr(guess - target).mean())


class PyTensor(Side):
    """pytensor.function with updates of shared variables."""

    def versions(self) -> str:
        return f"pytensor {pytensor.__version__}"

    def train(self, workload: Workload, parameters: list[Array], dropout: bool) -> Step:
        net = Symbols(parameters, dropout)
        workload.declare(net)
        loss = sum(net.losses[1:], net.losses[0]).astype("float32")
        updates = dict(net.updates)
        for parameter, gradient in zip(net.shared, pytensor.grad(loss, net.shared), strict=True):
            speed = pytensor.shared(np.zeros_like(parameter.get_value()))
            new = single(MOMENTUM) * speed + gradient
            updates[speed], updates[parameter] = new, parameter - single(workload.lr) * new
        names = list(net.feeds)
        inputs = [net.feeds[name] for name in names]
        function = pytensor.function(inputs, loss, updates=list(updates.items()))
        function.trust_input = True
        return lambda feeds: float(function(*[feeds[name] for name in names]))

    def infer(self, workload: Workload, parameters: list[Array], batch: int) -> Infer:
        net = Symbols(parameters, False)
        workload.declare(net)
        names = [name for name, feed in net.feeds.items() if _reads(net.result, feed)]
        function = pytensor.function([net.feeds[name] for name in names], net.result)
        function.trust_input = True
        return lambda feeds: function(*[feeds[name] for name in names])


def _reads(result: Any, feed: Any) -> bool:
    from pytensor.graph.traversal import explicit_graph_inputs

    return feed in list(explicit_graph_inputs([result]))
