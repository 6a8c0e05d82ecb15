"""All ops and layers of graphc: each file of this folder is a family of them.

An op notes itself in `OPS` when its file is imported.  What `__all__` of a file lists are functions
of `graphc` itself; a name that Python has already ends in `_` here: `max_` is `graphc.max`.
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
"""The functions of values by their names in `graphc`."""
