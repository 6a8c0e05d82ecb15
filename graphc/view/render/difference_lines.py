"""The lines on a box of a difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.ir.difference import Kind, Pair
from graphc.ir.graph import Node
from graphc.ir.op import attributes
from graphc.ir.text.graph import word_of
from graphc.view.render.cards import Line, Run, muted
from graphc.view.render.sheet import Look, struck
from graphc.view.render.words import short

WIDTH = 32
MOST = 6
"""The most operands that a box lists."""
_MARKS: dict[Kind, str] = {"removed": "- ", "added": "+ ", "changed": "~ ", "renamed": "= "}


def pair_lines(pair: Pair, sources: Sequence[tuple[Pair, Look]]) -> Iterator[Line]:
    """Yield op and name, type, changed attributes, and the parameters and other sources read."""
    before, after = pair.before or pair.node, pair.after or pair.node
    yield _head(pair, *_names(pair, before, after))
    yield _type(pair, before, after)
    if pair.kind == "changed":
        yield from _attributes(before, after)
    if pair.kind != "equal":
        yield from _sources(pair, sources)


def folded_lines(pairs: Sequence[Pair]) -> Iterator[Line]:
    """Yield the same for several nodes: their number, and the first and the last of them."""
    first, last = pairs[0], pairs[-1]
    yield _head(first, Run(f" x {len(pairs):,}", bold=True))
    before, after = first.before or first.node, first.after or first.node
    if len({pair.node.type for pair in pairs}) == 1:
        yield _type(first, before, after)
    else:
        yield (muted("of several types"),)
    yield (muted(f"{short(first.node.name, 20)} ... {short(last.node.name, 20)}"),)


def _head(pair: Pair, *name: Run) -> Line:
    before, after = pair.before or pair.node, pair.after or pair.node
    old, new = word_of(type(before.op)), word_of(type(after.op))
    bold = pair.kind != "equal"
    mark = [Run(_MARKS[pair.kind], pair.kind, bold=True)] if bold else []
    if pair.kind == "removed":
        return (*mark, struck(old, WIDTH), *name)
    word = Run(short(new, WIDTH), "ink" if bold else "muted", bold)
    if old != new:
        return (*mark, struck(old, WIDTH), Run(" "), word, *name)
    return (*mark, word, *name)


def _names(pair: Pair, before: Node, after: Node) -> list[Run]:
    if before.name != after.name:
        return [Run(" "), struck(before.name, WIDTH), muted(f" {short(after.name, WIDTH)}")]
    return [muted(f" {short(pair.node.name, WIDTH)}")]


def _type(pair: Pair, before: Node, after: Node) -> Line:
    if before.type != after.type:
        return struck(str(before.type), WIDTH), Run(f" {after.type}")
    return (muted(str(pair.node.type)),)


def _attributes(before: Node, after: Node) -> Iterator[Line]:
    if type(before.op) is not type(after.op):
        return
    old, new = attributes(before.op), attributes(after.op)
    for key in new:
        if old[key] != new[key] and key not in ("shape", "dtype", "data"):
            yield muted(f"{key} "), struck(repr(old[key]), 16), Run(f" {short(repr(new[key]), 16)}")


def _sources(pair: Pair, sources: Sequence[tuple[Pair, Look]]) -> Iterator[Line]:
    """Yield operands without boxes: all of an added or removed node, else those that differ."""
    whole = pair.kind in ("removed", "added")
    some = [s for s in sources if whole or s[1] != "equal" or s[0].kind != "equal"]
    for source, look in some[:MOST]:
        name = short(source.node.name, WIDTH)
        if whole or look == "equal":
            yield (muted(f"  {name}"),)
        elif look == "removed":
            yield Run("  - ", "removed"), struck(name, WIDTH)
        else:
            yield Run("  + ", "added"), Run(name)
    if len(some) > MOST:
        yield (muted(f"  {len(some) - MOST} more"),)
