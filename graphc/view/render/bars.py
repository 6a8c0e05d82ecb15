"""Bars of seconds, each with the least time that the machine's limits allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from graphc.view.profile.verdict import RULE
from graphc.view.render.shapes import (
    WIDTH,
    about,
    document,
    group,
    human_seconds,
    line,
    rect,
    ticks,
    words,
)
from graphc.view.render.words import short, shown

LEFT, RIGHT = 250.0, 300.0
TOP, ROW = 78.0, 18.0
LABEL = 32
LINE = 15.0
_RULE = wrap(f"bound by {RULE}", 138)


@dataclass(frozen=True, slots=True)
class Bar:
    """An instruction or a layer: its seconds, its share of all, the least that it could take."""

    node: str
    label: str
    title: str
    seconds: float
    share: float
    least: float
    note: str


def bars_svg(name: str, caption: str, bars: Sequence[Bar], more: str) -> str:
    """Return one row for each bar, in the given order; `more` describes the bars left out."""
    height = TOP + ROW * len(bars) + 64 + LINE * len(_RULE)
    return document(shown(name), f"{name}: {caption}", height, _drawn(name, caption, bars, more))


def _drawn(name: str, caption: str, bars: Sequence[Bar], more: str) -> Iterator[str]:
    yield words(14, 22, short(name, 90), size=15, bold=True)
    yield words(14, 42, caption, "muted")
    yield from _legend()
    most = max((bar.seconds for bar in bars), default=0.0) or 1.0
    across = (WIDTH - LEFT - RIGHT) / most
    bottom = TOP + ROW * len(bars) + 4
    yield rect(LEFT, TOP - 4, WIDTH - LEFT - RIGHT, bottom - TOP + 4, "frame", "edge")
    for at in ticks(most * 1e6, 4):
        x = LEFT + at * 1e-6 * across
        yield line(x, TOP - 4, x, bottom + 4, "edge")
        yield words(x, bottom + 17, human_seconds(at * 1e-6) if at else "0", "muted", "middle")
    for i, bar in enumerate(bars):
        drawn = _row(bar, TOP + i * ROW, across)
        yield (
            about(bar.node, "time", bar.title, drawn)
            if bar.node
            else group("time", bar.title, drawn)
        )
    if more:
        yield words(14, bottom + 40, more, "muted")
    for i, text in enumerate(_RULE):
        yield words(14, bottom + 62 + i * LINE, text, "muted", size=11)


def _legend() -> Iterator[str]:
    x = WIDTH - RIGHT + 10
    yield words(x, TOP - 10, f"{'time':>8} {'share':>6} {'roof':>5} bound by", "muted")
    yield rect(14, 53, 18, 10, "removed", "", 'fill-opacity="0.45"')
    yield words(38, 62, "time", "muted", size=11)
    yield rect(84, 53, 18, 10, "forward")
    yield words(108, 62, "of it, what arithmetic or bytes need at the peak", "muted", size=11)


def _row(bar: Bar, y: float, across: float) -> Iterator[str]:
    yield rect(8, y, WIDTH - 16, ROW, "", mark="area")
    yield words(LEFT - 8, y + 13, short(bar.label, LABEL), anchor="end")
    yield rect(LEFT, y + 3, bar.seconds * across, ROW - 6, "removed", "", 'fill-opacity="0.45"')
    if bar.least * across >= 0.3:
        yield rect(LEFT, y + 6, bar.least * across, ROW - 12, "forward")
    text = f"{human_seconds(bar.seconds):>8} {bar.share:>6.1%} {bar.note}"
    yield words(WIDTH - RIGHT + 10, y + 13, text)
