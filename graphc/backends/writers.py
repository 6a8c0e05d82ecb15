"""The writers of exported models: which language each has, and what it must do."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from graphc.backends.interface import Interface
from graphc.kernels.program import Program


class ModelWriter(Protocol):
    """The writer of exported models in one language."""

    backend: str
    """The backend whose programs it writes."""

    def scratch(self, program: Program) -> Sequence[int]:
        """Return for each instruction the bytes of scratch that it needs."""

    def write(
        self, model: Interface, header: str, separate: bool, test: str
    ) -> tuple[bytes, int | None]:
        """Return the file of a model, and the bytes of stack that a call needs at most, if known.

        `header` is the name of the header beside it, `test` the text of its self-test.
        `separate` is true if the first state is a file of its own.
        """


WRITERS = {"c": "c", "object": "native"}
"""The backend that has the writer of each language."""


def model_writer(language: str, *target: str | None) -> ModelWriter:
    """Return the writer of exported models in a language; for objects, of a triple and processor.

    Raise GraphError for a target that is not known.
    """
    module = import_module(f"graphc.backends.{WRITERS[language]}.export")
    found: ModelWriter = module.writer(*target)
    return found
