"""Perceptrons for the rows of a table, which each have a weight if asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphc.declare.mlp import mlp
from graphc.declare.net import Net
from graphc.declare.preparation import Preparation
from graphc.ir.build import Value
from graphc.ir.tensor_type import N
from graphc.ops.losses.classes import softmax_loss
from graphc.ops.losses.elements import mse_loss, sigmoid_loss
from graphc.ops.row_norm import standardize
from graphc.ops.shape import as_dtype

Declare = Callable[[int, int], Net]
"""A function that declares a net for a number of features and a number of outputs."""

WEIGHT = "weight"


@dataclass(frozen=True)
class Perceptron:
    """The options of a multilayer perceptron.

    It reads x and targets in the dtype `reads`, by default its own.  Standardised numbers lose no
    digits to an offset then, although the net computes in a smaller dtype.
    """

    hidden: tuple[int, ...]
    batchnorm: bool
    dropout: float
    standardize: bool
    dtype: str
    preparation: Preparation | None = None
    weighted: bool = True
    reads: str | None = None

    def __call__(self, features: int, units: int) -> Net:
        """Declare the net."""
        raise NotImplementedError

    def _weight(self, net: Net) -> Value | None:
        return net.input(WEIGHT, N) if self.weighted else None

    def _scores(self, x: Value, units: int) -> Value:
        if self.preparation is not None:
            h = self.preparation.features(x, standardized=self.standardize)
        else:
            h = standardize(x, name="features") if self.standardize else x
        h = as_dtype(h, self.dtype)
        norm, rate = self.batchnorm, self.dropout
        # Tables have few rows: larger weights than these bend the function more than rows can tell.
        return mlp(h, self.hidden, units, batchnorm=norm, dropout=rate, init="glorot")


class ClassifierNet(Perceptron):
    """A net with scores of each class, trained by the cross-entropy of softmax."""

    def __call__(self, features: int, units: int) -> Net:
        """Declare inputs x (N, features), y (N,), weight (N,) and output scores (N, units)."""
        net = Net("classifier", self.dtype)
        x = net.input("x", (N, features), dtype=self.reads)
        y = net.input("y", N, dtype="int64")
        weight = self._weight(net)
        scores = net.output("scores", self._scores(x, units))
        net.loss("loss", softmax_loss(scores, y, weight=weight))
        return net


class MultiLabelNet(Perceptron):
    """A net with scores of labels that do not exclude each other, trained by sigmoid_loss."""

    def __call__(self, features: int, units: int) -> Net:
        """Declare inputs x (N, features), y (N, units), weight (N,); output scores (N, units)."""
        net = Net("labeller", self.dtype)
        x = net.input("x", (N, features), dtype=self.reads)
        y = net.input("y", (N, units))
        weight = self._weight(net)
        scores = net.output("scores", self._scores(x, units))
        net.loss("loss", sigmoid_loss(scores, y, weight=weight))
        return net


class RegressorNet(Perceptron):
    """A net for predictions, trained by mean squared error in standard deviations of the target."""

    def __call__(self, features: int, units: int) -> Net:
        """Declare inputs x (N, features), y (N, units), weight (N,); output prediction."""
        net = Net("regressor", self.dtype)
        x = net.input("x", (N, features), dtype=self.reads)
        y = net.input("y", (N, units), dtype=self.reads)
        weight = self._weight(net)
        target = standardize(y, name="target")
        scaled = self._scores(x, units)
        wide = as_dtype(scaled, y.dtype)
        net.output("prediction", wide * net["target.scale"] + net["target.mean"])
        net.loss("loss", mse_loss(scaled, as_dtype(target, self.dtype), weight=weight))
        return net
