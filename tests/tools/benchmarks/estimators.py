"""The estimators beside scikit-learn's MLP and boosted trees, and skorch, on twelve tables.

    python -m tests.tools.benchmarks.estimators [--splits 5] [--tune] [TABLE ...]

Five tables are scikit-learn's, seven are made: friedman's, noise, noise with many columns,
categories, gaps, and both for classes and for a number.  Each is split into training and test
part a few times.  All sides get the same rows and have their own defaults, nets at most 200
epochs; graphc is run with its defaults, and with early stopping.  The other nets stand behind
what users put before them: a StandardScaler for features and for regression's target, a
SimpleImputer with indicators for gaps and a OneHotEncoder for categories; graphc prepares inside
its net, trees take the table as it is.  A row shows the score (accuracy, or R2), and for classes
the negated log-loss, as means over the splits; and ours less the better of the other nets, in
standard errors of the differences on the same splits.  The defaults were chosen on the splits of
`--tune`, which no other run uses.  skorch's column is empty where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from graphc.sklearn import GraphClassifier, GraphRegressor

EPOCHS = 200
FIRST, TUNING = 0, 1000
"""The seed of the first split, and of the first that defaults were chosen on."""


class Table(NamedTuple):
    """Features, some of which are categories, and labels or targets."""

    x: np.ndarray
    y: np.ndarray
    categories: tuple[int, ...] = ()

    @property
    def regression(self) -> bool:
        return self.y.dtype.kind == "f"

    @property
    def gaps(self) -> bool:
        return bool(np.isnan(self.x).any())


def bundled(name: str) -> Table:
    data = getattr(datasets, f"load_{name}")()
    y = data.target.astype(float) if name in ("diabetes", "linnerud") else data.target
    return Table(data.data, y)


def noise(columns: int, rows: int = 1500) -> Table:
    """A third of the labels are drawn anew, and few columns matter."""
    x, y = datasets.make_classification(
        rows, columns, n_informative=5, n_redundant=0, flip_y=0.35, class_sep=0.7, random_state=1
    )
    return Table(x, y)


def mixed(*, categories: bool, gaps: bool, regression: bool = False) -> Table:
    """Numbers, categories that shift the target by a step each, and gaps that tell something."""
    rng = np.random.default_rng(7)
    rows, kinds = 1200, (3, 8, 15)
    x = rng.normal(size=(rows, 6))
    target = x[:, 0] - x[:, 1] * (x[:, 2] > 0)
    columns: tuple[int, ...] = ()
    if categories:
        codes = np.stack([rng.integers(0, kind, rows) for kind in kinds], 1)
        steps = [rng.normal(size=kind) for kind in kinds]
        target = target + sum(step[code] for step, code in zip(steps, codes.T, strict=True))
        columns = tuple(range(x.shape[1], x.shape[1] + len(kinds)))
        x = np.concatenate([x, codes], 1)
    if gaps:
        missing = rng.random((rows, 6)) < np.where(target > 0, 0.25, 0.1)[:, None]
        x[:, :6][missing] = np.nan
    target = target + rng.normal(size=rows)
    return Table(x, 50 * target if regression else (target > 0).astype(int), columns)


def friedman() -> Table:
    return Table(*datasets.make_friedman1(1000, 10, noise=2.0, random_state=3))


TABLES: dict[str, Callable[[], Table]] = {
    "iris": lambda: bundled("iris"),
    "wine": lambda: bundled("wine"),
    "breast_cancer": lambda: bundled("breast_cancer"),
    "digits": lambda: bundled("digits"),
    "diabetes": lambda: bundled("diabetes"),
    "friedman": friedman,
    "noise": lambda: noise(10),
    "wide": lambda: noise(300, 800),
    "categories": lambda: mixed(categories=True, gaps=False),
    "gaps": lambda: mixed(categories=False, gaps=True),
    "both": lambda: mixed(categories=True, gaps=True),
    "flats": lambda: mixed(categories=True, gaps=True, regression=True),
}


def ours(table: Table, seed: int, **options: Any) -> Any:
    kind = GraphRegressor if table.regression else GraphClassifier
    if table.gaps or table.categories:
        options |= {"prepare": True, "categorical_features": list(table.categories)}
    return kind(epochs=EPOCHS, random_state=seed, **options)


def prepared(table: Table, model: Any) -> Any:
    """The model behind scikit-learn's preparation of the columns."""
    numbers = [i for i in range(table.x.shape[1]) if i not in table.categories]
    fill = [SimpleImputer(add_indicator=True)] if table.gaps else []
    numeric = make_pipeline(*fill, StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = [("numbers", numeric, numbers), ("words", words, list(table.categories))]
    whole = make_pipeline(ColumnTransformer(steps), model)
    if not table.regression:
        return whole
    return TransformedTargetRegressor(whole, transformer=StandardScaler())


def scikit_learn(table: Table, seed: int) -> Any:
    kind = MLPRegressor if table.regression else MLPClassifier
    return prepared(table, kind(max_iter=EPOCHS, random_state=seed))


def trees(table: Table, seed: int) -> Any:
    kind = HistGradientBoostingRegressor if table.regression else HistGradientBoostingClassifier
    return kind(categorical_features=list(table.categories), random_state=seed)


def skorch(table: Table, seed: int) -> Any:
    """As its users set it: Adam, a fifth of the rows for validation, and early stopping by them."""
    import torch
    from skorch import NeuralNetClassifier, NeuralNetRegressor
    from skorch.callbacks import EarlyStopping
    from torch import nn

    class Regressor(NeuralNetRegressor):
        def fit(self, x: Any, y: Any) -> Any:
            return super().fit(x, y.reshape(-1, 1).astype(np.float32))

    torch.manual_seed(seed)
    units = 1 if table.regression else len(np.unique(table.y))
    net = nn.Sequential(nn.LazyLinear(100), nn.ReLU(), nn.Linear(100, units))
    stop = EarlyStopping(patience=10, load_best=True, sink=lambda text: None)
    options: dict[str, Any] = {"max_epochs": EPOCHS, "optimizer": torch.optim.Adam, "lr": 1e-3}
    options |= {"batch_size": 128, "verbose": 0, "callbacks": [stop]}
    if not table.regression:
        options["criterion"] = nn.CrossEntropyLoss
    model = (Regressor if table.regression else NeuralNetClassifier)(net, **options)
    return prepared(table, make_pipeline(FunctionTransformer(np.float32), model))


Make = Callable[[Table, int], Any]
OURS: dict[str, Make] = {
    "graphc": ours,
    "stopped": lambda table, seed: ours(table, seed, early_stopping=True),
}
OTHERS: dict[str, Make] = {"sklearn": scikit_learn, "skorch": skorch}
TREES: dict[str, Make] = {"trees": trees}


def splits(table: Table, first: int, count: int) -> Iterator[list[np.ndarray]]:
    for seed in range(first, first + count):
        stratify = None if table.regression else table.y
        yield train_test_split(
            table.x, table.y, test_size=0.25, random_state=seed, stratify=stratify
        )


def scores(table: Table, make: Make, first: int, count: int) -> np.ndarray:
    """The score of each split, and for classes the negated log-loss: (splits, 1 or 2)."""
    found = []
    for seed, (x, x_test, y, y_test) in enumerate(splits(table, first, count)):
        model = make(table, seed).fit(x, y)
        found.append([model.score(x_test, y_test)])
        if not table.regression:
            chances = model.predict_proba(x_test)
            found[-1].append(-log_loss(y_test, chances, labels=model.classes_))
    return np.array(found)


def print_rows(name: str, sides: dict[str, np.ndarray]) -> Iterator[dict[str, float]]:
    """Print a line for each number; yield ours less the better other, in standard errors."""
    measures = ("R2",) if len(next(iter(sides.values()))[0]) == 1 else ("accuracy", "-log-loss")
    for at, measure in enumerate(measures):
        values = {side: found[:, at] for side, found in sides.items()}
        best = max((s for s in values if s in OTHERS), key=lambda side: values[side].mean())
        gaps = {}
        for side in OURS:
            gap = values[side] - values[best]
            gaps[side] = float(gap.mean() / max(gap.std(ddof=1) / len(gap) ** 0.5, 1e-4))
        cells = [f"{values[side].mean():9.4f}" if side in values else " " * 9 for side in SIDES]
        cells += [f"{gap:+8.2f}" for gap in gaps.values()]
        print(f"{name:14}{measure:10}" + "".join(cells), flush=True)
        yield gaps


SIDES = OURS | OTHERS | TREES


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tune", action="store_true", help="the splits for choosing defaults")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    have_skorch = importlib.util.find_spec("skorch") is not None
    sides = {name: make for name, make in SIDES.items() if have_skorch or name != "skorch"}
    first = TUNING if args.tune else FIRST
    header = "".join(f"{side:>9}" for side in SIDES) + "".join(f"{side:>8}" for side in OURS)
    print(f"{'table':14}{'':10}{header}")
    gaps = []
    for name in args.tables or TABLES:
        table = TABLES[name]()
        found = {side: scores(table, make, first, args.splits) for side, make in sides.items()}
        gaps += print_rows(name, found)
    for side in OURS:
        own = [gap[side] for gap in gaps]
        print(f"{side}: mean {np.mean(own):+.2f}, worst {min(own):+.2f} standard errors")


if __name__ == "__main__":
    main()
