"""Checkpoints of a run in a folder, and the check that a resumed run continues as it began."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError, ModelFileError, Operand
from graphc.declare.optim.optimizer import Optimizer
from graphc.files.disk import FolderLock, make_folder, remove_temporaries, shown
from graphc.files.graph_file import UnknownOp, user_ops
from graphc.files.model_file import Model, damage, optimizer_of, saved_rules
from graphc.files.serialize import CheckpointFile, read_checkpoint, save, write_checkpoint
from graphc.ir.difference import LONGEST, Difference, Pair, difference
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.text.graph import name_text, node_text, value_text, word_of
from graphc.ops.source import with_start
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.train.history import Best, History

LOG = logging.getLogger("graphc")
KEPT = 2
"""The number of checkpoints that are kept besides the best model."""

_NAME = re.compile(r"step-(\d{9,})\.gc")


class Checkpoints:
    """The folder where `fit` writes checkpoints, and how often it does.

    The last two checkpoints, `step-<steps>.gc`, are kept, and the model of the best epoch,
    `best.gc`.  All are models that `gc.load` reads, written whole or not at all, with a checksum.
    Of a population a checkpoint has all members, and there is no best model.

    Parameters
    ----------
    folder
        The folder, which is made if it does not exist.
    every
        The steps from one checkpoint to the next, by default those of an epoch.
    watch
        The number that is smallest in the best epoch, by default "val_loss" with validation data,
        else "loss".
    largest
        Whether the best epoch is the one with the greatest number.

    Raises
    ------
    GraphError
        If `every` is not a whole number from 1 up.

    Examples
    --------
    >>> gc.Checkpoints("run", every=1000).best.name
    'best.gc'
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        watch: str | None = None,
        largest: bool = False,
    ) -> None:
        if every is not None:
            hint = "it counts steps; leave it out for a checkpoint after each epoch"
            every = checked_whole("Checkpoints: every", every, hint=hint)
        self.folder, self.every = Path(folder), every
        self.watch, self.largest = watch, largest

    @property
    def best(self) -> Path:
        """The path of the model of the best epoch."""
        return self.folder / "best.gc"

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, or None if there is none."""
        found = self._found()
        return found[-1] if found else None

    def lock(self) -> FolderLock:
        """Return the lock that reserves the folder for one run once it is taken."""
        return FolderLock(self.folder, "checkpoints")

    def begin(self, lock: FolderLock, resume: bool) -> CheckpointFile | None:
        """Prepare the folder; return the newest whole checkpoint if a run is to be resumed.

        The lock is taken, and is the caller's to release, also after an error.  Raise GraphError if
        another run has the folder or it holds checkpoints of one, ModelFileError if none of its
        checkpoints can be read or the folder cannot be made.
        """
        make_folder(self.folder, ModelFileError)
        lock.take()
        ours = re.compile(f"best.gc|{_NAME.pattern}")
        remove_temporaries(self.folder, lambda name: bool(ours.fullmatch(name)))
        found = self._found()
        if found and not resume:
            raise GraphError(
                f"fit: {shown(self.folder)} holds checkpoints of an earlier run",
                hint="resume=True continues it; another folder starts a new run",
            )
        return self._newest(found)

    def write(
        self,
        ex: Executor | Population,
        steps: int,
        notes: Mapping[str, Any],
        arrays: Mapping[str, Array],
    ) -> None:
        """Write a checkpoint and delete all but the last two; raise ModelFileError on failure."""
        write_checkpoint(self.folder / f"step-{steps:09d}.gc", ex, notes, arrays)
        # Only after the new one is whole on disk.
        for path in self._found()[:-KEPT]:
            with suppress(OSError):
                path.unlink()

    def write_best(self, ex: Executor, history: History, watch: str) -> None:
        """Write the model if the last epoch is the best; raise ModelFileError on failure."""
        best = Best(self.largest)
        if [best.add(value) for value in history.column(watch)][-1]:
            save(self.best, ex)

    def _found(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return list(numbered(self.folder, _NAME).values())

    def _newest(self, found: list[Path]) -> CheckpointFile | None:
        error: ModelFileError | None = None
        for path in reversed(found):
            try:
                return read_checkpoint(path)
            except ModelFileError as damage:
                error = error or damage
                LOG.warning("%s; the checkpoint before it is tried", damage.sentence)
        if error is not None:
            raise error
        return None


def numbered(folder: Path, name: re.Pattern[str]) -> dict[int, Path]:
    """Return the plain files of a folder with such a name by the number in it, ascending."""
    matches = ((name.fullmatch(path.name), path) for path in folder.glob("*-*.gc"))
    return dict(sorted((int(m[1]), path) for m, path in matches if m and path.is_file()))


_DATA = {"data": "data", "validation": "validation data"}
"""The choices that identify data, and their names in errors."""
_BEGIN = "resume with the options of the run, or start a new run in another folder"


@dataclass(frozen=True)
class Mismatch:
    """A difference from an earlier run: the end of a sentence about it, and lines that show it."""

    words: str
    shown: tuple[Operand, ...] = ()


def check_same_run(
    file: CheckpointFile, ex: Executor, choices: Mapping[str, Any], epochs: int
) -> None:
    """Raise GraphError if a checkpoint is of a different run, or has more epochs.

    Choices that a checkpoint of an older version does not record are not compared.
    """
    optimizer = None
    with damage(file.model, "a run"):
        mismatch = (
            net_mismatch(file.model, ex)
            or _members_mismatch(file.notes["choices"], choices)
            or (optimizer := _optimizer_mismatch(file, ex))
            or choices_mismatch(file.notes["choices"], choices)
            or _state_mismatch(file.state, ex)
        )
        done = len(file.notes["history"]["epochs"])
    if mismatch is not None:
        raise GraphError(
            f"fit: the run to resume {mismatch.words}",
            operands=mismatch.shown,
            hint=_BEGIN
            if mismatch is not optimizer
            else f"{_BEGIN}; to train its weights in another way: "
            f"gc.load({file.model.where!r}, optimizer=...)",
        )
    if done > epochs:
        raise GraphError(
            f"fit: the run to resume already has {done} epochs, epochs is {epochs}",
            hint=f"epochs={done} or more; it counts those before, too",
        )


# ---------------------------------------------------------------------- the net


def net_mismatch(model: Model, ex: Executor) -> Mismatch | None:
    """Return how the net of a file differs from the executor's, or None."""
    now = ex.plan.declared
    try:
        before = model.declared(user_ops(now))
    except UnknownOp as error:
        return Mismatch(f"trained another net, with your op {error.path}")
    made = difference(_without_values(before), _without_values(now))
    changed = [pair for pair in made.changes if pair.kind != "renamed"]
    if changed:
        return _node_mismatch(made, changed)
    if made.roots:
        return _root_mismatch(made)
    trained = model.notes["plan"]["wrt"]
    odd = sorted({*trained} ^ {*ex.plan.options.wrt})
    if odd:
        name = odd[0]
        verb = "trained" if name in trained else "did not train"
        return Mismatch(f"{verb} the parameter {name!r}, wrt says otherwise")
    return None


def _without_values(graph: Graph) -> Graph:
    """Return the graph without its initial values, which a checkpoint's values replace."""
    given = (node for node in graph if node.op.persistent)
    return graph.replace({n.name: replace(n, op=with_start(n.op, None)) for n in given})


def _node_mismatch(made: Difference, changed: Sequence[Pair]) -> Mismatch:
    """Return the difference of the first node that differs and the node in its place."""
    layers = [pair for pair in changed if not pair.node.op.is_state] or list(changed)
    first = layers[0]
    was, now = first.before, first.after
    if now is None:
        now = next((pair.after for pair in layers[1:2] if pair.kind == "added"), None)
    losses = [graph.outputs[name] for graph in (made.before, made.after) for name in graph.losses]
    what = "had another loss" if first.node.name in losses else "trained another net"
    return Mismatch(f"{what}: {_change_text(was, now)}", tuple(_node_lines(was, now)))


def _change_text(was: Node | None, now: Node | None) -> str:
    if was is None or now is None:
        node = was or now
        assert node is not None
        return f"{word_of(type(node.op))} {node.name!r} is {'gone' if now is None else 'new'}"
    old, new = word_of(type(was.op)), word_of(type(now.op))
    return (
        f"{old} {was.name!r} is " + ("different" if old == new else f"{new} {now.name!r}") + " now"
    )


def _node_lines(was: Node | None, now: Node | None) -> Iterator[Operand]:
    for role, node in (("before", was), ("now", now)):
        if node is not None:
            name, _, text = node_text(node).partition(" ")
            text = text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
            yield Operand(role, name, text, node.loc)


def _root_mismatch(made: Difference) -> Mismatch:
    root = made.roots[0]
    if root.what == "losses":
        return Mismatch(f"had other losses: {root.before or 'none'}, now {root.after or 'none'}")
    was, now = ("nothing" if k is None else name_text(k) for k in (root.before, root.after))
    return Mismatch(f"trained another net: {root.what} {root.name!r} was {was}, it is {now} now")


def _state_mismatch(before: Mapping[str, Array], ex: Executor) -> Mismatch | None:
    """Return the difference if the plan's states have other names or shapes, or None."""
    nodes = ex.plan.state_nodes
    odd = sorted(before.keys() ^ nodes.keys())
    if odd:
        return Mismatch(f"had another net or optimizer: {odd[0]!r} is not in both")
    for name, array in before.items():
        if array.shape != ex.state.arrays[name].shape:
            return Mismatch(f"trained another net: {name!r} had shape {array.shape}")
    return None


def _members_mismatch(before: Mapping[str, Any], now: Mapping[str, Any]) -> Mismatch | None:
    """Return the difference if other members were trained, or one net instead of members."""
    was, members = (choices.get("members") for choices in (before, now))
    if was == members:
        return None
    if was is None or members is None:
        return Mismatch(f"trained {'an executor' if was is None else 'a population'}")
    if was["seeds"] == members["seeds"]:
        return Mismatch("had members with other hyper-parameters")
    return Mismatch(f"had members with the seeds {was['seeds']}, now they are {members['seeds']}")


# ---------------------------------------------------------------------- the optimizer


def _optimizer_mismatch(file: CheckpointFile, ex: Executor) -> Mismatch | None:
    texts = [rule["optimizer"] for rule in saved_rules(file.model)]
    rules = ex.plan.rules
    if len(texts) != len(rules):
        return Mismatch(f"had {len(texts)} update rules, now there are {len(rules)}")
    found = (_difference(t, r.optimizer, file, ex) for t, r in zip(texts, rules, strict=True))
    return next((each for each in found if each is not None), None)


def _difference(text: str, now: Optimizer, file: CheckpointFile, ex: Executor) -> Mismatch | None:
    """Return how an optimizer differs from the text of the one before."""
    before = _optimizer(text)
    if type(before) is not type(now):
        was = text.partition("(")[0]
        return Mismatch(f"had the optimizer {was}, now it is {type(now).__name__}")
    hyper = _hyper(file, before, ex)
    for name, value in ex.hyper.items():
        if name in hyper and value not in hyper[name]:
            return Mismatch(f"had {name} {hyper[name][0]:.6g}, now it is {value:.6g}")
    for each in fields(now):
        old, new = getattr(before, each.name), getattr(now, each.name)
        if old != new and hyper.keys().isdisjoint((each.name, now.state(each.name))):
            return Mismatch(f"had {each.name} {value_text(old)}, now it is {value_text(new)}")
    return None


def _optimizer(text: str) -> Optimizer | None:
    """Return the optimizer that a text describes; None if its class is unknown here."""
    try:
        return optimizer_of(text)
    except (ValueError, TypeError, KeyError):
        return None


def _hyper(
    file: CheckpointFile, before: Optimizer | None, ex: Executor
) -> dict[str, tuple[float, float]]:
    """Return the hyper-parameters that the run began with, and its present ones."""
    begun = file.notes["choices"].get("hyper", {})
    found = {}
    for name in ex.hyper:
        array = file.state.get(ex.hyper.state_of(name))
        if array is not None:
            now = float(array)
            own = begun.get(name, getattr(before, name, now))
            found[name] = float(np.asarray(own, array.dtype)), now
    return found


# ---------------------------------------------------------------------- data and their order


def choices_mismatch(before: Mapping[str, Any], now: Mapping[str, Any]) -> Mismatch | None:
    """Return how the data or the order of rows differ; compare only what both runs recorded."""
    for name, value in now.items():
        was = before.get(name, value)
        if was == value or name == "hyper":
            continue
        if name not in _DATA:
            return Mismatch(f"had {name} {was}, now it is {value}")
        # The description is for people: an older version may have worded it in another way.
        if not (was and value and all(was[key] == value[key] for key in ("kind", "digest"))):
            return Mismatch(_data_mismatch(_DATA[name], was, value))
    return None


def _data_mismatch(what: str, was: Mapping[str, str] | None, now: Mapping[str, str] | None) -> str:
    if was is None or now is None:
        return f"had no {what}, now it has" if was is None else f"had {what}, now it has none"
    if was["described"] != now["described"]:
        return f"had other {what}: {was['described']}, now {now['described']}"
    return f"had other {what}: {was['described']}, with other numbers"
