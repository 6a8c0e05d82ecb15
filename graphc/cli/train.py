"""`graphc train`: train a model on a file of data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from graphc.cli import optional
from graphc.cli.arguments import (
    add_backend,
    add_model,
    add_optimizer,
    folder,
    fraction,
    optimizer,
    positive,
)
from graphc.cli.data import Feeds, feeds_of, split
from graphc.cli.metrics import metrics
from graphc.cli.model import Model, load_model
from graphc.cli.passes import ListPasses
from graphc.compiler import compile
from graphc.errors import GraphError
from graphc.executor import Executor
from graphc.files.serialize import load, save
from graphc.own_passes import own_passes
from graphc.train import fit

if TYPE_CHECKING:
    from graphc.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("train", help="train a model", description=__doc__)
    add_model(parser)
    add = parser.add_argument
    add("--data", required=True, metavar="FILE", help=".npz, .csv, digits, iris, wine, ...")
    add(
        "--label", metavar="COLUMN", help="of a .csv file: what is learnt, instead of y or the last"
    )
    add("--epochs", type=positive, default=20, help="(default: 20)")
    add("--batch", type=positive, default=128, help="rows of a step (default: 128)")
    add_optimizer(parser)
    add("--lr", type=float, help="learning rate (default: the optimizer's usual one)")
    add("--seed", type=int, default=0, help="of weights, shuffling and masks (default: 0)")
    add_backend(parser)
    add("--passes", action=ListPasses, help="list the compiler's passes, and stop")
    add("--without", metavar="PASS,...", default="", help="leave these passes out")
    add("--out", default="graphc-run", metavar="DIR", help="(default: graphc-run)")
    add(
        "--validation",
        type=fraction,
        default=0.2,
        metavar="FRACTION",
        help="of the rows that are not trained on (default: 0.2)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, print the final metrics, save the model and the learning curve."""
    model = load_model(args.model)
    ex = _executor(args, model)
    feeds = feeds_of(ex.plan, args.data, args.label)
    train, held = split(feeds, args.validation, args.seed) if args.validation else (feeds, None)
    out = folder(args.out)
    history = fit(ex, train, validation=held, epochs=args.epochs, seed=args.seed)
    _print_metrics(ex, train, held)
    files = [
        save(out / f"{ex.plan.declared.name}.gc", ex),
        optional.write(out / "learning_curve.png", history.plot),
    ]
    print("wrote", *(str(path) for path in files if path is not None), sep="\n  ")
    return 0


def _executor(args: argparse.Namespace, model: Model) -> Executor:
    """A new executor; a saved model goes on with its optimizer unless another is named."""
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
        threads=args.threads,
        passes=own_passes().DEFAULT.without(*names),
    )
    ex = Executor(plan, seed=args.seed)
    if saved is not None:
        ex.state = saved.state
    if args.lr is not None:
        ex.hyper["lr"] = args.lr
    return ex


def _print_metrics(ex: Executor, train: Feeds, held: Feeds | None) -> None:
    rows = [("training", train)] + ([("validation", held)] if held is not None else [])
    for name, feeds in rows:
        found = ", ".join(f"{key} {value:.4f}" for key, value in metrics(ex, feeds).items())
        print(f"{name}: {found}")
