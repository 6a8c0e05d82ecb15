"""Imports by name: of modules by their former names, and of the package `passes`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.base.errors import GraphError

FORMER = {
    "certificate": "check.certificate",
    "check.certificate.parse": "check.certificate.text",
    "check.grad_report": "check.grad_check",
    "check.layer_report": "check.check_layer",
    "declare.optim.adagrad": "declare.optim.sgd",
    "declare.optim.adamax": "declare.optim.adam",
    "declare.optim.group": "declare.optim.optimizer",
    "declare.optim.lion": "declare.optim.adam",
    "declare.optim.nadam": "declare.optim.adam",
    "declare.optim.rmsprop": "declare.optim.sgd",
    "distributed": "runtime.distributed",
    "errors": "base.errors",
    "graph": "ir.graph",
    "init": "ir.init",
    "ir.plan": "compiler.plan",
    "kernels.expr": "ir.expr",
    "kernels.functions": "kernels.interpret",
    "loc": "base.loc",
    "optim": "declare.optim",
    "plots": "view.plots",
    "schedules": "declare.schedules",
    "sklearn.classifier": "sklearn.models",
    "sklearn.regressor": "sklearn.models",
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
    """The finder and loader of modules by their former names.

    It does not inherit from importlib.abc, which takes time to import.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module by its former name, or None for any other."""
        package, _, name = fullname.partition(".")
        moved = name if name in FORMER else name.partition(".")[0]
        if package != "graphc" or moved not in FORMER:
            return None
        loader: Any = self
        now = f"graphc.{FORMER[moved]}{name.removeprefix(moved)}"
        return ModuleSpec(fullname, loader, loader_state=now)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        sys.modules[module.__name__] = importlib.import_module(module.__spec__.loader_state)


def own_passes() -> ModuleType:
    """Return the `passes` package beside graphc; raise GraphError if the import finds another."""
    passes = importlib.import_module("passes")
    home = Path(__file__).resolve().parents[2] / "passes"
    found = getattr(passes, "__file__", None) or next(iter(getattr(passes, "__path__", [])), "")
    if Path(found).resolve().parent == home:
        return passes
    raise GraphError(
        f"{found} hides graphc's own package 'passes'", hint="rename it: graphc imports that name"
    )
