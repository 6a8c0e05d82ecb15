"""The nets of the estimators: perceptrons in which each row has a weight, and nets of users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.base.errors import GraphError
from graphc.declare.mlp import mlp
from graphc.declare.net import Net
from graphc.ir.build import Value
from graphc.ir.tensor_type import N, TensorType
from graphc.ops.losses.classes import softmax_loss
from graphc.ops.losses.elements import mse_loss, sigmoid_loss
from graphc.ops.row_norm import standardize

Declare = Callable[[int, int], Net]
"""A function that declares a net for a number of features and a number of outputs."""

WEIGHT = "weight"


@dataclass(frozen=True)
class Perceptron:
    """The options of a multilayer perceptron in which each row has a weight."""

    hidden: tuple[int, ...]
    batchnorm: bool
    dropout: float
    standardize: bool
    dtype: str

    def __call__(self, features: int, units: int) -> Net:
        """Declare the net."""
        raise NotImplementedError

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


class MultiLabelNet(Perceptron):
    """A net with scores of labels that do not exclude each other, trained by sigmoid_loss."""

    def __call__(self, features: int, units: int) -> Net:
        """Declare inputs x (N, features), y (N, units), weight (N,); output scores (N, units)."""
        net = Net("labeller", self.dtype)
        x = net.input("x", (N, features))
        y = net.input("y", (N, units))
        weight = net.input(WEIGHT, N)
        scores = net.output("scores", self._scores(x, units))
        net.loss("loss", sigmoid_loss(scores, y, weight=weight))
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


def checked_net(net: Any, units: int, output: str) -> Net:
    """Return the net; raise GraphError unless it has the inputs and output of an estimator."""
    if not isinstance(net, Net):
        raise GraphError(
            f"the function given as net returned {type(net).__name__}, not a Net",
            hint="it takes the numbers of features and outputs, and returns a gc.Net",
        )
    graph = net.graph()
    inputs = [node.name for node in graph if node.op.is_input]
    for name in ("x", "y"):
        if name not in inputs:
            raise GraphError(
                f"net {net.name!r} has no input {name!r}",
                hint=f"it has {', '.join(inputs) or 'none'}; an estimator feeds x and y, and "
                f"{WEIGHT} where there is one",
            )
    if output not in graph.outputs:
        raise GraphError(
            f"net {net.name!r} has no output {output!r}",
            hint=f"net.output({output!r}, value) makes a value public",
        )
    found = graph[graph.outputs[output]]
    wanted = TensorType((N, units), found.type.dtype)
    if found.type != wanted:
        raise GraphError(
            f"output {output!r} is {found.type}, for this data it must be {wanted}",
            operands=[found.described(output)],
            hint="the last layer is gc.affine(h, units), units being the function's second "
            "argument",
        )
    return net
