"""`graphc train`: train a model on a file of data."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.own_passes import own_passes
from graphc.cli.arguments import (
    Command,
    Parser,
    file_name,
    fraction,
    optimizer,
    passes_text,
    picked,
    positive,
    show,
    whole,
)
from graphc.cli.data import Feeds, feeds_of, split
from graphc.cli.model import Model, UsersError, check_has_loss, compiled, metrics
from graphc.cli.table_net import add_net, chosen_model
from graphc.files.disk import FolderLock, make_folder
from graphc.files.serialize import load_executor, save
from graphc.ir.op import Array
from graphc.runtime.classes import classes_of, predicted_classes
from graphc.runtime.distributed.communicator import LIMIT, Communicator
from graphc.runtime.distributed.mpi import joined, threads_of_rank
from graphc.runtime.executor import Executor
from graphc.train import Checkpoints, History, fit
from graphc.train.run import StepBoundary
from graphc.train.standardize import fit_new
from graphc.view.figure import new_figure
from graphc.view.plots import confusion_matrix, histograms, learning_curve

COMMAND = Command(
    "train",
    order=20,
    help="train a model",
    description="Train a model on a file of data, keep a part of it for validation, and save "
    "the model in a folder. A saved model continues where it stopped. In a .csv file, whose first "
    "line names the columns, one column is the label: a number, or the name of a class. The names "
    "are saved with the model. A .npz file has an array for each input. Ctrl-C saves the model as "
    "it is then.",
    example="graphc train net.py:net --data train.csv --label species --epochs 50 --plots\n"
    "graphc train --hidden 64,32 --data train.csv\n"
    "graphc train net.py:net --data train.csv --checkpoint 9 --out steps\n"
    "graphc train net.py:net --data train.csv --label species --record",
)


def declare(parser: Parser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add_net(parser)
    parser.add_data(".npz, .csv, digits, iris, wine, ...", required=True)
    add("--epochs", type=positive, default=20, help="(default: 20)")
    add("--batch", type=positive, default=128, help="rows of a step (default: 128)")
    parser.add_optimizer()
    add("--lr", type=float, help="learning rate (default: the optimizer's usual one)")
    add("--seed", type=whole, default=0, help="seed of weights, shuffling and masks (default: 0)")
    parser.add_backend()
    parser.add_precision()
    add(
        "--passes",
        action="version",
        version=passes_text(),
        help="list the compiler's passes, and stop",
    )
    add("--without", metavar="PASS,...", default="", help="leave these passes out")
    add("--out", default="graphc-run", metavar="DIR", help="(default: graphc-run)")
    add(
        "--validation",
        type=fraction,
        default=0.2,
        metavar="FRACTION",
        help="fraction of the rows that are not trained on (default: 0.2)",
    )
    add(
        "--plots",
        action="store_true",
        help="draw learning curve, confusion matrix, and histograms of weights and gradients",
    )
    add(
        "--checkpoint",
        metavar="STEPS",
        nargs="?",
        type=positive,
        const=0,
        help="write checkpoints to DIR/checkpoints: every so many steps, or after each epoch",
    )
    add("--resume", action="store_true", help="continue from the last checkpoint, if there is one")
    add_shards(parser)
    add("--record", action="store_true", help="record the run in DIR/record, for graphc replay")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Train, print the final metrics, save the model and the pictures."""
    if args.plots:  # raise now if pictures could not be drawn at the end
        new_figure("each of the --plots", 1, 1)
    ranks = joined(args.timeout)
    with reported_once(ranks):
        return _run(args, ranks)


def _run(args: argparse.Namespace, ranks: Communicator) -> int:
    with beginning(ranks):
        model = chosen_model(args)
        ex = _executor(args, model, ranks)
        feeds, ex.state.columns = feeds_of(ex.plan, args, model.columns)
        feeds |= ex.rows(feeds, train=True)[0]
        train, validation = (
            split(feeds, args.validation, args.seed) if args.validation else (feeds, None)
        )
        lock = FolderLock(Path(args.out), "run")
        if ranks.rank == 0:
            make_folder(Path(args.out))
            lock.take()
    try:
        return _trained(args, ex, train, validation, ranks.rank == 0)
    finally:
        lock.release()


def _trained(
    args: argparse.Namespace, ex: Executor, train: Feeds, validation: Feeds | None, first: bool
) -> int:
    """Train; the first rank also writes the files and prints the metrics."""
    out = Path(args.out)
    fit_new(ex, train)  # so that the gradients before training are those of its first step
    pictures = Pictures(ex, train) if args.plots and first else None
    saved = out / f"{file_name(ex.plan.declared.name)}.gc"
    history = _fitted(args, ex, train, validation, saved if first else None)
    if not first:
        return 0
    files = [save(saved, ex)]
    if args.record:
        files.insert(0, out / "record")
    if pictures is not None:
        files.extend(pictures.draw(out, history, ex, train if validation is None else validation))
    _report(args, ex, history, {"training": train, "validation": validation}, files)
    return 0


def _fitted(
    args: argparse.Namespace,
    ex: Executor,
    train: Feeds,
    validation: Feeds | None,
    saved: Path | None,
) -> History:
    """Train; an interrupted run is kept, at `saved` if it has no checkpoints."""
    out, checkpoints, before = Path(args.out), None, int(ex.state["updates"])
    if args.checkpoint is not None or args.resume:
        checkpoints = Checkpoints(out / "checkpoints", every=args.checkpoint or None)
    try:
        return fit(
            ex,
            train,
            validation=validation,
            epochs=args.epochs,
            seed=args.seed,
            checkpoint=checkpoints,
            resume=args.resume,
            record=out / "record" if args.record else None,
        )
    except KeyboardInterrupt:
        if saved is not None:
            done = int(ex.state["updates"]) - before
            StepBoundary().run(_keep, ex, saved, checkpoints, done)
        raise


def _report(
    args: argparse.Namespace,
    ex: Executor,
    history: History,
    parts: Mapping[str, Feeds | None],
    files: Sequence[Path],
) -> None:
    """Print the metrics on parts of the data, and the files."""
    found = {name: metrics(ex, part) for name, part in parts.items() if part is not None}
    lines = [
        f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
        for name, numbers in found.items()
    ]
    data = {
        "net": ex.plan.declared.name,
        **found,
        "history": picked(history, "epochs", "loss", "val_loss", "metrics", "seconds"),
        "files": files,
    }
    show(args, data, "\n".join([*lines, "wrote", *(f"  {file}" for file in files)]))


def _keep(ex: Executor, path: Path, checkpoints: Checkpoints | None, updates: int) -> None:
    """Save an interrupted run, unless it has checkpoints, and print how to continue it."""
    outcome = "nothing is saved"
    if checkpoints is not None and checkpoints.last is not None:
        outcome = f"--resume continues from {checkpoints.last}"
    elif updates:
        save(path, ex)
        outcome = f"wrote {path}, from which graphc train continues"
    print(f"interrupted after {updates:,} updates: {outcome}", file=sys.stderr)


def _executor(args: argparse.Namespace, model: Model, ranks: Communicator) -> Executor:
    """Return a new executor; a saved model keeps its optimizer unless another is named."""
    check_has_loss(model)
    saved = model.saved
    resumes = saved is not None and bool(saved.plan.rules) and not args.optimizer
    chosen = None if resumes else optimizer(args.optimizer or "adam", args.lr)
    if saved is not None:
        saved = load_executor(args.model, batch=args.batch, optimizer=chosen)
        chosen = saved.plan.optimizer
    several = {} if saved is None or chosen is not None else {"updates": saved.plan.rules}
    names = [name.strip() for name in args.without.split(",") if name.strip()]
    plan = compiled(
        args,
        model.graph,
        optimizer=chosen,
        wrt=None if saved is None or several else saved.plan.wrt,
        threads=args.threads or threads_of_rank(ranks),
        shards=args.shards or (DETERMINISTIC if args.deterministic else None),
        ranks=ranks.size,
        sync_batchnorm=args.sync_batchnorm,
        passes=own_passes().DEFAULT.without(*names),
        precision=args.precision or (None if saved is None else dict(saved.plan.options.precision)),
        **several,
    )
    ex = Executor(plan, seed=args.seed, communicator=ranks)
    if saved is not None:
        ex.state = saved.state
    if args.lr is not None:
        ex.hyper["lr"] = args.lr
    return ex


class Pictures:
    """Pictures of a training: its curve, and weights and gradients before and after it.

    Gradients are those of as many rows as the plan takes, spread evenly over the training data.
    """

    def __init__(self, ex: Executor, train: Feeds) -> None:
        rows = len(next(iter(train.values())))
        chosen = np.unique(np.linspace(0, rows - 1, min(ex.plan.batch, rows)).astype(int))
        self._rows = {name: array[chosen] for name, array in train.items()}
        self._weights = dict(ex.parameters)
        self._gradients = _gradients(ex, self._rows)

    def draw(self, out: Path, history: History, ex: Executor, judged: Feeds) -> Iterator[Path]:
        """Draw all pictures and yield their paths; the confusion matrix is of the rows `judged`."""
        yield learning_curve(history, out / "learning_curve.png")
        classes = classes_of(ex.plan.declared)
        if classes is not None:
            found = predicted_classes(ex, judged, classes)
            path = out / "confusion_matrix.png"
            yield confusion_matrix(judged[classes.labels], found, path, classes=classes.count)
        yield histograms(ex.parameters, out / "weights.png", before=self._weights)
        gradients = _gradients(ex, self._rows)
        path = out / "gradients.png"
        yield histograms(gradients, path, before=self._gradients, magnitudes=True)


def _gradients(ex: Executor, rows: Feeds) -> dict[str, Array]:
    """Return the gradients of these rows; masks and running statistics of `ex` do not change."""
    twin = deepcopy(ex)
    twin.forward(rows, train=True)
    return twin.backward()


DETERMINISTIC = 4
"""The number of shards of a batch for the same bits on any number of ranks."""
LATER = 1.0
"""The seconds after which a rank other than the first reports an error.

If it is an error of all ranks, rank 0 has reported it by then, and ended them.
"""


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the options --deterministic, --shards, --sync-batchnorm and --timeout."""
    add = parser.add_argument
    add(
        "--deterministic",
        action="store_true",
        help=f"the same bits on 1, 2 or {DETERMINISTIC} ranks: --shards {DETERMINISTIC}",
    )
    add("--shards", type=positive, metavar="S", help="as --deterministic, with this many shards")
    add(
        "--sync-batchnorm",
        action="store_true",
        help="batch normalisation by statistics of the whole batch (default: of each shard)",
    )
    add(
        "--timeout",
        type=positive,
        default=int(LIMIT),
        metavar="SECONDS",
        help=f"after this time a rank that does not answer counts as failed (default: {LIMIT:g})",
    )


@contextmanager
def reported_once(ranks: Communicator) -> Iterator[None]:
    """Name the rank of an error; leave errors of all ranks to the first."""
    try:
        yield
    except (GraphError, UsersError):
        if ranks.rank:
            time.sleep(LATER)
            print(f"rank {ranks.rank}: ", end="", file=sys.stderr)
        raise


@contextmanager
def beginning(ranks: Communicator) -> Iterator[None]:
    """End ranks that cannot begin with status 2, as after wrong usage: a restart would not help."""
    try:
        yield
    except (GraphError, UsersError) as error:
        if ranks.size == 1:
            raise
        if ranks.rank:
            time.sleep(LATER)
        print(f"error: {error}" if isinstance(error, GraphError) else error, file=sys.stderr)
        raise SystemExit(2) from None
