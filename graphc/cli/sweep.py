"""`graphc sweep`: train a model with many settings and seeds at once, and keep the best."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import GraphError
from graphc.cli.arguments import (
    Command,
    Parser,
    file_name,
    fraction,
    from_up,
    number,
    optimizer,
    positive,
    show,
    warned,
    whole,
)
from graphc.cli.data import feeds_of, split
from graphc.cli.model import Model, check_has_loss, compiled, metrics
from graphc.cli.table_net import add_net, chosen_model
from graphc.declare.optim import Optimizer
from graphc.declare.optim.optimizer import leading, numbers_of
from graphc.files.disk import make_folder
from graphc.files.serialize import save
from graphc.ir.tensor_type import N
from graphc.runtime.executor import Executor
from graphc.runtime.population import Population
from graphc.runtime.row_axis import rows_of
from graphc.train import EarlyStopping, Histories, History, fit
from graphc.train.history import aligned
from graphc.train.member_rows import folds_of
from graphc.view.plots import learning_curve

COMMAND = Command(
    "sweep",
    order=25,
    help="train a model with many settings at once",
    description="Train a model from new weights with every combination of the settings of its "
    "optimizer, each with several seeds, all side by side. Print a table of the means over the "
    "seeds, and over the folds if there are any, best first. Draw the curves, and save the best "
    "model: of the best seed or, with folds, one that is trained again on all rows. Data are as "
    "for graphc train.",
    example="graphc sweep net.py:net --data train.csv --grid lr=1e-3,3e-3 --seeds 5\n"
    "graphc sweep --hidden 64 --data train.csv --grid lr=1e-3,1e-2 --folds 5",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add_net(parser)
    parser.add_data(".npz, .csv, digits, iris, wine, ...", required=True)
    add(
        "--grid",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="the values of a number of the optimizer: lr, weight_decay, ...",
    )
    add("--seeds", type=positive, default=3, help="seeds of each combination (default: 3)")
    add("--folds", type=from_up(2), help="validate on each of so many parts of the rows in turn")
    add("--epochs", type=positive, default=20, help="the most epochs (default: 20)")
    add(
        "--patience",
        type=positive,
        metavar="EPOCHS",
        help="end a training after so many epochs without a smaller validation loss, and return "
        "to its best epoch",
    )
    add("--batch", type=positive, default=128, help="rows of a step (default: 128)")
    parser.add_optimizer()
    add("--seed", type=whole, default=0, help="the first seed (default: 0)")
    parser.add_backend()
    add("--out", default="graphc-sweep", metavar="DIR", help="(default: graphc-sweep)")
    add(
        "--validation",
        type=fraction,
        default=0.2,
        metavar="FRACTION",
        help="without folds: fraction of the rows that are not trained on (default: 0.2)",
    )
    parser.add_json()


def setting(text: str) -> tuple[str, tuple[float, ...]]:
    """Return the name and the values of a setting."""
    name, equals, values = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,...")
    found = tuple(int(one) if one.isdecimal() else number(one) for one in values.split(","))
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} has a value twice")
    return name, found


@dataclass
class Candidate:
    """A combination of settings, and the results of its trainings."""

    settings: Mapping[str, float]
    optimizer: Optimizer

    def __post_init__(self) -> None:
        self.seeds: list[int] = []
        self.histories: list[History] = []
        self.epochs: list[int] = []
        """The number of epochs behind each model that was kept."""
        self.numbers: list[dict[str, float]] = []
        """The losses and the accuracy of each kept model on its validation rows."""
        self.models: list[Executor] = []

    @property
    def title(self) -> str:
        """The settings in one line."""
        return ", ".join(f"{name}={value:g}" for name, value in self.settings.items())

    def mean(self, name: str) -> float:
        """Return the mean of a number over seeds and folds; infinity if one is not finite."""
        value = float(np.mean([found[name] for found in self.numbers]))
        return value if isfinite(value) else inf

    def spread(self, name: str) -> float:
        """Return the standard deviation of a number over seeds and folds."""
        return float(np.std([found[name] for found in self.numbers]))


def run(args: argparse.Namespace) -> int:
    """Train all candidates, print the table, draw the curves, and save the best model."""
    model = chosen_model(args)
    check_has_loss(model)
    sweep = Sweep(args, model)
    make_folder(Path(args.out))
    candidates = sorted(sweep.run(), key=sweep.loss)
    best = candidates[0]
    if not isfinite(sweep.loss(best)):
        raise GraphError("no candidate has a finite loss", hint="--grid lr=... with smaller ones")
    files = [_saved(args, sweep.best_model(best))]
    histories = Histories(history for one in candidates for history in one.histories)
    names = [one.title for one in candidates for _ in one.histories]
    picture = Path(args.out) / "sweep.png"
    files.extend(warned(picture, lambda path: learning_curve(histories, path, names=names)))
    data = {
        "net": model.net.name,
        "candidates": [sweep.described(one) for one in candidates],
        "files": files,
    }
    lines = [sweep.table(candidates), "", "wrote", *(f"  {file}" for file in files)]
    show(args, data, "\n".join(lines))
    return 0


def _saved(args: argparse.Namespace, ex: Executor) -> Path:
    path = Path(args.out) / f"{file_name(ex.plan.declared.name)}.gc"
    save(path, ex)
    return path


class Sweep:
    """The trainings of all candidates on the data."""

    def __init__(self, args: argparse.Namespace, model: Model) -> None:
        self._args = args
        self._candidates = list(_candidates(args))
        lead = leading(one.optimizer for one in self._candidates)
        first = self._compiled(model, lead)
        ex = Executor(first)
        feeds, self._columns = feeds_of(first, args, model.columns)
        self._feeds = feeds | ex.rows(feeds, train=True)[0]
        self._types = {name: first.declared[name].type for name in self._feeds}
        self._plans = {lead.kind: first}
        self._model = model
        self._losses = first.losses
        self._pairs = list(self._parts())

    def _parts(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield the rows to train on and those to validate on, of each fold."""
        args = self._args
        batched = (name for name, type in self._types.items() if type.shape[:1] == (N,))
        rows = len(self._feeds[next(batched)])
        if args.folds:
            yield from folds_of(args.folds, self._feeds, rows, args.seed)
        elif not args.validation:
            raise GraphError("a sweep compares validation losses", hint="--validation 0.2")
        else:
            numbers = {**self._feeds, "": np.arange(rows, dtype=np.float64)}
            train, held = split(numbers, args.validation, args.seed)
            yield train[""].astype(np.intp), held[""].astype(np.intp)

    def _compiled(self, model: Model, optimizer: Optimizer) -> Any:
        return compiled(self._args, model.graph, optimizer=optimizer)

    def run(self) -> list[Candidate]:
        """Train the candidates, those that differ only in rate and decay as one population."""
        kinds: dict[Optimizer, list[Candidate]] = {}
        for candidate in self._candidates:
            kinds.setdefault(candidate.optimizer.kind, []).append(candidate)
        for kind, candidates in kinds.items():
            if kind not in self._plans:
                lead = leading(one.optimizer for one in candidates)
                self._plans[kind] = self._compiled(self._model, lead)
            self._train(candidates)
        return self._candidates

    def _train(self, candidates: Sequence[Candidate]) -> None:
        """Train candidates of one plan: each with each seed, and that on each fold."""
        args, pairs = self._args, self._pairs
        seeds = range(args.seed, args.seed + args.seeds)
        members = [(one, seed, pair) for one in candidates for seed in seeds for pair in pairs]
        plan = self._plans[candidates[0].optimizer.kind]
        population = Population(plan, seeds=[seed for _, seed, _ in members])
        optimizers = [one.optimizer for one, _, _ in members]
        population.hyper.update(numbers_of(optimizers, population.hyper))
        population.columns = self._columns
        histories = fit(
            population,
            self._feeds,
            folds=pairs,
            seed=list(population.seeds),
            epochs=args.epochs,
            callbacks=[EarlyStopping(args.patience)] if args.patience else [],
        )
        for ex, history, (one, seed, (_, held)) in zip(population, histories, members, strict=True):
            one.seeds.append(seed)
            one.histories.append(history)
            one.epochs.append(self._kept(history))
            one.models.append(ex)
            rows = {name: rows_of(a, self._types[name], held) for name, a in self._feeds.items()}
            one.numbers.append(metrics(ex, rows))

    def _kept(self, history: History) -> int:
        """Return the number of epochs behind the model that was kept."""
        values = history.val_loss if self._args.patience else []
        return 1 + int(np.argmin(values)) if values else len(history.epochs)

    def loss(self, candidate: Candidate) -> float:
        """Return the mean validation loss of a candidate."""
        return sum(candidate.mean(name) for name in self._losses)

    def best_model(self, best: Candidate) -> Executor:
        """Return the best of its seeds or, with folds, a net trained on all rows."""
        if not self._args.folds:
            losses = [sum(found[name] for name in self._losses) for found in best.numbers]
            return best.models[int(np.argmin(losses))]
        ex = Executor(self._plans[best.optimizer.kind], seed=self._args.seed)
        for name, (value,) in numbers_of([best.optimizer], ex.hyper).items():
            ex.hyper[name] = value
        ex.state.columns = self._columns
        epochs = max(1, round(float(np.mean(best.epochs))))
        fit(ex, self._feeds, epochs=epochs, seed=self._args.seed)
        return ex

    def described(self, candidate: Candidate) -> dict[str, Any]:
        """Return the numbers of a candidate by name, for JSON."""
        names = candidate.numbers[0]
        return {
            **candidate.settings,
            **{name: [found[name] for found in candidate.numbers] for name in names},
            "seeds": candidate.seeds,
            "epochs": candidate.epochs,
        }

    def table(self, candidates: Sequence[Candidate]) -> str:
        """Return a line for each candidate: settings, means and deviations."""
        columns = [
            (name, [f"{one.settings[name]:g}" for one in candidates])
            for name in candidates[0].settings
        ]
        for name in candidates[0].numbers[0]:
            cells = [f"{one.mean(name):.4f} ± {one.spread(name):.4f}" for one in candidates]
            columns.append((name, cells))
        columns.append(("epochs", [f"{np.mean(one.epochs):.1f}" for one in candidates]))
        return aligned(columns)


def _candidates(args: argparse.Namespace) -> Iterator[Candidate]:
    """Yield all combinations of the settings; raise GraphError for a name that makes no sense."""
    usual = optimizer(args.optimizer or "adam")
    assert usual is not None
    known = [each.name for each in fields(usual) if each.name not in NOT_NUMBERS]
    names = [name for name, _ in args.grid]
    for name in names:
        if name not in known:
            raise GraphError(
                f"--grid: {type(usual).__name__} has no number {name!r}",
                hint=f"it has {', '.join(known)}",
            )
    if len(set(names)) < len(names):
        raise GraphError("--grid names a setting twice", hint="--grid lr=1e-3,3e-3")
    for values in product(*(found for _, found in args.grid)):
        settings = dict(zip(names, values, strict=True)) or {"lr": usual.lr}
        yield Candidate(settings, replace(usual, **settings))


NOT_NUMBERS = ("decay", "schedule", "groups", "name")
"""The fields of optimizers that do not hold a number."""
