"""Inference on any number of rows, in pieces of at most the planned batch, and means over them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphc.base.door import higher
from graphc.base.errors import FeedError
from graphc.compiler.loss_share import (
    ROWS,
    SUM,
    Divisor,
    Share,
    compares_rows,
    counted_by,
    source_of,
)
from graphc.compiler.plan import Plan
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.ops.losses.base import RowLoss
from graphc.runtime.feeds import FeedCheck, program_check
from graphc.runtime.pages import Pages
from graphc.runtime.row_axis import first_rows, put_rows, rows_of

if TYPE_CHECKING:
    from graphc.runtime.executor import Executor


Piece = tuple[int, dict[str, Array], Mapping[str, Array]]
"""The number of rows of a piece, their feeds, and their outputs, which the next one overwrites."""


Infer = Callable[[Mapping[str, Array], int], Mapping[str, Array] | None]
"""A function from the feeds of a piece, and their number of rows, to its outputs.

It returns None for a piece that is longer than a batch if that is more than it can take.
"""


class Together(NamedTuple):
    """Several states of one plan, for which each piece is inferred together.

    `infer` gives outputs with an axis more, the first, which numbers the states; there may be more
    rows than those of the piece.
    """

    infer: Infer
    states: Sequence[Mapping[str, Array]]
    size: int
    """The rows of a piece that outputs are inferred for; scalars are those of a batch."""


def predict(
    ex: Executor,
    arrays: tuple[Any, ...],
    named: Mapping[str, Any],
    together: Together | None = None,
) -> Any:
    """Return the outputs of all rows: an array, or a dict if there are several.

    Only the outputs are held as a whole: the feeds are read and converted piece by piece.
    """
    given = _in_pieces(ex, arrays, named, by_length=True)
    found: dict[str, Array] = {}
    types = dict(_with_rows(ex.plan, together))
    start = 0
    for n, out in _outputs(ex, given, together):
        for name, array in out.items():
            type = types[name]
            if name not in found:
                found[name] = np.empty(shape_at(type.shape, given.rows), array.dtype)
            put_rows(found[name], type, given.chosen(start, start + n), array)
        start += n
    return next(iter(found.values())) if len(found) == 1 else found


def predictions(
    ex: Executor, arrays: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[int, Iterator[tuple[int, dict[str, Array]]]]:
    """Return the number of rows, and an iterator over pieces: some rows and their outputs by name.

    The arrays are views that the next piece overwrites; there is at least one piece.
    """
    given = _in_pieces(ex, arrays, named)
    return given.rows, _outputs(ex, given)


def _outputs(
    ex: Executor, given: Pieces, together: Together | None = None
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield the rows of each piece, and their outputs by name."""
    known = dict(_with_rows(ex.plan, together))
    check_one_batch(ex, "predict", given.rows, given.arrays, known)
    for n, _, out in given.results(ex, together):
        types = {name: type for name, type in known.items() if name in out}
        if not types:
            raise FeedError(
                "predict: what was fed determines no output with rows",
                hint="ex.evaluate gives losses, ex.forward everything for one batch",
            )
        yield n, {name: first_rows(out[name], type, n) for name, type in types.items()}


def evaluate(ex: Executor, arrays: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, float]:
    """Return each loss and each other scalar output of all rows together."""
    if len(arrays) == 1 and isinstance(arrays[0], (str, os.PathLike)) and not named:
        pieces = higher("Executor.evaluate")(ex, os.fspath(arrays[0]))
    else:
        pieces = _evaluated(ex, arrays, named)
    means = Means(ex.plan, ex.state.arrays)
    for piece in pieces:
        means.add(*piece)
    return means.checked()


def evaluate_together(
    ex: Executor, named: Mapping[str, Any], together: Together
) -> dict[str, Array]:
    """Return what `evaluate` does, a number for each state, by runs on the memory of `ex`."""
    means = Means(ex.plan, *together.states)
    for piece in _evaluated(ex, (), named, together._replace(size=ex.plan.batch)):
        with np.errstate(all="ignore"):
            means.add(*piece)
    with np.errstate(all="ignore"):
        return means.checked()


def _evaluated(
    ex: Executor,
    arrays: tuple[Any, ...],
    named: Mapping[str, Any],
    together: Together | None = None,
) -> Iterator[Piece]:
    given = _in_pieces(ex, arrays, named, by_length=True)
    check_one_batch(ex, "evaluate", given.rows, given.arrays, scalars(ex.plan))
    return given.results(ex, together)


def _in_pieces(
    ex: Executor, arrays: tuple[Any, ...], named: Mapping[str, Any], by_length: bool = False
) -> Pieces:
    """Return rows to infer; `by_length` allows another order if they have different lengths."""
    check = program_check(ex.plan.programs["infer"], ex.plan)
    shown, kept = ex.ragged(by_position(ex.plan.data_names, arrays, named))
    given, rows = check.counted(shown)
    given |= {name: rows for name, rows in kept.items() if name in given}
    lengths = lengths_of(ex.plan, given) if by_length and rows > ex.plan.batch else None
    return Pieces(check, given, rows, None if lengths is None else by_lengths(lengths))


def lengths_of(plan: Plan, arrays: Mapping[str, Any]) -> Array | None:
    """Return the steps of each row, the larger of several; None if rows have none or the same."""
    own = (name for name in arrays if plan.declared[name].op.role.kind == "lengths")
    found = reduce(np.maximum, (arrays[name] for name in own), np.zeros((), np.int32))
    return found if found.size and found.ndim and found.min() < found.max() else None


def by_lengths(lengths: Array) -> NDArray[np.intp]:
    """Return the order of rows by their lengths."""
    return np.argsort(lengths, kind="stable")


class Pieces(NamedTuple):
    """Rows that are inferred in pieces, of at most the planned batch, or of more together."""

    check: FeedCheck
    arrays: Mapping[str, Any]
    """Arrays by input, or the lists of their rows."""
    rows: int
    order: NDArray[np.intp] | None
    """The order in which rows are inferred, if it is not their own."""

    def chosen(self, start: int, stop: int) -> slice | NDArray[np.intp]:
        """Return which rows are inferred from number `start` on."""
        return slice(start, stop) if self.order is None else self.order[start:stop]

    def results(self, ex: Executor, together: Together | None = None) -> Iterator[Piece]:
        """Yield the results of each piece, of several states together or else of the executor.

        Zero rows are inferred as one row of zeros, so that outputs have shapes.
        """

        def alone(feeds: Mapping[str, Array], n: int) -> Mapping[str, Array]:
            return ex.forward(feeds, copy=False)

        infer, size = (together.infer, together.size) if together else (alone, ex.plan.batch)
        start = 0
        types = {name: ex.plan.declared[name].type for name in self.arrays}
        pages = Pages(self.arrays.values())
        while start < self.rows:
            chosen = self.chosen(start, min(start + size, self.rows))
            part = {k: rows_of(v, types[k], chosen) for k, v in self.arrays.items()}
            checked, n = self.check.arrays(
                ex.padded(part), optional=True, first=start, limit=size == ex.plan.batch
            )
            out = infer(checked, n)
            if out is None:
                size = ex.plan.batch
                continue
            yield n, checked, out
            pages.read(array for array in part.values() if isinstance(array, np.ndarray))
            start += n
        pages.give_back()
        if not self.rows:
            names = [k for k in self.arrays if k in ex.plan.data_names]
            row = {k: np.zeros(shape_at(types[k].shape, 1), types[k].dtype) for k in names}
            yield 0, row, infer(row, 1) or {}


def by_position(
    inputs: Sequence[str], arrays: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return arrays by position, in one tuple or one mapping, as feeds by the names of inputs."""
    if len(arrays) == 1 and isinstance(arrays[0], Mapping):
        return {**arrays[0], **named}
    if len(arrays) == 1 and isinstance(arrays[0], tuple):
        arrays = arrays[0]
    if len(arrays) > len(inputs):
        raise FeedError(
            f"{len(arrays)} arrays were given, the net has {len(inputs)} inputs",
            hint=f"they are {', '.join(inputs)}, in this order" if inputs else "",
        )
    return {**dict(zip(inputs, arrays, strict=False)), **named}


def check_one_batch(
    ex: Executor, what: str, rows: int, fed: Collection[str], outputs: Iterable[str]
) -> None:
    """Raise FeedError if rows are more than a batch, and something compares them with each other.

    That may be one of the inputs, `fed`, or an output that they determine.
    """
    found = next(_comparing(ex.plan, fed, outputs), None) if rows > ex.plan.batch else None
    if found is not None:
        name, node = found
        raise FeedError(
            f"{what}: {name!r} compares the rows of a batch with each other, and {rows} rows "
            f"are more than the plan's {ex.plan.batch}",
            operands=[node.described("pairs of rows")],
            hint=f"a plan for all of them: gc.Executor(gc.compile(net, batch={rows}), "
            "state=ex.state)",
        )


def _comparing(
    plan: Plan, fed: Collection[str], outputs: Iterable[str]
) -> Iterator[tuple[str, Node]]:
    """Yield inputs and outputs that compare rows, each with the node that does."""
    yield from ((k, plan.declared[k]) for k in fed if plan.declared[k].type.pairs_rows)
    program = plan.programs["infer"]
    graph = program.graph
    for name in outputs:
        root = [graph.outputs[name]]
        node, needed = compares_rows(graph, root), graph.upstream(root)
        if node is not None and (needed & program.feeds.keys()).issubset(fed):
            yield name, node


def _with_rows(plan: Plan, together: Together | None = None) -> Iterator[tuple[str, TensorType]]:
    """Yield the outputs of a prediction: no losses, and none without rows in a net with a batch."""
    states = () if together is None else (len(together.states),)
    program = plan.programs["infer"]
    batched = any(plan.declared[name].type.batched for name in plan.input_names)
    for name, value in program.outputs.items():
        type = program.buffers[value].type
        if name not in plan.losses and type.batched == batched:
            yield name, TensorType((*states, *type.shape), type.dtype)


# ------------------------------------------------------------------ means


class Numbers(NamedTuple):
    """The contribution of a batch to means: its rows, its scalar outputs, and their weights."""

    rows: int
    scalars: Mapping[str, Any]
    counts: Mapping[str, Any]


class Means:
    """Combines the scalar outputs of batches into those of all rows.

    Metrics are weighted by the rows of a batch, losses that are weighted means by their weights;
    sums are added up, so that it does not matter how the rows were cut into batches.  With several
    states each scalar is an array of a number for each.
    """

    def __init__(self, plan: Plan, *states: Mapping[str, Array]) -> None:
        """Prepare the weights of scalars; states have the parameters that they may depend on."""
        self._counted = {name: Count(counted_by(plan.declared, name)) for name in scalars(plan)}
        self._states = states
        self._totals: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        self.rows = 0

    def add(self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Add the outputs of inference on a batch."""
        self.add_numbers(self.numbers(rows, feeds, outputs))

    def numbers(
        self, rows: int, feeds: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> Numbers:
        """Return the contribution of a batch to the means."""
        arrays = {name: array for name, array in outputs.items() if name in self._counted}
        scalars = {k: x.astype(np.float64) if x.ndim else float(x) for k, x in arrays.items()}
        counts = {k: self._counted[k].of_each(feeds, rows, self._states) for k in scalars}
        return Numbers(rows, scalars, counts)

    def add_numbers(self, batch: Numbers) -> None:
        """Add the numbers of a batch."""
        self.rows += batch.rows
        for name, value in batch.scalars.items():
            zero = np.zeros(len(value)) if isinstance(value, np.ndarray) else 0.0
            count, total = batch.counts[name], self._totals.get(name, zero)
            if isinstance(count, np.ndarray):
                self._totals[name] = np.where(count, total + count * value, total)
            else:
                self._totals[name] = total + count * value if count else total
            self._counts[name] = self._counts.get(name, 0.0) + count

    def checked(self) -> dict[str, Any]:
        """Return the value of each scalar by name; raise FeedError if there is none."""
        if not self.rows:
            raise FeedError(
                "evaluate: there are 0 rows", hint="the mean over no rows is not defined"
            )
        found = self.found()
        if not found:
            raise FeedError(
                "evaluate: what was fed determines no loss and no other scalar output",
                hint="feed the labels, too: ex.evaluate(x, y)",
            )
        return found

    def found(self) -> dict[str, Any]:
        """Return the value of each scalar by name; NaN if all its weights were 0."""
        return {name: self._value(name) for name in self._totals}

    def _value(self, name: str) -> Any:
        total, count = self._totals[name], self._counts[name]
        if self._counted[name].by == SUM:
            return total
        if isinstance(count, np.ndarray):
            return total / np.where(count, count, math.nan)
        return total / count if count else total * math.nan


class Count(NamedTuple):
    """The weight of a batch's value in the value of all batches."""

    by: Share | Divisor

    @classmethod
    def of_steps(cls, plan: Plan) -> Count:
        """Return the weight of the sum of a plan's losses: by rows, unless all have one divisor."""
        graph = plan.declared
        found = [by for loss in graph.losses if (by := counted_by(graph, loss)) != SUM]
        keys = {by.key if isinstance(by, Divisor) else None for by in found}
        same = len(found) == len(graph.losses) and len(keys) == 1
        return cls(found[0] if same else ROWS)

    def __call__(
        self, feeds: Mapping[str, Array], rows: int, state: Mapping[str, Array] | None = None
    ) -> float:
        """Return the weight of a batch of `rows` rows."""
        if not rows:
            return 0.0
        if self.by == SUM:
            return 1.0
        if not isinstance(self.by, Divisor) or any(name not in feeds for name in self.by.inputs):
            return rows
        return self.by(feeds, rows, state)

    @property
    def reads_state(self) -> bool:
        """True if the weight depends on parameters or states, too."""
        return isinstance(self.by, Divisor) and self.by.reads_state

    def of_each(
        self, feeds: Mapping[str, Array], rows: int, states: Sequence[Mapping[str, Array]]
    ) -> Any:
        """Return the weight of a batch for each state, or one number if it is the same for all."""
        if len(states) == 1 or not self.reads_state:
            return self(feeds, rows, states[0])
        return np.array([self(feeds, rows, state) for state in states])


def scalars(plan: Plan) -> Iterator[str]:
    """Yield the names of the losses and of other outputs that are numbers."""
    graph = plan.declared
    return (name for name, value in graph.outputs.items() if not graph[value].type.rank)


class WeightInput(NamedTuple):
    """The one input that losses take as `weight=`."""

    name: str
    labels: str
    """The name of the labels or targets beside it."""
    type: TensorType
    """The type of the weights."""

    def ones(self, rows: int) -> Array:
        """Return a read-only array of weights of 1 for `rows` rows, with memory for one number."""
        one = np.ones((), self.type.dtype)
        return np.broadcast_to(one, shape_at(self.type.shape, rows))


def weight_input(plan: Plan) -> WeightInput | None:
    """Return the input of weights; None if losses take none, or different ones."""
    found: dict[str, WeightInput] = {}
    for node in plan.declared:
        weights = node.inputs[node.op.operands :] if isinstance(node.op, RowLoss) else ()
        for weight in weights:
            source = source_of(plan.declared, weight)
            if source.op.is_input:
                labels = source_of(plan.declared, node.inputs[1])
                found.setdefault(source.name, WeightInput(source.name, labels.name, source.type))
    return found.popitem()[1] if len(found) == 1 else None
