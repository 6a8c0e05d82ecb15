"""The text of differences, for reviews.

    fuse_affine_relu: 1 removed, 1 changed
    - affine_1: float32[N, 3] = affine(x, w, b)
    ~ relu_1: float32[N, 3] = relu(affine_1)
      relu_1: float32[N, 3] = affine_relu(x, w, b)

A line starts with - for a removed item, + for an added one, ~ for a changed one, with the new
form below it, and = for one that only has another name.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphc.ir.difference import KINDS, Difference, Pair, RootChange
from graphc.ir.graph import Node
from graphc.ir.text.graph import name_text, node_text

LONGEST = 240
"""A line is cut after this many characters: constants may hold many numbers."""


def difference_text(difference: Difference) -> str:
    """Return a line of counts and one or two a change; equal differences give equal text."""
    return "\n".join([counts_text(difference), *change_lines(difference)]) + "\n"


def counts_text(difference: Difference) -> str:
    """Return `1 removed, 2 added`, or `no difference`."""
    counts = ((difference.count(kind), kind) for kind in KINDS)
    words = [f"{count:,} {kind}" for count, kind in counts if count]
    if difference.roots and not words:
        return "the same nodes, other roots"
    return ", ".join(words) or "no difference"


def change_lines(difference: Difference) -> Iterator[str]:
    """Yield the lines of the changes alone, nodes first."""
    for pair in difference.changes:
        yield from pair_text(pair)
    for root in difference.roots:
        yield from _root_lines(root)


def pair_text(pair: Pair) -> Iterator[str]:
    """Yield the lines of a changed node as in `graph_text`, with a mark."""
    before, after = pair.before, pair.after
    if before is None or after is None:
        yield f"{'-' if after is None else '+'} {_line(pair.node)}"
    elif pair.kind == "renamed":
        yield f"= {name_text(before.name)} -> {name_text(after.name)}"
    else:
        yield f"~ {_line(before)}"
        yield f"  {_line(after)}"


def _line(node: Node) -> str:
    text = node_text(node)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _root_lines(root: RootChange) -> Iterator[str]:
    name = f"{root.what} {name_text(root.name)}" if root.name else root.what
    sign = " = " if root.name else " "
    if root.before:
        yield f"- {name}{sign}{_value(root, root.before)}"
    if root.after:
        yield f"+ {name}{sign}{_value(root, root.after)}"


def _value(root: RootChange, value: str) -> str:
    return name_text(value) if root.name else ", ".join(map(name_text, value.split(", ")))
