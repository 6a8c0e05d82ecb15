"""A net as plain data: the calls that declare it, which can be made, printed and changed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc as gc

from . import loops

MODULES = {"gc": gc, "operator": operator, "loops": loops}


@dataclass(frozen=True)
class Ref:
    """An earlier result, by name."""

    name: str


@dataclass(frozen=True)
class Rows:
    """The dimension of `times` entries for each row of the batch."""

    times: int = 1


@dataclass(frozen=True, eq=False)
class Call:
    """A call of `gc.relu`, `net.input`, `operator.add`, ..., and the names of its results."""

    results: tuple[str, ...]
    function: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of the results that it takes."""
        return tuple(
            leaf.name for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Ref)
        )

    def __str__(self) -> str:
        args = [text(a) for a in self.args] + [f"{k}={text(v)}" for k, v in self.kwargs.items()]
        made = f"{self.function}({', '.join(args)})"
        if not self.results:
            return made
        one = len(self.results) == 1
        return f"{', '.join(self.results)} = {made if one else f'flat({made})'}"


def change(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return a tree of arguments with each leaf replaced by what the function says."""
    if isinstance(tree, (tuple, list)):
        return type(tree)(change(item, leaf) for item in tree)
    if isinstance(tree, Mapping):
        return {key: change(item, leaf) for key, item in tree.items()}
    return leaf(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Yield all leaves of a tree of arguments."""
    if isinstance(tree, (tuple, list)):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, Mapping):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def flat(results: Any) -> list[Any]:
    """Return results as one list, whatever tuples and lists they stand in."""
    return list(leaves(results))


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


def text(tree: Any) -> str:
    """Return the Python source of arguments."""
    if isinstance(tree, Ref):
        return tree.name
    if isinstance(tree, Rows):
        return "gc.N" if tree.times == 1 else f"{tree.times} * gc.N"
    if isinstance(tree, np.ndarray):
        return f"np.array({tree.tolist()!r}, {str(tree.dtype)!r})"
    if isinstance(tree, list):
        return f"[{', '.join(map(text, tree))}]"
    if isinstance(tree, tuple):
        return f"({', '.join(map(text, tree))}{',' if len(tree) == 1 else ''})"
    return repr(tree)


def made(calls: tuple[Call, ...], dtype: str) -> tuple[gc.Net, dict[str, gc.Value]]:
    """Return the net that the calls declare, and its values by name."""
    net = gc.Net("random", dtype=dtype)
    values: dict[str, gc.Value] = {}
    for call in calls:
        make(net, values, call)
    return net, values


def make(net: gc.Net, values: dict[str, gc.Value], call: Call) -> list[gc.Value]:
    """Make one call, keep its results by name, and return them."""

    def value(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return values[leaf.name]
        return leaf.times * gc.N if isinstance(leaf, Rows) else leaf

    where, _, name = call.function.partition(".")
    function = getattr(net if where == "net" else MODULES[where], name)
    found = flat(function(*change(call.args, value), **change(call.kwargs, value)))
    values.update(zip(call.results, found, strict=bool(call.results)) if call.results else ())
    return found


def source(calls: tuple[Call, ...], dtype: str) -> str:
    """Return a program that declares the net."""
    lines = [
        "import operator",
        "import numpy as np",
        "import graphc as gc",
        "from tests.tools.random_nets import loops",
        "from tests.tools.random_nets.calls import flat",
        f'net = gc.Net("random", dtype="{dtype}")',
    ]
    return "\n".join([*lines, *map(str, calls)]) + "\n"
