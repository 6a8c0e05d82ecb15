"""The nets that estimators train: declared here from a few numbers, or by a user's function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphc.backends.choice import chosen_backend
from graphc.base.errors import GraphError
from graphc.compiler.compile import compile
from graphc.declare.mlp import mlp
from graphc.declare.net import Net
from graphc.declare.optim import Optimizer
from graphc.ir.build import Value
from graphc.ir.plan import Plan
from graphc.ir.tensor_type import N, TensorType
from graphc.ops.losses.regression import mse_loss
from graphc.ops.losses.softmax import softmax_loss
from graphc.ops.source import Input
from graphc.ops.standardize import standardize

Declare = Callable[[int, int], Net]
"""A function that declares a net for a number of features and a number of outputs."""

WEIGHT = "weight"


@dataclass(frozen=True)
class Perceptron(ABC):
    """A declaration of a multilayer perceptron with its loss, in which each row has a weight."""

    hidden: tuple[int, ...]
    batchnorm: bool
    dropout: float
    standardize: bool
    dtype: str

    @abstractmethod
    def __call__(self, features: int, units: int) -> Net:
        """Return the net for these numbers of features and outputs."""

    def _scores(self, x: Value, units: int) -> Value:
        h = standardize(x, name="features") if self.standardize else x
        return mlp(h, self.hidden, units, batchnorm=self.batchnorm, dropout=self.dropout)


class ClassifierNet(Perceptron):
    """A net with scores of each class, trained by the cross-entropy of softmax."""

    def __call__(self, features: int, units: int) -> Net:
        """Declare inputs x (N, features), y (N,), weight (N,) and output scores (N, units)."""
        net = Net("classifier", self.dtype)
        x = net.input("x", (N, features))
        y = net.input("y", N, dtype="int64")
        weight = net.input(WEIGHT, N)
        scores = net.output("scores", self._scores(x, units))
        net.loss("loss", softmax_loss(scores, y, weight=weight))
        return net


class RegressorNet(Perceptron):
    """A net for predictions, trained by mean squared error in standard deviations of the target."""

    def __call__(self, features: int, units: int) -> Net:
        """Declare inputs x (N, features), y (N, units), weight (N,); output prediction."""
        net = Net("regressor", self.dtype)
        x = net.input("x", (N, features))
        y = net.input("y", (N, units))
        weight = net.input(WEIGHT, N)
        target = standardize(y, name="target")
        scaled = self._scores(x, units)
        net.output("prediction", scaled * net["target.scale"] + net["target.mean"])
        net.loss("loss", mse_loss(scaled, target, weight=weight))
        return net


@dataclass(frozen=True)
class Task:
    """The declaration of a net, and the options that it is compiled with."""

    declare: Declare
    features: int
    units: int
    output: str
    optimizer: Optimizer
    batch: int
    backend: str | None
    threads: int | None

    def plan(self) -> Plan:
        """Return the plan; plans of perceptrons are cached, since a search asks for equal ones."""
        if isinstance(self.declare, Perceptron):
            return _kept(self, chosen_backend(self.backend))
        return self._compiled(self.backend)

    def _compiled(self, backend: str | None) -> Plan:
        net = self.declare(self.features, self.units)
        self._check(net)
        return compile(
            net,
            batch=self.batch,
            optimizer=self.optimizer,
            backend=backend,
            threads=self.threads,
        )

    def _check(self, net: Any) -> None:
        """Raise GraphError unless the net has the inputs and the output that an estimator needs."""
        if not isinstance(net, Net):
            raise GraphError(
                f"the function given as net returned {type(net).__name__}, not a Net",
                hint="it takes the numbers of features and outputs, and returns a gc.Net",
            )
        graph = net.graph()
        inputs = [node.name for node in graph if isinstance(node.op, Input)]
        for name in ("x", "y"):
            if name not in inputs:
                raise GraphError(
                    f"net {net.name!r} has no input {name!r}",
                    hint=f"it has {', '.join(inputs) or 'none'}; an estimator feeds x and y, and "
                    f"{WEIGHT} where there is one",
                )
        if self.output not in graph.outputs:
            raise GraphError(
                f"net {net.name!r} has no output {self.output!r}",
                hint=f"net.output({self.output!r}, value) makes a value public",
            )
        found = graph[graph.outputs[self.output]]
        wanted = TensorType((N, self.units), found.type.dtype)
        if found.type != wanted:
            raise GraphError(
                f"output {self.output!r} is {found.type}, for this data it must be {wanted}",
                operands=[found.described(self.output)],
                hint="the last layer is gc.affine(h, units), units being the function's second "
                "argument",
            )


@lru_cache(maxsize=16)
def _kept(task: Task, backend: str) -> Plan:
    return task._compiled(backend)
