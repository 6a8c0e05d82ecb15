"""The common part of classifier and regressor: their options, nets and training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import signature
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from graphc.backends.backend import chosen_backend
from graphc.base.arguments import plain, whole
from graphc.base.errors import GraphError
from graphc.compiler.compile import compile
from graphc.compiler.plan import Plan
from graphc.declare.mlp import mlp
from graphc.declare.net import Net
from graphc.declare.optim import Adam, Optimizer
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import N, TensorType
from graphc.ops.losses.classes import softmax_loss
from graphc.ops.losses.elements import mse_loss
from graphc.ops.row_norm import standardize
from graphc.runtime.columns import Columns
from graphc.runtime.executor import Executor
from graphc.train.callbacks import Callback, EarlyStopping
from graphc.train.history import History
from graphc.train.run import Run
from graphc.train.standardize import fit_standardize
from graphc.train.user_data import training_source

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


def _checked(net: Any, units: int, output: str) -> Net:
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


@lru_cache(maxsize=16)
def _perceptron_plan(declare: Declare, features: int, units: int, **options: Any) -> Plan:
    """Return a plan for a perceptron; they are cached, since a search asks for equal ones."""
    return compile(declare(features, units), **options)


REPLACED: Mapping[str, tuple[str, ...]] = {
    "net": ("hidden", "batchnorm", "dropout", "standardize"),
    "optimizer": ("lr", "weight_decay"),
}
"""The options that each of these options replaces."""

FLOATS = (np.float64, np.float32)
"""The dtypes in which features are trained as they are; others are converted to the first."""


class Rows(NamedTuple):
    """The rows to train on: x (N, features), y, and the weight of each row."""

    x: Array
    y: Array
    weight: Array

    def ready(self) -> Rows:
        """Return the rows with positive weights, of at most 1, in the dtype of x."""
        weight = (self.weight / self.weight.max()).astype(self.x.dtype)
        return self._replace(weight=weight).weighted()

    def weighted(self) -> Rows:
        """Return the rows of positive weight."""
        kept = self.weight > 0
        return self if kept.all() else Rows(self.x[kept], self.y[kept], self.weight[kept])

    def feeds(self, ex: Executor) -> dict[str, Array]:
        """Return the arrays that the net takes; raise GraphError if it cannot take weights."""
        found = {"x": self.x, "y": self.y}
        if WEIGHT in ex.plan.input_names:
            return {**found, WEIGHT: self.weight}
        if np.ptp(self.weight):
            raise GraphError(
                f"net {ex.plan.declared.name!r} takes no sample_weight",
                hint=f"declare net.input({WEIGHT!r}, gc.N), and give it to the loss: "
                f"gc.softmax_loss(scores, y, weight=w)",
            )
        return found


@dataclass(kw_only=True, repr=False, eq=False)
class GraphEstimator(BaseEstimator):  # type: ignore[misc]
    """The base of `GraphClassifier` and `GraphRegressor`; its fields are their common options."""

    _output: ClassVar[str]
    _perceptron: ClassVar[type[ClassifierNet] | type[RegressorNet]]

    hidden: tuple[int, ...] = field(default=(100,), kw_only=False)
    batchnorm: bool = False
    dropout: float = 0.0
    standardize: bool = True
    net: Declare | None = None
    lr: float = 1e-3
    weight_decay: float = 3e-3
    optimizer: Optimizer | None = None
    batch: int = 200
    epochs: int = 200
    tol: float = 1e-4
    patience: int = 10
    backend: str | None = None
    threads: int | None = None
    random_state: int | np.random.RandomState | None = None

    @property
    def n_iter_(self) -> int:
        """The number of epochs that have been trained."""
        check_is_fitted(self)
        return len(self.history_.epochs)

    def _rows(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        *,
        reset: bool,
        **y_as: bool,
    ) -> Rows:
        """Return the checked rows of positive weight; raise ValueError for unusable data."""
        x, y = validate_data(self, X, y, dtype=FLOATS, reset=reset, **y_as)
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
        if (weight < 0).any():
            raise ValueError(f"sample_weight holds {weight.min()}, weights are 0 or more")
        if not weight.any():
            raise ValueError("sample_weight is 0 for every row, so there is nothing to train on")
        return Rows(x, np.asarray(y), weight).weighted()

    def _begin(self, rows: Rows, units: int, classes: Sequence[str] = ()) -> None:
        """Create a new executor whose statistics are fitted to the rows."""
        self._check_replaced()
        features = rows.x.shape[1]
        options: dict[str, Any] = {
            "batch": plain(self.batch),
            "optimizer": self.optimizer or Adam(self.lr, weight_decay=self.weight_decay),
            "threads": plain(self.threads),
        }
        if self.net is None:
            layers, backend = self._layers(rows.x.dtype.name), chosen_backend(self.backend)
            plan = _perceptron_plan(layers, features, units, backend=backend, **options)
        else:
            net = _checked(self.net(features, units), units, self._output)
            plan = compile(net, backend=self.backend, **options)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        executor = Executor(plan, seed=seed)
        fit_standardize(executor, rows.feeds(executor), weight=rows.weight)
        executor.state.columns = self._columns(classes)
        self.executor_, self.history_ = executor, History()

    def _check_replaced(self) -> None:
        """Raise ValueError for options without effect because another one replaces them."""
        usual = signature(type(self).__init__).parameters
        for name, others in REPLACED.items():
            for other in others if getattr(self, name) is not None else ():
                value = getattr(self, other)
                if np.any(value != usual[other].default):
                    raise ValueError(
                        f"{other} is {value!r}, but {name} is given, which replaces it: leave "
                        f"{other} out, and set it in {name}"
                    )

    def _columns(self, classes: Sequence[str]) -> Columns | None:
        """Return the names of features and classes, or None if no model file can store them."""
        features = tuple(getattr(self, "feature_names_in_", ()))
        try:
            return Columns(features, "", tuple(classes)) if features or classes else None
        except ValueError:
            return None

    def _layers(self, dtype: str) -> Declare:
        hidden = self.hidden
        try:
            widths = tuple(hidden)
        except TypeError:
            raise ValueError(
                f"hidden is {hidden!r}, it must list the widths of the hidden layers, as (100, 50)"
            ) from None
        return self._perceptron(
            widths, bool(self.batchnorm), float(self.dropout), bool(self.standardize), dtype
        )

    def _train(self, rows: Rows, epochs: int, *callbacks: Callback) -> Self:
        """Train `epochs` more epochs; raise NotFiniteError if the loss does not stay finite."""
        executor, history = self.executor_, self.history_
        seed = executor.state.seed
        source = training_source(executor, rows.feeds(executor), executor.plan.batch, seed)
        last = len(history.epochs) + int(epochs)
        Run(executor, source, last, callbacks, history=history).train(progress=False)
        return self

    def _stopping(self) -> EarlyStopping:
        """Return the rule that ends `fit` early; raise ValueError for numbers out of range."""
        for name in ("epochs", "patience"):
            value = getattr(self, name)
            if whole(value, 1) is None:
                raise ValueError(f"{name} is {value!r}, it must be a whole number from 1 up")
        if not (isinstance(self.tol, Real) and 0 <= self.tol < math.inf):
            raise ValueError(f"tol is {self.tol!r}, it must be a number of 0 or more")
        return EarlyStopping(self.patience, watch="loss", least=float(self.tol), restore=False)

    def _predict(self, X: ArrayLike) -> Array:
        """Return the output for each row: (N, units)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=FLOATS, reset=False)
        executor = self.executor_
        # The lock makes threads that predict at the same time take turns.
        found = executor.state.lock(lambda: executor.predict(x=x))
        return np.asarray(found[self._output] if isinstance(found, dict) else found)
