"""Files whose drawing needs a package that may not be installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from graphc.base.errors import GraphError


def write(path: Path, make: Callable[[Path], object]) -> Path | None:
    """Make the file, or print a one-line warning with what to install, and return None."""
    try:
        make(path)
    except GraphError as error:
        commands = (line.strip() for line in error.hint.splitlines() if "pip install" in line)
        said = "; ".join([error.sentence, *list(commands)[:1]])
        print(f"warning: no {path.name}: {said}", file=sys.stderr)
        return None
    return path
