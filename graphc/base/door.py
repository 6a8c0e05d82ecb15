"""Late imports: what is below asks here, by a name, for what is above.

A package of graphc imports only packages below its own.  A method such as `plan.render` needs one
above, and a product of a dtype that NumPy lacks the functions of that dtype.  `graphc.features` has
the names and what is behind them; each is imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from graphc.base.errors import GraphError

OPERATORS = {
    "abs": "functions.abs_",
    "add": "elementwise.add",
    "and": "logic.logical_and",
    "div": "elementwise.div",
    "equal": "select.equal",
    "floor_div": "arithmetic.floor_div",
    "greater": "select.greater",
    "greater_equal": "select.greater_equal",
    "less": "select.less",
    "less_equal": "select.less_equal",
    "matmul": "linalg.matmul",
    "mod": "arithmetic.mod",
    "mul": "elementwise.mul",
    "neg": "elementwise.neg",
    "not": "logic.logical_not",
    "not_equal": "select.not_equal",
    "or": "logic.logical_or",
    "power": "arithmetic.power",
    "slice": "slicing.slice_",
    "sub": "elementwise.sub",
    "xor": "logic.logical_xor",
}
"""The functions of graphc.ops that implement Python's operators on values."""

LATE = {
    **{f"Value.{name}": f"graphc.ops.{path}" for name, path in OPERATORS.items()},
    "ops": "graphc.ops.FUNCTIONS",
    "unbroadcast": "graphc.ops.sums.unbroadcast",
}
"""The path of what the core asks for in rooms of its own, by name."""
FEATURES = "graphc.features"
"""The module with the table of what is above, `PARTS`; the core runs without it."""


@cache
def parts() -> Mapping[str, str]:
    """Return the paths of all that is asked for, by name; only those of the core if it is alone."""
    try:
        return {**LATE, **import_module(FEATURES).PARTS}
    except ModuleNotFoundError as error:
        if error.name != FEATURES:
            raise
        return LATE


def higher(name: str) -> Any:
    """Return the object with this name; raise GraphError if it is not a part of this copy."""
    path = parts().get(name)
    if path is None:
        raise GraphError(f"{name!r} is not a part of this copy of graphc")
    owner, own = _place(path)
    return getattr(owner, own)


@cache
def _place(path: str) -> tuple[Any, str]:
    """Return the module or class of an object, imported, and the object's name there."""
    resolve_name(path)
    owner, _, own = path.rpartition(".")
    return resolve_name(owner), own


def optional(name: str) -> Any | None:
    """Return the object with this name, or None if this copy has none."""
    return higher(name) if name in parts() else None


def ask(name: str, *args: Any) -> Any:
    """Call the function with this name, and return its result; None if the core stands alone."""
    function = optional(name)
    return None if function is None else function(*args)
