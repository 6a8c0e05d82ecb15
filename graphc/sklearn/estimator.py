"""The common part of classifier and regressor: their options, nets and training."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import signature
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from graphc.backends.backend import chosen_backend
from graphc.base.arguments import plain, whole
from graphc.base.errors import GraphError, counted
from graphc.compiler.compile import compile
from graphc.compiler.plan import Plan
from graphc.data import two_parts
from graphc.declare.optim import Adam, Optimizer
from graphc.ir.op import Array
from graphc.runtime.columns import Columns
from graphc.runtime.executor import Executor
from graphc.sklearn.nets import WEIGHT, ClassifierNet, Declare, RegressorNet, checked_net
from graphc.train.callbacks import Callback, EarlyStopping, Epoch
from graphc.train.history import History, epoch_text
from graphc.train.run import Run
from graphc.train.standardize import fit_standardize
from graphc.train.user_data import training_source, validation_source


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
        return self if kept.all() else self._at(kept)

    def parts(self, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """Return the rows to train on and those to validate on; raise ValueError for too few."""
        labels = self.y if self.y.ndim == 1 else None
        train, held = two_parts(len(self.weight), fraction, seed, labels)
        if not len(train) or not len(held):
            raise ValueError(
                f"a validation_fraction of {fraction:g} of {counted(len(self.weight), 'row')} "
                "leaves none on one side"
            )
        return self._at(train), self._at(held)

    def _at(self, rows: NDArray[Any]) -> Rows:
        return Rows(self.x[rows], self.y[rows], self.weight[rows])

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


@dataclass
class Printed(Callback):
    """A callback that prints a line after each epoch, of which the last has this number."""

    only_reads_numbers = True
    last: int

    def __call__(self, epoch: Epoch) -> None:
        """Print the numbers of the epoch."""
        sys.stdout.write(epoch_text(epoch.history, self.last) + "\n")


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
    early_stopping: bool = False
    validation_fraction: float = 0.1
    verbose: bool = False
    backend: str | None = None
    threads: int | None = None
    random_state: int | np.random.RandomState | None = None

    @property
    def n_iter_(self) -> int:
        """The number of epochs that have been trained."""
        check_is_fitted(self)
        return len(self.history_.epochs)

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss of each epoch."""
        check_is_fitted(self)
        return self.history_.loss

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

    def _fit(self, rows: Rows, units: int, classes: Sequence[str] = ()) -> Self:
        """Train a new executor until the loss stands still, or for all epochs: then warn."""
        stopping, seed = self._stopping(), self._seed()
        train, held = rows, None
        if self.early_stopping:
            train, held = rows.parts(self.validation_fraction, seed)
        self._begin(train, units, classes, seed)
        self._train(train, self.epochs, stopping, held=held)
        if not self.history_.stopped:
            other = "" if self.early_stopping else ", or early_stopping=True"
            warnings.warn(
                f"training did not converge: {stopping.watch} still improved when all "
                f"{counted(self.epochs, 'epoch')} were done; give more epochs, another lr{other}",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _begin(
        self, rows: Rows, units: int, classes: Sequence[str] = (), seed: int | None = None
    ) -> None:
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
            net = checked_net(self.net(features, units), units, self._output)
            plan = compile(net, backend=self.backend, **options)
        executor = Executor(plan, seed=self._seed() if seed is None else seed)
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

    def _train(
        self, rows: Rows, epochs: int, *callbacks: Callback, held: Rows | None = None
    ) -> Self:
        """Train `epochs` more epochs; raise NotFiniteError if the loss does not stay finite."""
        executor, history = self.executor_, self.history_
        seed = executor.state.seed
        source = training_source(executor, rows.feeds(executor), executor.plan.batch, seed)
        judged = None if held is None else validation_source(executor, held.feeds(executor))
        last = len(history.epochs) + int(epochs)
        if self.verbose:
            callbacks = (*callbacks, Printed(last))
        run = Run(executor, source, last, callbacks, validation=judged, history=history)
        run.train(progress=False)
        return self

    def _stopping(self) -> EarlyStopping:
        """Return the rule that ends `fit` early; raise ValueError for numbers out of range."""
        for name in ("epochs", "patience"):
            value = getattr(self, name)
            if whole(value, 1) is None:
                raise ValueError(f"{name} is {value!r}, it must be a whole number from 1 up")
        if not (isinstance(self.tol, Real) and 0 <= self.tol < math.inf):
            raise ValueError(f"tol is {self.tol!r}, it must be a number of 0 or more")
        part = self.validation_fraction
        if not (isinstance(part, Real) and 0 < part < 1):
            raise ValueError(
                f"validation_fraction is {part!r}, it must be a number between 0 and 1"
            )
        watch = "val_loss" if self.early_stopping else "loss"
        restore = bool(self.early_stopping)
        return EarlyStopping(self.patience, watch=watch, least=float(self.tol), restore=restore)

    def _predict(self, X: ArrayLike) -> Array:
        """Return the output for each row: (N, units)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=FLOATS, reset=False)
        executor = self.executor_
        # The lock makes threads that predict at the same time take turns.
        found = executor.state.lock(lambda: executor.predict(x=x))
        return np.asarray(found[self._output] if isinstance(found, dict) else found)
