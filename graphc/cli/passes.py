"""`graphc train --passes`: a list of the compiler's passes and what they do."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from graphc.base.import_paths import own_passes


class ListPasses(argparse.Action):
    """An option that prints the passes and exits, as --help does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs=0, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print the list, then exit with 0."""
        print(passes_text())
        parser.exit()


def passes_text() -> str:
    """Return a line for each pass: its name, what it preserves, what it does."""
    passes = own_passes()
    lines = []
    for name in dict.fromkeys(passes.DEFAULT.names):
        module = importlib.import_module(f"passes.{name}")
        made = getattr(module, name, None) or getattr(module, name.title().replace("_", ""))
        what = (module.__doc__ or "").strip().partition("\n")[0]
        need = "  (required)" if name in passes.REQUIRED else ""
        lines.append(f"{name:<28} {passes.preserves_of(made):<13} {what}{need}")
    return "\n".join(lines)
