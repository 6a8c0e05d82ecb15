"""`gc.fit`: train an executor, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, overload

from graphc.base.arguments import checked_whole, plain, takes, takes_one, whole
from graphc.base.errors import GraphError
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.train.callbacks import Callback, EarlyStopping, Epoch, Function
from graphc.train.checkpoints import Checkpoints
from graphc.train.history import Histories, History
from graphc.train.members.fit import Choice, fit_population
from graphc.train.record.folder import kind_of_run
from graphc.train.record.recorder import Recorder
from graphc.train.run import Run
from graphc.train.source import Source, checked_arrays
from graphc.train.standardize import check_fitted, fit_new, unfitted
from graphc.train.user_data import streamed, training_source, validation_source


@overload
def fit(
    ex: Executor,
    data: Any,
    *,
    validation: Any = None,
    epochs: int = 1,
    batch: int | None = None,
    shuffle: bool = True,
    by_length: bool = False,
    seed: int = 0,
    sample_weight: Any = None,
    class_weight: Any = None,
    callbacks: Sequence[Callable[[Epoch], Any]] = (),
    checkpoint: str | Path | Checkpoints | None = None,
    resume: bool = False,
    record: str | Path | None = None,
    progress: bool | None = None,
) -> History: ...
@overload
def fit(
    ex: Population,
    data: Any,
    *,
    validation: Any = None,
    epochs: int = 1,
    batch: int | None = None,
    shuffle: bool = True,
    seed: int | Sequence[int] = 0,
    sample_weight: Any = None,
    class_weight: Any = None,
    callbacks: Sequence[Callable[[Epoch], Any]] = (),
    checkpoint: str | Path | Checkpoints | None = None,
    resume: bool = False,
    folds: int | Sequence[tuple[Any, Any]] | None = None,
    bootstrap: bool = False,
    progress: bool | None = None,
) -> Histories: ...
@takes(
    "data is one argument: gc.fit(ex, (x, y), epochs=5)",
    batch_size="it is batch, at most that of gc.compile(net, batch=128)",
    validation_split="gc.fit(ex, train, validation=held): graphc.data.stratified_split cuts data",
    validation_data="it is validation",
    verbose="it is progress",
    group_by_length="it is by_length",
    initial_epoch='gc.fit(ex, data, checkpoint="run", resume=True) continues a run',
)
def fit(
    ex: Executor | Population,
    data: Any,
    *,
    validation: Any = None,
    epochs: int = 1,
    batch: int | None = None,
    shuffle: bool = True,
    by_length: bool = False,
    seed: int | Sequence[int] = 0,
    sample_weight: Any = None,
    class_weight: Any = None,
    callbacks: Sequence[Callable[[Epoch], Any]] = (),
    checkpoint: str | Path | Checkpoints | None = None,
    resume: bool = False,
    record: str | Path | None = None,
    folds: int | Sequence[tuple[Any, Any]] | None = None,
    bootstrap: bool = False,
    progress: bool | None = None,
) -> History | Histories:
    """Train for some epochs over all rows of `data`.

    Each member of a population gets the bits of its net trained alone with its rows and seed.  One
    that a callback stops, or whose numbers are finite no more, costs nothing from then on.

    Statistics of inputs that the net standardises are fitted to `data` first if it has none.
    Ctrl-C takes effect between two steps.  Several ranks call `fit` with the same arguments; rank 0
    alone writes files, see docs/distributed.md.

    Parameters
    ----------
    ex
        The executor or the population to train.
    data, validation
        The data to train on, and to evaluate on after each epoch:

        - arrays: a tuple in the order of the inputs, a mapping by name, or one alone; those from
          `np.load(path, mmap_mode="r")` are read as they are needed; of an input with
          `gc.lengths` also a list of the arrays of its rows;
        - the path of a folder of `.npz` part files, of which one at a time is in memory;
        - a function from an epoch's number to its batches, as tuples or mappings of at most the
          plan's rows; or, for one epoch, a generator, of which the last 256 batches are kept.
    epochs
        The number of epochs, those of the run that is resumed included.
    batch
        The rows of a step, by default those of the plan.  The last batch may be smaller.
    shuffle, seed
        Whether rows, except those of functions, are shuffled, by the seed and the number of the
        epoch.  Members may have a seed each; with one for all they take the same batches.
    by_length
        Whether a batch has rows of like length, so that loops run fewer steps.  The batches are
        in a random order if rows are shuffled, and begin with the shortest rows if not.
    sample_weight, class_weight
        A number for each row (N,), and a mapping from class to number.  Their product, 1 by
        default, is fed to the input that a loss takes as `weight=`.
    callbacks
        Functions of an Epoch, or Callbacks, which are called after each epoch.  Each member has
        copies of its own.
    checkpoint
        A folder, or Checkpoints, to save the run in, also when it is interrupted.  One run at a
        time uses a folder.  A population is saved after each epoch only.
    resume
        Whether to continue from the last checkpoint, to the bits of a run that never stopped.
    record
        A folder for a digest of each step, some states, and arrays up to 256 MB, with which
        `gc.replay` repeats any step.
    folds
        Of a population: a number of folds, which `seed` draws, with like shares of each class, or
        pairs of row numbers.  Member i leaves out fold i % folds, and validates on it.
    bootstrap
        Of a population: whether each member trains on as many rows, drawn with its own seed, of
        which some come several times.
    progress
        Whether to show a bar; by default in terminals and notebooks.  Without one, each epoch is
        logged to "graphc".

    Returns
    -------
    History
        The losses of each epoch and, of the validation data, every scalar output: means over rows,
        weighted losses by their weights.  Of a population Histories, one for each member.

    Raises
    ------
    FeedError
        If data do not fit.
    StateError
        If the plan has no optimizer.
    GraphError
        If options make no sense, or the run to resume differs; nothing is trained then.
    NotFiniteError
        If a number is not finite.  It names node and line; the executor is as before the step.
        A member only stops, and its history says why.
    ModelFileError
        If a checkpoint cannot be written or read.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> x, y = net.input("x", (gc.N, 1)), net.input("y", (gc.N, 1))
    >>> loss = net.loss("loss", gc.mse_loss(gc.affine(x, 1), y))
    >>> ex = gc.Executor(gc.compile(net, batch=10, optimizer=gc.SGD(lr=0.1)))
    >>> x = np.linspace(-1.0, 1.0, 50).reshape(50, 1)
    >>> history = gc.fit(ex, (x, 2.0 * x), epochs=20)
    >>> history.loss[-1] < 0.01
    True
    """
    epochs, seed = plain(epochs), plain(seed)
    rows = _check(ex, data, epochs, batch)
    called, kept = _callbacks(callbacks), _checkpoints(checkpoint, resume)
    if isinstance(ex, Population):
        _check_for(ex, by_length=by_length, record=record)
        seeds = _seeds(ex, seed)
        weights = {"sample_weight": sample_weight, "class_weight": class_weight}
        orders = seeds if shuffle else [None] * len(seeds)
        choice = Choice(rows, orders, folds, seeds[0], bootstrap, weights)
        _check_callbacks(ex, called, validation, folds)
        _check_after_epochs(kept)
        return fit_population(ex, data, choice, validation, epochs, called, progress, kept, resume)
    _check_for(ex, folds=folds, bootstrap=bootstrap)
    seed = checked_whole("fit: seed", seed, 0)
    order = seed if shuffle else None
    source = training_source(ex, data, rows, order, sample_weight, class_weight, by_length)
    held_out = None if validation is None else validation_source(ex, validation)
    _check_watched(ex, held_out is not None, [kept, *called])
    choices = {"seed": seed, "shuffle": shuffle, "batch": rows, "rows": source.rows}
    choices["by_length"] = by_length
    recorder = _recorder(record, ex, source, choices, class_weight, resume)
    run = Run(ex, source, epochs, called, validation=held_out, record=recorder)
    with closing(run):
        _begin(run, kept, choices, class_weight, resume)
        _standardise(ex, data)
        return run.train(progress)


def _wrong(sentence: str, hint: str = "") -> GraphError:
    """Return the error for an option, at the user's line."""
    return GraphError(f"fit: {sentence}", hint=hint)


def _begin(
    run: Run, kept: Checkpoints | None, choices: dict[str, Any], class_weight: Any, resume: bool
) -> None:
    """Check that all ranks make the same run, and use its checkpoints, if it has some."""
    several = run.ranks.several
    if kept is None and not several:
        return
    choices = {**choices, **kind_of_run(run.ex, run.source, run.validation, class_weight)}
    if several:
        files = {"checkpoint": kept is not None, "resume": resume}
        run.ranks.check_equal_runs({"epochs": run.epochs, **choices, **files})
    if kept is not None:
        run.use_checkpoints(kept, choices, resume)


def _standardise(ex: Executor, data: Any) -> None:
    """Fit statistics that are not fitted yet; raise GraphError if that needs streamed data."""
    if streamed(data):
        check_fitted(ex)
    elif unfitted(ex):
        fit_new(ex, checked_arrays(ex, data, train=True)[0])


def _check(ex: Executor | Population, data: Any, epochs: int, batch: int | None) -> int:
    """Return the rows of a batch; raise GraphError for options that make no sense."""
    if not isinstance(ex, (Executor, Population)):
        raise GraphError(
            f"fit trains an executor or a population, not {type(ex).__name__}",
            hint="ex = gc.Executor(plan), then gc.fit(ex, data)",
        )
    checked_whole("fit: epochs", epochs)
    rows = whole(ex.plan.rows if batch is None else batch, 1)
    if rows is None or rows > ex.plan.rows:
        raise _wrong(
            f"batch is {batch!r}, the plan takes 1 to {ex.plan.rows} rows",
            "a plan for more rows: gc.compile(net, batch=...)",
        )
    if isinstance(data, Iterator) and epochs > 1:
        raise _wrong(
            f"a generator is used up after one epoch, epochs is {epochs}",
            "give a function: def batches(epoch): yield x, y, and gc.fit(ex, batches)",
        )
    if (isinstance(data, Iterator) or callable(data)) and batch is not None:
        raise _wrong("batch is given, but the data come in batches already")
    return rows


def _check_for(ex: Executor | Population, **options: Any) -> None:
    """Raise GraphError for an option that is not for what is trained."""
    what, hint = "one executor", "gc.Population(plan, members=5) has members to train on parts"
    if isinstance(ex, Population):
        what, hint = "a population", "gc.fit(population[0], ...) trains one member with it"
    for name, value in options.items():
        if value is not None and value is not False:
            raise _wrong(f"{name} is given, which is not for {what}", hint)


def _check_callbacks(
    ex: Population, callbacks: Sequence[Callback], validation: Any, folds: Any
) -> None:
    """Raise GraphError for a callback that members cannot have, and for two kinds of validation."""
    if validation is not None and folds is not None:
        raise _wrong(
            "validation is given, and so is folds, of which each member validates on its own",
            "leave out validation, or give pairs of row numbers as folds",
        )
    for callback in callbacks:
        if callback.writes_files:
            raise _wrong(
                f"{type(callback).__name__} writes a file, which members cannot share",
                "the Histories that gc.fit returns have the numbers of all members",
            )
    _check_watched(ex, validation is not None or folds is not None, callbacks)


def _seeds(population: Population, given: int | Sequence[int]) -> list[int]:
    """Return the seed of each member's order of rows; raise GraphError if there are too few."""
    seeds = list(given) if isinstance(given, Sequence) else [given] * len(population)
    if len(seeds) != len(population):
        raise _wrong(f"seed has {len(seeds)} numbers for {len(population)} members")
    return [checked_whole("fit: seed", plain(seed), 0) for seed in seeds]


def _checkpoints(given: str | Path | Checkpoints | None, resume: bool) -> Checkpoints | None:
    if given is None and resume:
        raise _wrong(
            "resume=True needs the folder of the run",
            'gc.fit(ex, data, checkpoint="run", resume=True)',
        )
    if given is None or isinstance(given, Checkpoints):
        return given
    if isinstance(given, (str, Path)):
        return Checkpoints(given)
    raise _wrong(
        f"checkpoint is {given!r}, not a folder",
        'checkpoint="run", or gc.Checkpoints("run", every=1000)',
    )


def _check_after_epochs(kept: Checkpoints | None) -> None:
    """Raise GraphError for checkpoints that a population cannot have."""
    if kept is not None and (kept.every or kept.watch):
        raise _wrong(
            "the checkpoints of a population are made after each epoch, without a best model",
            "leave out every= and watch=",
        )


def _recorder(
    given: str | Path | None,
    ex: Executor,
    source: Source,
    choices: dict[str, Any],
    class_weight: Any,
    resume: bool,
) -> Recorder | None:
    if given is None:
        return None
    if ex.plan.ranks > 1:
        raise _wrong("a run on several ranks is not recorded")
    if not isinstance(given, (str, Path)):
        raise _wrong(f"record is {given!r}, not a folder", 'record="run"')
    recorder = Recorder(Path(given), ex, source, choices, class_weight)
    recorder.check(resume)
    return recorder


def _callbacks(given: Sequence[Callable[[Epoch], Any]]) -> tuple[Callback, ...]:
    listed = given if isinstance(given, Sequence) else (given,)
    for callback in listed:
        if not callable(callback):
            raise _wrong(
                f"callbacks holds {callback!r}, which cannot be called",
                "a function of an Epoch, or gc.EarlyStopping(patience=5)",
            )
        if not takes_one(callback):
            name = getattr(callback, "__name__", callback)
            raise _wrong(
                f"the callback {name!r} does not take an Epoch",
                "def callback(epoch): print(epoch.number, epoch.numbers)",
            )
    return tuple(one if isinstance(one, Callback) else Function(one) for one in listed)


def _check_watched(ex: Executor | Population, validated: bool, watching: Sequence[Any]) -> None:
    """Raise GraphError for a number that the history will not have."""
    program = ex.plan.programs["infer"]
    scalars = [k for k, out in program.outputs.items() if not program.buffers[out].type.rank]
    metrics = [name for name in scalars if name not in ex.plan.losses]
    known = ["loss", *(["val_loss", *metrics] if validated else [])]
    for one in watching:
        watch = one.watch if isinstance(one, (EarlyStopping, Checkpoints)) else None
        if watch is not None and watch not in known:
            hint = f"there are: {', '.join(known)}"
            if not validated and watch in ("val_loss", *metrics):
                hint = f"{watch!r} is of validation data: give validation=, or watch='loss'"
            raise GraphError(
                f"{type(one).__name__}: there will be no {watch!r} to watch", hint=hint
            )
