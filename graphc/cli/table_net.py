"""The net of `graphc train --hidden`: a perceptron for the columns of a table, or for arrays."""

from __future__ import annotations

import argparse

from graphc.base.errors import DataError, GraphError
from graphc.cli.arguments import Parser, widths
from graphc.cli.data import arrays_of, form_of, is_table
from graphc.cli.model import Model, load_model
from graphc.data.kinds import check_words, kinds
from graphc.declare.perceptrons import ClassifierNet, Perceptron, RegressorNet
from graphc.declare.preparation import Preparation
from graphc.runtime.columns import Columns


def add_net(parser: Parser) -> None:
    """Add the argument MODEL, and the options that declare a net in its place."""
    parser.add_model(required=False)
    add = parser.add_argument
    add(
        "--hidden",
        type=widths,
        metavar="WIDTH,...",
        help="a perceptron with these hidden layers in place of a MODEL; it prepares words and "
        "missing values, and has classes for labels that are words or at most 20 whole numbers",
    )
    add("--regression", action="store_true", help="with --hidden: the label is always a number")


def chosen_model(args: argparse.Namespace) -> Model:
    """Return the model that MODEL names, or a perceptron for the data with --hidden."""
    if args.model is not None and args.hidden is None:
        return load_model(args.model)
    if args.model is not None:
        raise GraphError(
            f"{args.model} is a model already", hint="--hidden declares one in its place"
        )
    if args.hidden is None:
        raise GraphError(
            "there is no model to train",
            hint="MODEL, or --hidden 64,32 for a perceptron that fits the data",
        )
    return _of_table(args) if is_table(args.data) else _of_arrays(args)


def _of_table(args: argparse.Namespace) -> Model:
    """Return a perceptron that prepares the columns, with their names and words."""
    header, found = kinds(args.data, form_of(args))
    label = header.column(args.label)
    features = [at for at in range(len(header.header)) if at != label]
    header.check_distinct(features)
    check_words(header, found, iter(features))
    classes = () if args.regression else found[label].classes
    if args.regression and found[label].words:
        raise DataError(
            f"column {header.header[label]!r} of {args.data} has words, not numbers",
            hint="leave out --regression, or name another --label",
        )
    words = [tuple(sorted(found[at].texts)) if found[at].words else () for at in features]
    known = Columns(
        tuple(header.header[at] for at in features),
        header.header[label],
        () if classes == tuple(map(str, range(len(classes)))) else classes,
        tuple(words) if any(words) else (),
        gaps=True,
    )
    numbers = [at for at, own in enumerate(words) if not own]
    preparation = Preparation(
        tuple(numbers),
        tuple(at for at in numbers if found[features[at]].gaps and args.fill is None),
        tuple((at, tuple(map(float, range(len(own))))) for at, own in enumerate(words) if own),
    )
    return _model(args, len(features), len(classes), preparation, known)


def _of_arrays(args: argparse.Namespace) -> Model:
    """Return a perceptron for the arrays x and y."""
    arrays = arrays_of(args)
    if not {"x", "y"} <= arrays.keys():
        raise DataError(f"{args.data} has no arrays x and y", hint=f"it has {', '.join(arrays)}")
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or y.ndim != 1:
        raise DataError(f"x has shape {x.shape}, y {y.shape}", hint="rows of x, a number each in y")
    classes = int(y.max()) + 1 if y.dtype.kind in "iu" and not args.regression else 0
    return _model(args, x.shape[1], classes, None, None)


def _model(
    args: argparse.Namespace,
    features: int,
    classes: int,
    preparation: Preparation | None,
    known: Columns | None,
) -> Model:
    if classes == 1:
        raise DataError(
            f"the label of {args.data} has only 1 class",
            hint="--label COLUMN names another, --regression takes it as a number",
        )
    kind: type[Perceptron] = ClassifierNet if classes else RegressorNet
    options = (tuple(args.hidden), False, 0.0, True, "float32", preparation)
    return Model(kind(*options, weighted=False)(features, classes or 1), known=known)
