"""Runs a recorded run again in a separate process, under the variables that it was made with.

NumPy's products depend on variables that are read when a process begins, such as the number of
threads of its BLAS.  The process returns files in a temporary folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.files.container import pack, unpack
from graphc.train.record.folder import RunFolder
from graphc.train.record.made_with import VARIABLES, variables
from graphc.train.replay.look import Digests, Here, Look, Seen

_CODE = "from graphc.train.replay.elsewhere import child; child()"


def made_elsewhere(run: str | Path) -> bool:
    """Return whether a run with kept data was made under other variables than are set now."""
    folder = RunFolder(run)
    return folder.data_path.is_file() and folder.about().made_with.variables != variables()


class Elsewhere:
    """A recorded run that is run again in separate processes."""

    def __init__(self, run: str | Path) -> None:
        folder = RunFolder(run)
        self.path, self.about, self.journal = folder.path, folder.about(), folder.journal()

    def digests(self, start: int, stop: int) -> Digests:
        """Return the digests of the steps after `start`, up to `stop`."""
        said = json.loads(self._asked("digests", start, stop))
        return Digests(said["steps"], said["unlike"])

    def look(self, step: int) -> Look:
        """Return the nodes of a step."""
        metadata, values = unpack(self._asked("look", step))
        said = json.loads(metadata["look"])
        nodes = {name: Seen(**seen) for name, seen in said["nodes"].items()}
        return Look(said["epoch"], nodes, values, said["data_rows"])

    def _asked(self, *words: str | int) -> bytes:
        """Return the answer of a new process, as bytes; raise GraphError if it gives none."""
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "answer")
            words = (str(self.path.resolve()), str(answer), *words)
            done = subprocess.run(
                [sys.executable, "-c", _CODE, *map(str, words)],
                env={
                    **kept,
                    **self.about.made_with.variables,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if not answer.exists():
                lines = done.stderr.strip().splitlines() or ["it ended without an answer"]
                raise GraphError(
                    f"{self.path} could not be run again under its own variables: {lines[-1]}",
                    loc=caller_loc(),
                )
            return answer.read_bytes()


def child() -> None:
    """Run in the new process: write the answer for the run, file and question in sys.argv."""
    run, answer, what, *numbers = sys.argv[1:]
    here = Here(run)
    if what == "digests":
        found = asdict(here.digests(*map(int, numbers)))
        Path(answer).write_text(json.dumps(found), encoding="utf-8")
        return
    look = here.look(int(numbers[0]))
    nodes = {name: asdict(seen) for name, seen in look.nodes.items()}
    said = {"epoch": look.epoch, "nodes": nodes, "data_rows": list(look.data_rows)}
    pieces = pack({"look": json.dumps(said)}, look.values)
    Path(answer).write_bytes(b"".join(pieces))
