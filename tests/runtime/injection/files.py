"""`save` and `fit` with checkpoints: files are whole, and a run goes on as if never stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import graphc as gc
from tests.runtime.injection.judging import Seen, state_of
from tests.runtime.injection.subjects import plan
from tests.train.nets import table

DATA, HELD = table(20), table(6, seed=1)


class SaveJudge:
    """Judges an interrupted `save` over an earlier file."""

    name = "save"

    def __init__(self, where: str, folder: Path) -> None:
        self.path = folder / "model.gc"
        self.old, self.new = (gc.Executor(plan(where), seed=seed) for seed in (1, 2))
        self.before, self.after = (self._saved(ex) for ex in (self.old, self.new))

    def _saved(self, ex: gc.Executor) -> bytes:
        gc.save(self.path, ex)
        return self.path.read_bytes()

    def prepared(self) -> Callable[[], Any]:
        """The call, with the old file in its place."""
        for path in self.path.parent.iterdir():
            path.unlink()
        self.path.write_bytes(self.before)
        return lambda: gc.save(self.path, self.new)

    def judge(self) -> str:
        """By the bytes of the file, and the files beside it."""
        found = self.path.read_bytes()
        if found not in (self.before, self.after):
            return "wrong"
        if [path.name for path in self.path.parent.iterdir()] != [self.path.name]:
            return "left"
        return "none" if found == self.before else "all"


class Noting(gc.Executor):
    """Notes the state after each step."""

    def __init__(self, plan: gc.Plan, seed: int) -> None:
        super().__init__(plan, seed=seed)
        self.states = [state_of(self)]

    def step(self, feeds: Any = None, /, **by_name: Any) -> float:
        """As always."""
        loss = super().step(feeds, **by_name)
        self.states.append(state_of(self))
        return loss


class FitJudge:
    """Judges an interrupted `fit`; what is between its steps counts as none."""

    name = "fit with checkpoints"

    def __init__(self, where: str, folder: Path) -> None:
        self.where, self.folder = where, folder / "run"
        noting = Noting(plan(where), seed=4)
        self.history, self.final = self._fit(noting, resume=False)
        self.states = noting.states

    def _executor(self) -> gc.Executor:
        return gc.Executor(plan(self.where), seed=4)

    def _fit(self, ex: gc.Executor, resume: bool) -> tuple[Any, Seen]:
        def note(epoch: Any) -> None:
            assert epoch.numbers

        history = gc.fit(
            ex,
            DATA,
            validation=HELD,
            epochs=2,
            seed=3,
            callbacks=[note],
            checkpoint=gc.Checkpoints(self.folder, every=2),
            resume=resume,
            progress=False,
        )
        numbers = asdict(history)
        del numbers["seconds"]
        return numbers, state_of(ex)

    def prepared(self) -> Callable[[], Any]:
        """The call in a folder that is not there yet."""
        rmtree(self.folder, ignore_errors=True)
        self.ex = self._executor()
        return lambda: self._fit(self.ex, resume=False)

    def _odd(self) -> set[str]:
        files = self.folder.iterdir() if self.folder.exists() else []
        return {path.name for path in files if path.suffix != ".gc"}

    def judge(self) -> str:
        """By the state, by Ctrl-C, by the files, and by how a run goes on from them."""
        state, broken = state_of(self.ex), self.ex.state.broken
        odd = self._odd()
        for path in self.folder.glob("*.gc"):
            gc.load(path)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            held = False
        else:
            held = True
        again = self._executor()
        known = broken or state in self.states
        if held or not known or self._fit(again, resume=True) != (self.history, self.final):
            return "wrong"
        if odd - {".checkpoints.lock"} or self._odd():
            return "left"  # a lock that nobody holds is no obstacle, and goes with the next run
        if broken:
            return "broken"
        return "all" if state == self.final else "none"
