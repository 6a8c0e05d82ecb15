"""`graphc train`: train a model on a file of data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc.base.errors import GraphError
from graphc.base.import_paths import own_passes
from graphc.cli.arguments import (
    add_backend,
    add_command,
    add_data,
    add_json,
    add_model,
    add_optimizer,
    file_name,
    fraction,
    optimizer,
    positive,
    whole,
)
from graphc.cli.columns import Feeds
from graphc.cli.data import feeds_of, split
from graphc.cli.metrics import metrics
from graphc.cli.model import Model, load_model
from graphc.cli.output import print_json
from graphc.cli.passes import ListPasses
from graphc.cli.pictures import Pictures, check_matplotlib
from graphc.cli.ranks import DETERMINISTIC, add_shards, beginning, told_once
from graphc.compiler.compile import compile
from graphc.files.lock import FolderLock
from graphc.files.paths import make_folder
from graphc.files.serialize import load, save
from graphc.runtime.distributed.communicator import Communicator
from graphc.runtime.distributed.mpi import joined, threads_of_rank
from graphc.runtime.executor import Executor
from graphc.train import Checkpoints, History, fit
from graphc.train.run import StepBorder
from graphc.train.standardize import fit_new

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "train",
        help="train a model",
        description="Train a model on a file of data, hold a part of it back for validation, and "
        "save the model in a folder. A saved model continues where it stopped. In a .csv file, "
        "whose "
        "first line names the columns, one column is the label: a number, or the name of a class. "
        "The names are saved with the model. A .npz file has an array for each input. Ctrl-C saves "
        "the model as it is then.",
        example="graphc train net.py:net --data train.csv --label species --epochs 50 --plots\n"
        "graphc train net.py:net --data train.csv --checkpoint 9 --out steps\n"
        "graphc train net.py:net --data train.csv --label species --record",
    )
    add_model(parser)
    add = parser.add_argument
    add_data(parser, ".npz, .csv, digits, iris, wine, ...", required=True)
    add("--epochs", type=positive, default=20, help="(default: 20)")
    add("--batch", type=positive, default=128, help="rows of a step (default: 128)")
    add_optimizer(parser)
    add("--lr", type=float, help="learning rate (default: the optimizer's usual one)")
    add("--seed", type=whole, default=0, help="seed of weights, shuffling and masks (default: 0)")
    add_backend(parser)
    add("--passes", action=ListPasses, help="list the compiler's passes, and stop")
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
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, print the final metrics, save the model and the pictures."""
    if args.plots:
        check_matplotlib()
    ranks = joined(args.timeout)
    with told_once(ranks):
        return _run(args, ranks)


def _run(args: argparse.Namespace, ranks: Communicator) -> int:
    with beginning(ranks):
        model = load_model(args.model)
        ex = _executor(args, model, ranks)
        feeds, ex.state.columns = feeds_of(ex.plan, args.data, args.label, model.columns)
        feeds |= ex.rows(feeds, train=True)[0]
        train, held = split(feeds, args.validation, args.seed) if args.validation else (feeds, None)
        out = Path(args.out)
        lock = FolderLock(out, "run")
        if ranks.rank == 0:
            make_folder(out)
            lock.take()
    try:
        return _trained(args, ex, Data(train, held), out, ranks.rank == 0)
    finally:
        lock.release()


class Data(NamedTuple):
    """The rows to train on, and those that are held back."""

    train: Feeds
    held: Feeds | None


def _trained(args: argparse.Namespace, ex: Executor, data: Data, out: Path, first: bool) -> int:
    """Train; the first rank writes the files, and prints."""
    train, held = data
    fit_new(ex, train)  # so that the gradients before training are those of its first step
    pictures = Pictures(ex, train) if args.plots and first else None
    record = out / "record" if args.record else None
    saved = out / f"{file_name(ex.plan.declared.name)}.gc"
    checkpoints, before = _checkpoints(args, out), int(ex.state["updates"])
    try:
        history = fit(
            ex,
            train,
            validation=held,
            epochs=args.epochs,
            seed=args.seed,
            checkpoint=checkpoints,
            resume=args.resume,
            record=record,
        )
    except KeyboardInterrupt:
        if first:
            done = int(ex.state["updates"]) - before
            StepBorder().run(_keep, ex, saved, checkpoints, done)
        raise
    if not first:
        return 0
    files = [] if record is None else [record]
    files.append(saved)
    save(saved, ex)
    if pictures is not None:
        files.extend(pictures.draw(out, history, ex, train if held is None else held))
    parts = {"training": train} if held is None else {"training": train, "validation": held}
    found = {name: metrics(ex, part) for name, part in parts.items()}
    if args.json:
        print_json(_data(ex, found, history, files))
        return 0
    for name, numbers in found.items():
        print(f"{name}:", ", ".join(f"{key} {value:.4f}" for key, value in numbers.items()))
    print("wrote", *files, sep="\n  ")
    return 0


def _keep(ex: Executor, path: Path, checkpoints: Checkpoints | None, updates: int) -> None:
    """Save an interrupted run, unless it has checkpoints, and print how to continue it."""
    said = "nothing is saved"
    if checkpoints is not None and checkpoints.last is not None:
        said = f"--resume continues from {checkpoints.last}"
    elif updates:
        save(path, ex)
        said = f"wrote {path}, from which graphc train continues"
    print(f"interrupted after {updates:,} updates: {said}", file=sys.stderr)


def _data(
    ex: Executor,
    found: Mapping[str, Mapping[str, float]],
    history: History,
    files: Sequence[Path],
) -> dict[str, Any]:
    """Return the report as data for programs: the final numbers, and those of each epoch."""
    return {
        "net": ex.plan.declared.name,
        **found,
        "history": {
            "epochs": history.epochs,
            "loss": history.loss,
            "val_loss": history.val_loss,
            "metrics": history.metrics,
            "seconds": history.seconds,
        },
        "files": [str(path) for path in files],
    }


def _checkpoints(args: argparse.Namespace, out: Path) -> Checkpoints | None:
    if args.checkpoint is None and not args.resume:
        return None
    return Checkpoints(out / "checkpoints", every=args.checkpoint or None)


def _executor(args: argparse.Namespace, model: Model, ranks: Communicator) -> Executor:
    """Return a new executor; a saved model keeps its optimizer unless another is named."""
    if not model.graph.losses:
        raise GraphError(
            f"net {model.net.name!r} has no loss to train by",
            hint='declare one: net.loss("loss", gc.softmax_loss(scores, y))',
        )
    saved = model.saved
    goes_on = saved is not None and saved.plan.optimizer is not None and not args.optimizer
    chosen = None if goes_on else optimizer(args.optimizer or "adam", args.lr)
    if saved is not None:
        saved = load(args.model, batch=args.batch, optimizer=chosen)
        chosen = saved.plan.optimizer
    names = [name.strip() for name in args.without.split(",") if name.strip()]
    plan = compile(
        model.graph,
        batch=args.batch,
        optimizer=chosen,
        wrt=None if saved is None else saved.plan.wrt,
        backend=args.backend,
        threads=args.threads or threads_of_rank(ranks),
        shards=args.shards or (DETERMINISTIC if args.deterministic else None),
        ranks=ranks.size,
        sync_batchnorm=args.sync_batchnorm,
        passes=own_passes().DEFAULT.without(*names),
    )
    ex = Executor(plan, seed=args.seed, communicator=ranks)
    if saved is not None:
        ex.state = saved.state
    if args.lr is not None:
        ex.hyper["lr"] = args.lr
    return ex
