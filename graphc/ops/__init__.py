"""All ops and layers of graphc, one family a file.

An op registers itself in `OPS` when its file is imported.  `graphc` exports the functions in
`__all__` of each file; a name that would hide a builtin ends in `_` here: `max_` is `graphc.max`.
"""

from __future__ import annotations

import importlib
import pkgutil

from graphc.ir.op import BUILT_IN as OPS

__all__ = ["FUNCTIONS", "OPS"]

_FILES = [importlib.import_module(f.name) for f in pkgutil.walk_packages(__path__, f"{__name__}.")]

FUNCTIONS = {
    name.removesuffix("_"): getattr(file, name)
    for file in _FILES
    for name in getattr(file, "__all__", ())
}
"""The functions that `graphc` exports from here, by their names there."""
