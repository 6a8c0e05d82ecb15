"""Files that need something that may not be installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from graphc.errors import GraphError


def write(path: Path, make: Callable[[Path], object]) -> Path | None:
    """Make the file; where that cannot be, say so in one line and go on."""
    try:
        make(path)
    except GraphError as error:
        print(f"warning: no {path.name}: {error.sentence}", file=sys.stderr)
        return None
    return path
