"""Checkpoints of a population in training: after each epoch, one file with all members."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from graphc.files.graph_file import tensors_named
from graphc.files.model_file import damage
from graphc.files.serialize import CheckpointFile
from graphc.ir.op import Array
from graphc.runtime.distributed.agreement import on_all_ranks
from graphc.runtime.population import Population
from graphc.train.callbacks import saved_arrays
from graphc.train.checkpoints import Checkpoints, check_same_run
from graphc.train.history import History, Position
from graphc.train.member import Member


class PopulationCheckpoints:
    """The checkpoints of all members of a run, of which `members` are on this rank.

    `choices` are the options and data that a resumed run must share.
    """

    def __init__(
        self,
        everyone: Population,
        members: Sequence[Member],
        checkpoints: Checkpoints,
        choices: Mapping[str, Any],
    ) -> None:
        self._everyone, self._members, self._checkpoints = everyone, members, checkpoints
        own = {"seeds": list(everyone.seeds), "hyper": choices["hyper"]}
        self._choices = {**choices, "members": own}
        self._lock = checkpoints.lock()

    def begin(self, resume: bool, epochs: int) -> None:
        """Take the folder; with `resume` continue from its last checkpoint, if there is one.

        Raise GraphError, with nothing changed, if the earlier run differs.
        """
        first, begin = not self._everyone.ranks.rank, self._checkpoints.begin
        found = self._together(lambda: begin(self._lock, resume) if first else None)
        if found[0] is not None:
            self._resume(found[0], epochs)

    def close(self) -> None:
        """Release the folder, whether it was taken or not."""
        self._lock.release()

    def _resume(self, file: CheckpointFile, epochs: int) -> None:
        member = self._members[0]
        with damage(file.model, "a run"):
            one = _of_member(file, member.overall)
        check_same_run(one, self._everyone[member.overall], self._choices, epochs)
        with damage(file.model, "a run"):
            notes = [file.notes["members"][member.overall] for member in self._members]
            read = [(Position(**each["at"]), History(**each["history"])) for each in notes]
            failed = [bool(each["failed"]) for each in notes]
        self._everyone.state = file.state
        for member, (at, history), failure in zip(self._members, read, failed, strict=True):
            member.at, member.history, member.failed = at, history, failure
            member.saved = tensors_named(file.arrays, f"{member.overall}/")

    def runs(self, here: bool) -> bool:
        """Return whether a member runs on some rank; `here` is whether one does on this rank."""
        return any(self._together(lambda: here))

    def save(self) -> None:
        """Write a checkpoint, on all ranks together; the first one writes the file."""
        parts = self._together(self._own)
        notes = [each for part, _ in parts for each in part]
        arrays = ChainMap(*(arrays for _, arrays in parts))
        epochs = max((each["history"]["epochs"] for each in notes), key=len)
        about = {"choices": self._choices, "members": notes, "history": {"epochs": epochs}}
        steps = sum(each["at"]["steps"] for each in notes)
        self._checkpoints.write(self._everyone, steps, about, arrays)

    def _own(self) -> tuple[list[dict[str, Any]], dict[str, Array]]:
        """Return the positions and histories of the members here, and arrays of their callbacks."""
        notes = [
            {"at": asdict(m.at), "history": asdict(m.history), "failed": m.failed}
            for m in self._members
        ]
        return notes, {
            f"{member.overall}/{name}": array
            for member in self._members
            for name, array in saved_arrays(member.callbacks).items()
        }

    def _together(self, work: Any) -> list[Any]:
        return on_all_ranks(self._everyone.ranks, work)


def _of_member(file: CheckpointFile, number: int) -> CheckpointFile:
    """Return a checkpoint of a population as one of a member; if it has none such, as it is."""
    choices = file.notes["choices"]
    members = choices.get("members")
    if members is None or number >= len(members["seeds"]):
        return file
    hyper = {name: values[number] for name, values in members["hyper"].items()}
    notes = {**file.notes, "choices": {**choices, "hyper": hyper}}
    return replace(file, state={k: a[number] for k, a in file.state.items()}, notes=notes)
