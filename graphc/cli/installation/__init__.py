"""Checks what is installed, on this machine: a section for each part, against plain NumPy."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from graphc.base.errors import failure_text
from graphc.cli.installation.exchange import onnx
from graphc.cli.installation.families import families
from graphc.cli.installation.files import files
from graphc.cli.installation.fitted import fit
from graphc.cli.installation.members import populations
from graphc.cli.installation.nets import nets, passes
from graphc.cli.installation.ops import backends, ops
from graphc.cli.installation.optimizers import optimizers
from graphc.cli.installation.shards import shards
from graphc.cli.installation.sizes import edges, sizes
from graphc.cli.installation.tables import tables
from graphc.cli.installation.trial import Trial, Wrong

SECTIONS: Mapping[str, Callable[[Trial], str]] = {
    section.__name__: section
    for section in (
        *(ops, backends, families, sizes, edges, optimizers, fit, shards, populations, files),
        *(tables, onnx, nets, passes),
    )
}
"""The sections by name: each returns what was checked, or raises Wrong."""


class Line(NamedTuple):
    """The result of a section."""

    section: str
    ok: bool
    text: str
    """The work that was done, or the fault."""
    left: tuple[str, ...]
    """The parts that were left out, and the reasons."""
    seconds: float

    def __str__(self) -> str:
        text = "; ".join(part for part in (self.text, *self.left) if part)
        return f"{self.section:12} {'' if self.ok else 'WRONG: '}{text} ({self.seconds:.1f} s)"


def check_installation(
    sections: Sequence[str] = (), *, seed: int = 0, seconds: float = 60.0
) -> Iterator[Line]:
    """Yield the result of each section, which has a share of the seconds for more random cases."""
    for name in sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder, _environment(Path(folder, "cache")):
            trial = Trial(seed, seconds / len(sections or SECTIONS), Path(folder))
            start = time.perf_counter()
            try:
                ok, text = True, SECTIONS[name](trial)
            except Wrong as error:
                ok, text = False, str(error)
            except Exception as error:  # also an error is what a right installation does not give
                ok, text = False, f"it {failure_text(error)}"
            yield Line(name, ok, text, tuple(trial.left), time.perf_counter() - start)


@contextmanager
def _environment(cache: Path) -> Iterator[None]:
    """Keep machine code in another folder, and let no GRAPHC_BACKEND choose for what is read."""
    before = {name: os.environ.pop(name, None) for name in ("GRAPHC_CACHE", "GRAPHC_BACKEND")}
    os.environ["GRAPHC_CACHE"] = str(cache)
    try:
        yield
    finally:
        del os.environ["GRAPHC_CACHE"]
        os.environ.update({name: value for name, value in before.items() if value is not None})
