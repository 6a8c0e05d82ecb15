"""The common part of classifier and regressor: their options, nets and training."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from inspect import signature
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from graphc.backends.backend import chosen_backend
from graphc.base.arguments import plain, whole
from graphc.base.errors import counted
from graphc.compiler.plan import Plan
from graphc.declare.optim import AdamW, Optimizer
from graphc.declare.perceptrons import Declare, Perceptron
from graphc.declare.preparation import Preparation
from graphc.ir.op import Array
from graphc.runtime.columns import Columns
from graphc.runtime.executor import Executor
from graphc.sklearn.columns import Words, chosen_columns, has_gaps_or_words
from graphc.sklearn.fitted import FittedNets
from graphc.sklearn.rows import MOST, Rows, predict, rows_of_a_step
from graphc.sklearn.together import (
    SWEEP,
    Checked,
    MemberTask,
    NetChoice,
    Training,
    fit_statistics,
    train_alone,
    train_ensemble,
)
from graphc.train.callbacks import Callback, EarlyStopping, Epoch
from graphc.train.history import History, epoch_text

REPLACED: Mapping[str, tuple[str, ...]] = {
    "net": (
        "hidden",
        "batchnorm",
        "dropout",
        "standardize",
        "prepare",
        "categorical_features",
        "dtype",
    ),
    "optimizer": ("lr", "weight_decay"),
}
"""The options that each of these options replaces."""

PATIENCE = (10, 30)
"""The usual patience, and that by the loss of validation rows, which are few: it wavers more."""

FLOATS = (np.float64, np.float32)
"""The dtypes in which features are read as they are; others are converted to the first."""

DTYPES = ("float32", "float64")
"""The dtypes in which nets compute."""


def _copy_parameters(before: Executor, ex: Executor) -> None:
    """Give an executor the parameters of another; raise ValueError if it has none like that."""
    shapes = [{k: v.shape for k, v in one.parameters.items()} for one in (before, ex)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "warm_start: features, classes and layers must be those of the fit before, which had "
            f"the parameters {shapes[0]}, not {shapes[1]}"
        )
    ex.state = dict(before.parameters)


def _drawn(random_state: int | np.random.RandomState | None, count: int) -> tuple[int, ...]:
    """Return seeds that scikit-learn's generator draws."""
    return tuple(check_random_state(random_state).randint(2**31 - 1, size=count).tolist())


_drawn_once = lru_cache(maxsize=16)(_drawn)


@dataclass
class Printed(Callback):
    """A callback that prints a line after each epoch, of which the last has this number."""

    only_reads_numbers = True
    last: int

    def __call__(self, epoch: Epoch) -> None:
        """Print the numbers of the epoch."""
        sys.stdout.write(epoch_text(epoch.history, self.last) + "\n")


@dataclass(kw_only=True, repr=False, eq=False)
class GraphEstimator(FittedNets):
    """The base of `GraphClassifier` and `GraphRegressor`; its fields are their common options."""

    _output: ClassVar[str]

    hidden: tuple[int, ...] = field(default=(100,), kw_only=False)
    batchnorm: bool = False
    dropout: float = 0.0
    standardize: bool = True
    prepare: bool = False
    categorical_features: Sequence[int | str] | NDArray[Any] | None = None
    dtype: str | None = None
    net: Declare | None = None
    lr: float = 1e-3
    weight_decay: float = 1.5
    optimizer: Optimizer | None = None
    batch: int | Literal["auto"] = "auto"
    epochs: int = 200
    tol: float = 1e-4
    patience: int | None = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    ensemble: int = 1
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

    @classmethod
    @cache
    def _get_param_names(cls) -> list[str]:
        """Return the names of all options, which scikit-learn would find again for each copy."""
        return list(super()._get_param_names())

    @classmethod
    @cache
    def _defaults(cls) -> dict[str, Any]:
        """Return the default of each option."""
        return {name: one.default for name, one in signature(cls).parameters.items()}

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
        with self._hint_at_prepare(X):
            x, labels = validate_data(self, X, y, reset=reset, **self._takes(), **y_as)
        x = self._numbers(x, reset=reset)
        self._check_range(x)
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64)
        if (weight < 0).any():
            raise ValueError(f"sample_weight holds {weight.min()}, weights are 0 or more")
        if not weight.any():
            raise ValueError("sample_weight is 0 for every row, so there is nothing to train on")
        dense: Any = labels.toarray() if issparse(labels) else np.asarray(labels)
        return Rows(x, dense, weight).weighted()

    @contextmanager
    def _hint_at_prepare(self, X: ArrayLike) -> Iterator[None]:
        """Add what to do to an error about missing values or words in X."""
        try:
            yield
        except (TypeError, ValueError) as error:
            if self.prepare or not has_gaps_or_words(X):
                raise
            raise ValueError(
                f"{error}\n{type(self).__name__}(prepare=True) takes missing values and words: "
                "the net prepares its columns"
            ) from error

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

    def _computes_in(self, x: Any) -> np.dtype[Any]:
        """Return the dtype of the net, by default that of the features."""
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, it must be 'float32', 'float64' or None")
        return np.dtype(x.dtype if self.dtype is None else self.dtype)

    def _check_range(self, x: Any) -> None:
        """Raise ValueError for a number that the dtype of the net does not have."""
        numbers, dtype = x.data if issparse(x) else x, self._computes_in(x)
        if dtype.itemsize >= x.dtype.itemsize:
            return
        if (large := np.abs(numbers) > np.finfo(dtype).max).any():
            raise ValueError(
                f"X holds {numbers[large][0]}, which is too large for {dtype}: scale its column, "
                f"or give {type(self).__name__}(dtype='float64')"
            )

    @contextmanager
    def _unchanged_if_refused(self) -> Iterator[None]:
        """Restore the fitted estimator if other data is refused."""
        before = dict(self.__dict__)
        try:
            yield
        except ValueError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _checked(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Checked:
        """Return the data to train on; raise ValueError for data that cannot be trained on."""
        raise NotImplementedError

    def _fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Self:
        """Check the data, and train on them from scratch."""
        self._stopping()
        with self._unchanged_if_refused():
            sweep = SWEEP.get()
            check = self._checked if sweep is None else partial(sweep.checked, self, self._checked)
            return self._train_new(*check(X, y, sample_weight))

    def _train_new(self, rows: Rows, units: int, classes: Sequence[str]) -> Self:
        """Train new members until their losses stand still, or for all epochs: then warn."""
        stopping, seeds = self._stopping(), self._seeds()
        train, held = rows, None
        if self.early_stopping:
            train, held = rows.parts(self.validation_fraction, seeds[0])
        random, sweep = self.random_state is None, None if self.warm_start else SWEEP.get()
        choice, last = self._choice(train, units), int(self.epochs)
        batch = self._rows_of_a_step(train)
        training = Training(choice, train, held, batch, seeds, last, stopping, random)
        if sweep is not None and sweep.noting:
            sweep.note(training)
            return self
        trained = None if sweep is None else sweep.result(training)
        if trained is None:
            self._begin(train, choice.plan(), classes, seeds)
            self._train(train, last, stopping, held=held)
        else:
            self._adopt(trained, classes)
        if not all(history.stopped for history in self.histories_):
            other = "" if self.early_stopping else ", or early_stopping=True"
            warnings.warn(
                f"training did not converge: {stopping.watch} still improved when all "
                f"{counted(self.epochs, 'epoch')} were done; give more epochs, another lr{other}",
                ConvergenceWarning,
                stacklevel=4,
            )
        return self

    def _rows_of_a_step(self, rows: Rows) -> int:
        return rows_of_a_step(len(rows.weight)) if self.batch == "auto" else int(self.batch)

    def _seeds(self) -> tuple[int, ...]:
        """Return the seed of each member, of which the first is that of an estimator of one."""
        given, count = self.random_state, int(self.ensemble)
        return _drawn_once(given, count) if isinstance(given, int) else _drawn(given, count)

    def _choice(self, rows: Rows, units: int) -> NetChoice:
        """Return the net for these rows and its options."""
        self._check_replaced()
        own = self.net is not None
        return NetChoice(
            declare=self.net or self._layers(rows),
            features=rows.x.shape[1],
            units=units,
            output=self._output,
            optimizer=self.optimizer or AdamW(self.lr, weight_decay=self.weight_decay),
            batch=MOST if self.batch == "auto" else plain(self.batch),
            threads=plain(self.threads),
            backend=self.backend if own else chosen_backend(self.backend),
            own=own,
        )

    def _begin(
        self, rows: Rows, plan: Plan, classes: Sequence[str], seeds: tuple[int, ...]
    ) -> None:
        """Create new members whose statistics are fitted to the rows."""
        before = self._members() if self.warm_start and hasattr(self, "_model") else ()
        if before and len(before) != len(seeds):
            raise ValueError(
                f"warm_start: ensemble is {self.ensemble}, the fit before had "
                f"{counted(len(before), 'net')}: leave ensemble as it was, or warm_start out"
            )
        self._make(plan, classes, seeds, [History() for _ in seeds])
        for old, new in zip(before, self._members(), strict=bool(before)):
            _copy_parameters(old, new)
        if isinstance(self._model, Executor):
            self._model.state = rows.statistics(plan)
        else:
            fit_statistics(self._model, [rows] * len(seeds))

    def _check_replaced(self) -> None:
        """Raise ValueError for options without effect because another one replaces them."""
        usual = self._defaults()
        for name, others in REPLACED.items():
            for other in others if getattr(self, name) is not None else ():
                value = getattr(self, other)
                if np.any(value != usual[other]):
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
        flags = bool(self.batchnorm), float(self.dropout), bool(self.standardize)
        options = *flags, self._computes_in(rows.x).name, self._preparation(rows)
        return self._perceptron(rows)(widths, *options, reads=rows.x.dtype.name)

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
        model, tasks = self._model, []
        batch, seeds = self._rows_of_a_step(rows), [ex.state.seed for ex in self._members()]
        for seed, history in zip(seeds, self.histories_, strict=True):
            last = len(history.epochs) + int(epochs)
            called = (*callbacks, Printed(last)) if self.verbose else callbacks
            tasks.append(MemberTask(rows, held, batch, seed, last, deepcopy(called), history))
        if isinstance(model, Executor):
            train_alone(model, tasks[0])
        else:
            train_ensemble(model, tasks)
        return self

    def _stopping(self) -> EarlyStopping:
        """Return the rule that ends `fit` early; raise ValueError for numbers out of range."""
        patience = PATIENCE[bool(self.early_stopping)] if self.patience is None else self.patience
        numbers = {"epochs": self.epochs, "patience": patience, "ensemble": self.ensemble}
        for name, value in numbers.items():
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
        with self._hint_at_prepare(X):
            x = validate_data(self, X, reset=False, **self._takes())
        x = self._numbers(x, reset=False)
        self._check_range(x)
        trained = None if self._lent is None else self._lent[0]
        model = self._model if trained is None else trained.population
        first = model if isinstance(model, Executor) else model[0]
        # The lock makes threads that predict at the same time take turns.
        found = first.state.lock(lambda: trained.predict(x) if trained else predict(model, x))
        outputs = np.asarray(found[self._output] if isinstance(found, dict) else found, x.dtype)
        if isinstance(model, Executor):
            return outputs
        return outputs[0] if len(outputs) == 1 else self._combined(outputs)

    def _combined(self, outputs: Array) -> Array:
        """Return the output of an ensemble from those of its members (members, N, units)."""
        return np.asarray(outputs.mean(axis=0))
