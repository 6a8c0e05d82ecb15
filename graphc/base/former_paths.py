"""The import of modules by their former names, which users' code and pickles hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

FORMER = {
    "certificate": "check.certificate",
    "check.grad_report": "check.grad_check",
    "distributed": "runtime.distributed",
    "errors": "base.errors",
    "graph": "ir.graph",
    "init": "ir.init",
    "loc": "base.loc",
    "optim": "declare.optim",
    "plots": "view.plots",
    "schedules": "declare.schedules",
    "tensor_type": "ir.tensor_type",
    "text": "ir.text",
    "validation": "check.validation",
    "verify": "check.verify",
}
"""The names in graphc that were documented or that pickles hold, and where each module is now."""


def answer_former_paths() -> None:
    """Make each former name import the moved module itself, not a second copy."""
    if not any(isinstance(finder, _Former) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Former())  # before those that would load a second copy


class _Former:
    """Find and load a module by its former name.

    The bases are not those of importlib.abc, which takes time to import.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        first = rest if rest in FORMER else rest.partition(".")[0]
        if package != "graphc" or first not in FORMER:
            return None
        loader: Any = self
        now = f"graphc.{FORMER[first]}{rest.removeprefix(first)}"
        return ModuleSpec(fullname, loader, loader_state=now)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        sys.modules[module.__name__] = import_module(module.__spec__.loader_state)
