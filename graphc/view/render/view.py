"""The contents of a page: views, one tab each, the steps of a view, and the facts of a node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One picture, and the same in plain words.

    In `svg` everything about one node is in `<g class="op ..." data-node="its name">`.
    """

    title: str
    svg: str
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """One tab of a page; of several steps it shows one at a time."""

    id: str
    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The side panel's text about a node; `rows` are its lines in order, each with its name."""

    name: str
    op: str
    type: str
    line: str
    """The user's file:line with the text of the source."""
    rows: tuple[tuple[str, str], ...] = ()
