"""Checkpoints of a population in training: after each epoch, one file with all members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from graphc.files.model_file import damage
from graphc.files.serialize import CheckpointFile
from graphc.runtime.distributed.agreement import on_all_ranks
from graphc.runtime.members.population import Population
from graphc.train.checkpoints import Checkpoints, check_same_run
from graphc.train.members.member import Member


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
        begin = None if self._everyone.ranks.rank else self._checkpoints.begin
        found = self._together(lambda: begin and begin(self._lock, resume))
        if found[0] is not None:
            self._resume(found[0], epochs)

    def close(self) -> None:
        """Release the folder, whether it was taken or not."""
        self._lock.release()

    def _resume(self, file: CheckpointFile, epochs: int) -> None:
        first = self._members[0].overall
        with damage(file.model, "a run"):
            one = _of_member(file, first)
        check_same_run(one, self._everyone[first], self._choices, epochs)
        with damage(file.model, "a run"):
            for member in self._members:
                member.resume(file.notes["members"][member.overall], file.arrays)
        self._everyone.state = file.state

    def runs(self, here: bool) -> bool:
        """Return whether a member runs on some rank; `here` is whether one does on this rank."""
        return any(self._together(lambda: here))

    def save(self) -> None:
        """Write a checkpoint, on all ranks together; the first one writes the file."""
        members = self._members
        parts = self._together(lambda: [(member.notes, member.arrays) for member in members])
        notes, arrays = zip(*chain.from_iterable(parts), strict=True)
        epochs = max((each["history"]["epochs"] for each in notes), key=len)
        about = {"choices": self._choices, "members": notes, "history": {"epochs": epochs}}
        steps = sum(each["at"]["steps"] for each in notes)
        self._checkpoints.write(
            self._everyone, steps, about, {k: a for each in arrays for k, a in each.items()}
        )

    def _together(self, work: Callable[[], Any]) -> list[Any]:
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
