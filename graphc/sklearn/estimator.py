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
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from graphc.backends.backend import chosen_backend
from graphc.base.arguments import plain, whole
from graphc.base.errors import counted
from graphc.compiler.compile import compile
from graphc.compiler.plan import Plan
from graphc.declare.optim import Adam, Optimizer
from graphc.declare.perceptrons import Declare, Perceptron
from graphc.declare.preparation import Preparation
from graphc.ir.op import Array
from graphc.ops.linalg import AffineLayer
from graphc.runtime.columns import Columns
from graphc.runtime.executor import Executor
from graphc.sklearn.columns import Words, chosen_columns
from graphc.sklearn.nets import checked_net
from graphc.sklearn.rows import Rows, predict
from graphc.train.callbacks import Callback, EarlyStopping, Epoch
from graphc.train.history import History, epoch_text
from graphc.train.run import Run


@lru_cache(maxsize=16)
def _perceptron_plan(declare: Declare, features: int, units: int, **options: Any) -> Plan:
    """Return a plan for a perceptron; they are cached, since a search asks for equal ones."""
    return compile(declare(features, units), **options)


REPLACED: Mapping[str, tuple[str, ...]] = {
    "net": ("hidden", "batchnorm", "dropout", "standardize", "prepare", "categorical_features"),
    "optimizer": ("lr", "weight_decay"),
}
"""The options that each of these options replaces."""

PATIENCE = (10, 30)
"""The usual patience, and that by the loss of validation rows, which are few: it wavers more."""

FLOATS = (np.float64, np.float32)
"""The dtypes in which features are trained as they are; others are converted to the first."""


def _copy_parameters(before: Executor, ex: Executor) -> None:
    """Give an executor the parameters of another; raise ValueError if it has none like that."""
    shapes = [{k: v.shape for k, v in one.parameters.items()} for one in (before, ex)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "warm_start: features, classes and layers must be those of the fit before, which had "
            f"the parameters {shapes[0]}, not {shapes[1]}"
        )
    ex.state = dict(before.parameters)


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

    hidden: tuple[int, ...] = field(default=(100,), kw_only=False)
    batchnorm: bool = False
    dropout: float = 0.0
    standardize: bool = True
    prepare: bool = False
    categorical_features: Sequence[int | str] | NDArray[Any] | None = None
    net: Declare | None = None
    lr: float = 1e-3
    weight_decay: float = 3e-3
    optimizer: Optimizer | None = None
    batch: int = 200
    epochs: int = 200
    tol: float = 1e-4
    patience: int | None = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    warm_start: bool = False
    verbose: bool = False
    backend: str | None = None
    threads: int | None = None
    random_state: int | np.random.RandomState | None = None

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: sparse features, or columns that the net prepares."""
        tags = super().__sklearn_tags__()
        takes, prepare = tags.input_tags, bool(self.prepare)
        takes.sparse, takes.allow_nan, takes.string, takes.categorical = not prepare, *[prepare] * 3
        return tags

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

    @property
    def loss_(self) -> float:
        """The training loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def coefs_(self) -> list[Array]:
        """The weights (inputs, outputs) of each layer, of features as the net prepares them."""
        return self._layer_parameters(1)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases (outputs,) of each layer."""
        return self._layer_parameters(2)

    def _layer_parameters(self, operand: int) -> list[Array]:
        check_is_fitted(self)
        ex = self.executor_
        layers = (node.inputs for node in ex.plan.declared if isinstance(node.op, AffineLayer))
        return [ex.parameters[names[operand]] for names in layers if len(names) > operand]

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
        x, labels = validate_data(self, X, y, reset=reset, **self._takes(), **y_as)
        x = self._numbers(x, reset=reset)
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
        if (weight < 0).any():
            raise ValueError(f"sample_weight holds {weight.min()}, weights are 0 or more")
        if not weight.any():
            raise ValueError("sample_weight is 0 for every row, so there is nothing to train on")
        dense: Any = labels.toarray() if issparse(labels) else np.asarray(labels)
        return Rows(x, dense, weight).weighted()

    def _takes(self) -> dict[str, Any]:
        """Return how X is checked: as floats, or as columns of any kind with gaps."""
        if self.prepare:
            return {"dtype": None, "ensure_all_finite": "allow-nan"}
        if self.categorical_features is not None:
            raise ValueError("categorical_features is given, which needs prepare=True")
        return {"dtype": FLOATS, "accept_sparse": "csr"}

    def _numbers(self, x: Any, *, reset: bool) -> Any:
        """Return checked X as floats, with numbers for words; `reset` sets the words."""
        if not self.prepare:
            return x
        if reset:
            self._words = Words.of(x)
        return self._words.numbers(x)

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
            layers, backend = self._layers(rows), chosen_backend(self.backend)
            plan = _perceptron_plan(layers, features, units, backend=backend, **options)
        else:
            net = checked_net(self.net(features, units), units, self._output)
            plan = compile(net, backend=self.backend, **options)
        executor = Executor(plan, seed=self._seed() if seed is None else seed)
        before: Executor | None = getattr(self, "executor_", None)
        if self.warm_start and before is not None:
            _copy_parameters(before, executor)
        rows.fit_statistics(executor)
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
            words = self._words.columns if self.prepare and self._words.categories else ()
            found = Columns(features, "", tuple(classes), words, bool(self.prepare))
            return None if found == Columns(()) else found
        except ValueError:
            return None

    def _perceptron(self, rows: Rows) -> type[Perceptron]:
        """Return the kind of net for these rows."""
        raise NotImplementedError

    def _layers(self, rows: Rows) -> Declare:
        hidden = self.hidden
        try:
            widths = tuple(hidden)
        except TypeError:
            raise ValueError(
                f"hidden is {hidden!r}, it must list the widths of the hidden layers, as (100, 50)"
            ) from None
        dtype, kind = rows.x.dtype.name, self._perceptron(rows)
        flags = bool(self.batchnorm), float(self.dropout), bool(self.standardize)
        return kind(widths, *flags, dtype, self._preparation(rows))

    def _preparation(self, rows: Rows) -> Preparation | None:
        """Return how the net prepares its columns, or None if it does not."""
        if not self.prepare:
            return None
        names = tuple(getattr(self, "feature_names_in_", ()))
        given = chosen_columns(self.categorical_features, rows.x.shape[1], names)
        found = Preparation.of(rows.x, given | self._words.categories)
        if not found.numbers and not found.categories:
            raise ValueError("X has no column with a value")
        return found

    def _train(
        self, rows: Rows, epochs: int, *callbacks: Callback, held: Rows | None = None
    ) -> Self:
        """Train `epochs` more epochs; raise NotFiniteError if the loss does not stay finite."""
        executor, history = self.executor_, self.history_
        source = rows.training_source(executor, executor.state.seed)
        judged = None if held is None else held.validation_source(executor)
        last = len(history.epochs) + int(epochs)
        if self.verbose:
            callbacks = (*callbacks, Printed(last))
        run = Run(executor, source, last, callbacks, validation=judged, history=history)
        run.train(progress=False)
        return self

    def _stopping(self) -> EarlyStopping:
        """Return the rule that ends `fit` early; raise ValueError for numbers out of range."""
        patience = PATIENCE[bool(self.early_stopping)] if self.patience is None else self.patience
        for name, value in (("epochs", self.epochs), ("patience", patience)):
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
        return EarlyStopping(patience, watch=watch, least=float(self.tol), restore=restore)

    def _predict(self, X: ArrayLike) -> Array:
        """Return the output for each row: (N, units)."""
        check_is_fitted(self)
        x = self._numbers(validate_data(self, X, reset=False, **self._takes()), reset=False)
        executor = self.executor_
        # The lock makes threads that predict at the same time take turns.
        found = executor.state.lock(lambda: predict(executor, x))
        return np.asarray(found[self._output] if isinstance(found, dict) else found)
