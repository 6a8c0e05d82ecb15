"""The errors of runs: arrays that do not fit, and calls that the executor cannot make now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.errors import FeedError, Operand, StateError, counted
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType, shape_text

if TYPE_CHECKING:
    from graphc.runtime.feeds import Feed


def no_plan(given: object, taker: str = "Executor") -> StateError:
    """Return the error for an object that is not a plan."""
    return StateError(
        f"{taker} takes a plan, not {type(given).__name__}",
        hint="compile the net first: plan = gc.compile(net, batch=128)",
    )


def no_program(name: str) -> StateError:
    """Return the error for a call whose program the plan does not have."""
    if name == "grad":
        call, reason = "forward(train=True)", "this plan has nothing to train"
        hint = "frozen plans and nets without parameters only infer: leave train=True out"
    else:
        call, reason = "update" if name == "apply" else "step", "the plan has no optimizer"
        hint = "compile with one: gc.compile(net, batch=..., optimizer=gc.SGD(lr=0.1))"
    return StateError(f"{call}: {reason}", hint=hint)


def no_forward() -> StateError:
    """Return the error for a `backward` without a saved forward pass."""
    return StateError(
        "backward: there is no forward pass to go back through",
        hint="call ex.forward(..., train=True) first; any other run discards it",
    )


def no_losses() -> StateError:
    """Return the error for a `backward` with nothing to differentiate."""
    return StateError(
        "backward: the plan has no gradients",
        hint="declare a loss, or give cotangents: ex.backward(scores=d)",
    )


def no_cotangents() -> StateError:
    """Return the error for cotangents where the part that takes them is left out."""
    return StateError("backward: this copy of graphc takes no cotangents")


def no_gradients(accumulates: bool) -> StateError:
    """Return the error for an `update` without gradients."""
    hint = "call ex.backward() first, or pass them: ex.update({name: array})"
    if accumulates:
        hint = "this optimizer accumulates the gradients of steps: call ex.step() first"
    return StateError("update: there are no gradients", hint=hint)


def accumulates() -> StateError:
    """Return the error for gradients given to an optimizer that accumulates its own."""
    return StateError(
        "update: this optimizer accumulates, so it takes the gradients of its steps",
        hint="leave accumulate out of the optimizer to update by your own gradients",
    )


def checked_seed(seed: int) -> int:
    """Return the seed as an int; raise StateError if it is not a whole number."""
    return checked_whole("seed", seed, None, hint="gc.Executor(plan, seed=0)", error=StateError)


def no_output(missing: Collection[str]) -> FeedError:
    """Return the error for a run whose outputs all need missing inputs, or their number of rows."""
    if not missing:
        return FeedError(
            "no output can be computed: nothing that was fed has rows",
            hint="feed one of the inputs that have a batch dimension",
        )
    return FeedError(
        f"no output can be computed without {', '.join(sorted(missing))}",
        hint=f"feed it by name: {min(missing)}=...",
    )


class FeedErrors:
    """The errors about arrays fed to the inputs of a program, or given as its gradients."""

    def __init__(
        self,
        word: str,
        inputs: Mapping[str, Feed],
        unread: Mapping[str, Feed],
        capacity: int,
    ) -> None:
        """`word` is the noun for an input in messages; `capacity` is the largest number of rows."""
        self.word, self._inputs, self._unread = word, inputs, unread
        self._capacity = capacity

    def _operands(self, *names: str) -> list[Operand]:
        return [replace(self._inputs[n].node.described(self.word), name=n) for n in names]

    def missing(self, name: str, feeds: Iterable[str]) -> FeedError:
        """Return the error for an input that was not fed, or fed with None."""
        odd = [given for given in feeds if given not in self._inputs]
        hint = f"there is no {self.word} {odd[0]!r}; " if odd else ""
        how = f"feed it by name: {name}=..." if name.isidentifier() else f"{{{name!r}: array}}"
        return FeedError(
            f"{self.word} {name!r} is {'None, not an array' if name in feeds else 'missing'}",
            operands=self._operands(name),
            hint=hint + how,
        )

    def unknown(self, name: str) -> FeedError:
        """Return the error for a name that is not that of an input."""
        known = ", ".join(sorted(self._inputs)) or "none"
        return FeedError(f"there is no {self.word} {name!r}", hint=f"there are: {known}")

    def no_rows(self) -> FeedError:
        """Return the error for feeds that do not say how many rows there are."""
        with_rows = [name for name, feed in self._unread.items() if feed.type.batched]
        return FeedError(
            "nothing that was fed has rows, so their number is not known",
            operands=self._operands(*with_rows[:1]),
            hint=f"feed it by name: {with_rows[0]}=..., though only its rows count",
        )

    def too_many(self, n: int) -> FeedError:
        """Return the error for a batch of no rows, or of more than the plan takes."""
        if n < 1:
            return FeedError("the batch has 0 rows", hint="a run takes at least one row")
        return FeedError(
            f"the batch has {n} rows, the plan takes up to {self._capacity}",
            hint=f"compile with batch={n}, or use ex.predict or ex.evaluate, which cut batches",
        )

    def other_rows(self, owner: str, known: int, name: str, n: int) -> FeedError:
        """Return the error for an array whose number of rows is not that of another array."""
        return FeedError(
            f"{owner!r} has {known} rows, {name!r} has {n}",
            operands=self._operands(owner, name),
            hint="all inputs of a run take the same batch",
        )

    def ragged(self, name: str) -> FeedError:
        """Return the error for nested lists of different lengths."""
        return FeedError(
            f"{self.word} {name!r} is not an array: its parts have different lengths",
            operands=self._operands(name),
            hint=_lengths_hint(name)
            if self._inputs[name].looped
            else "all rows of a batch must have the same shape",
        )

    def wrong_shape(self, name: str, value: Array) -> FeedError:
        """Return the error for an array of a wrong shape."""
        feed = self._inputs[name]
        wanted, shape, type = shape_text(feed.type.shape), value.shape, feed.type
        short = len(shape) == type.rank and shape[2:] == type.shape[2:]
        return FeedError(
            f"{self.word} {name!r} takes {wanted}, the array has shape {value.shape}",
            operands=self._operands(name),
            hint=_lengths_hint(name)
            if feed.looped and short
            else _shape_hint(name, type, feed.is_label, shape),
        )

    def wrong_row(self, name: str, row: int, shape: tuple[int, ...]) -> FeedError:
        """Return the error for a row of a wrong shape in a list of rows."""
        declared = self._inputs[name].type.shape[1:]
        inner = "".join(f", {dim}" for dim in declared[1:])
        return FeedError(
            f"row {row} of {self.word} {name!r} has shape {shape}, it must be (t{inner}) with "
            f"1 to {declared[0]} steps t",
            operands=self._operands(name),
        )

    def wrong_steps(self, name: str, steps: int) -> FeedError:
        """Return the error for an array with no steps, or more than declared."""
        return FeedError(
            f"{self.word} {name!r} takes 1 to {self._inputs[name].type.shape[1]} steps, the "
            f"array has {steps}",
            operands=self._operands(name),
        )

    def wrong_length(self, name: str, length: int, row: int, steps: int) -> FeedError:
        """Return the error for a length that no row may have."""
        return FeedError(
            f"{self.word} {name!r} holds the length {length} at row {row}, it must be 1 to {steps}",
            operands=self._operands(name),
        )

    def other_length(self, by: str, wanted: int, name: str, length: int, row: int) -> FeedError:
        """Return the error for a row that has another length in another input."""
        return FeedError(
            f"row {row} has {counted(int(wanted), 'step')} by {by!r} and {length} by {name!r}",
            operands=self._operands(by, name),
            hint="inputs that one gc.lengths names have rows of the same lengths",
        )

    def wrong_dtype(self, name: str, array: Array) -> FeedError:
        """Return the error for an array of another kind of numbers, or without numbers."""
        feed = self._inputs[name]
        kinds = {"U": "text", "S": "bytes", "O": "Python objects"}
        kind = kinds.get(array.dtype.kind, str(array.dtype))
        return FeedError(
            f"{self.word} {name!r} takes {feed.type.dtype}, the array is {kind}",
            operands=self._operands(name),
            hint=_dtype_hint(name, feed.type, feed.is_label, array),
        )

    def too_large(self, name: str, dtype: np.dtype[Any]) -> FeedError:
        """Return the error for whole numbers out of a dtype's range."""
        return FeedError(
            f"{self.word} {name!r} holds numbers too large for {dtype}",
            operands=self._operands(name),
            hint="declare the input with dtype='int64'",
        )

    def out_of_range(self, name: str, number: int, row: str, bound: int) -> FeedError:
        """Return the error for an index or a label out of range; `row` is the text of its place."""
        feed = self._inputs[name]
        by, ignored = feed.indexed, feed.ignored
        one, many = ("index", "entries") if by else ("label", "classes")
        return FeedError(
            f"{self.word} {name!r} holds the {one} {number}{row}, there are {bound} {many}",
            operands=[*self._operands(name), *(node.described("indexed") for node in by)],
            hint=f"{'indices' if by else 'labels'} go from 0 to {bound - 1}"
            + ("" if ignored is None else f", and {ignored} is ignored"),
        )


def _lengths_hint(name: str) -> str:
    return (
        f"rows may have fewer steps if the loop knows their lengths: gc.scan(step, {name}, h0, "
        f"lengths=gc.lengths({name}))"
    )


_FREE = "the batch dimension N is free, all others are as declared"


def _dtype_hint(name: str, type: TensorType, label: bool, array: Array) -> str:
    """Return the hint for an array of a wrong dtype; a `label` is the number of a class."""
    cast = f"{name}.astype({type.dtype!r})"
    if array.dtype.kind == "U" and array.ndim == 0:
        return "feed the array, not its path: np.load(path)"
    if array.dtype.kind in "US" and not type.is_float:
        return f"turn words into numbers: np.unique({name}, return_inverse=True)[1]"
    if array.dtype.kind == "f" and label:
        return (
            _one_hot(name) if array.ndim == type.rank + 1 else f"labels are class numbers: {cast}"
        )
    return f"convert it: {cast}"


def _shape_hint(name: str, type: TensorType, label: bool, shape: tuple[int, ...]) -> str:
    """Return the hint for an array of a wrong shape."""
    if not type.batched and type.rank and shape[1:] == type.shape:
        dims = ", ".join(map(str, type.shape))
        return f"the batch is a dimension, too: net.input({name!r}, (gc.N, {dims}))"
    if not type.batched:
        return f"the shape is fixed: {shape_text(type.shape)}"
    if type.pairs_rows and len(shape) == type.rank:
        return "the batch dimension N is free, but the same in all of the shape"
    if not isinstance(type.shape[0], Batch):
        return _FREE
    if len(shape) == type.rank - 1:
        return "one sample needs its batch axis: x[None]"
    if len(shape) == type.rank > 2 and (shape[-1], *shape[1:-1]) == type.shape[1:]:
        return f"channels come first: np.moveaxis({name}, -1, 1)"
    if len(shape) == type.rank + 1 and shape[-1] == 1 and shape[1:-1] == type.shape[1:]:
        return f"the last axis, of size 1, is one too many: {name}[..., 0]"
    if len(shape) == type.rank + 1 and label:
        return _one_hot(name)
    if len(shape) > type.rank:
        return "reshape the array, or declare the input with its real shape"
    return _FREE


def _one_hot(name: str) -> str:
    return f"labels are class numbers: for one-hot rows {name}.argmax(axis=-1)"
