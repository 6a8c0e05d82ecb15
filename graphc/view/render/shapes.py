"""SVG text of our own: shapes, words, and a document themed like the graphs' pictures."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.view.render.style import LIGHT, stylesheet
from graphc.view.render.words import escape

WIDTH = 960
NARROWEST = 720
"""The width in pixels below which a picture scrolls rather than shrink to unreadable text."""
SIZE = 12.0
ADVANCE = 0.6 * SIZE
"""The width of a character of that size, in every monospaced font."""


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def paint(attribute: str, colour: str) -> tuple[str, str]:
    """Return a colour as an attribute, for viewers without CSS, and the class of its name."""
    kind = "fill" if attribute == "fill" else "line"
    return f'{attribute}="{LIGHT[colour]}"', f"{kind}-{colour}"


def rect(
    x: float, y: float, width: float, height: float, fill: str, line: str = "", more: str = "",
    mark: str = "",
) -> str:  # fmt: skip
    """Return a rectangle; `fill`, `line` are colour names, `more` is attributes, `mark` a class.

    A page shows an element with the mark "area" as pointed at.
    """
    fills, filled = paint("fill", fill) if fill else ('fill="none"', "")
    strokes, lined = paint("stroke", line) if line else ("", "")
    names = " ".join(filter(None, (mark, filled, lined)))
    places = zip(("x", "y", "width", "height"), map(number, (x, y, width, height)), strict=True)
    place = " ".join(f'{key}="{value}"' for key, value in places)
    classes = f'class="{names}"' if names else ""
    return f"<rect {' '.join(filter(None, (classes, place, fills, strokes, more)))}/>"


def line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    """Return a straight line."""
    strokes, name = paint("stroke", colour)
    ends = zip(("x1", "y1", "x2", "y2"), map(number, (x1, y1, x2, y2)), strict=True)
    place = " ".join(f'{key}="{value}"' for key, value in ends)
    return f'<line class="{name}" {place} {strokes}{" " * bool(more)}{more}/>'


def words(
    x: float, y: float, text: str, colour: str = "ink", anchor: str = "start", size: float = SIZE,
    bold: bool = False,
) -> str:  # fmt: skip
    """Return one line of text with its base line at `y`."""
    fills, name = paint("fill", colour)
    where = f'x="{number(x)}" y="{number(y)}"' + (
        f' text-anchor="{anchor}"' if anchor != "start" else ""
    )
    weight = ' font-weight="bold"' if bold else ""
    font = f'font-size="{number(size)}"'
    return f'<text class="{name}" {where} {font}{weight} {fills}>{escape(text)}</text>'


def about(node: str, role: str, title: str, drawn: Iterable[str]) -> str:
    """Return a group about one node, for pages to point at; `title` may have several lines."""
    return _group(f'class="op {role}" data-node="{escape(node)}"', title, drawn)


def group(role: str, title: str, drawn: Iterable[str]) -> str:
    """Return a group about several nodes."""
    return _group(f'class="{role}"', title, drawn)


def _group(attributes: str, title: str, drawn: Iterable[str]) -> str:
    said = "\n".join(escape(line) for line in title.split("\n"))
    return f"<g {attributes}><title>{said}</title>{''.join(drawn)}</g>"


def document(name: str, label: str, height: float, drawn: Iterable[str]) -> str:
    """Return the whole SVG; equal input gives equal text."""
    body = "\n".join(drawn)
    size = f'width="{WIDTH}" height="{number(height)}" viewBox="0 0 {WIDTH} {number(height)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="graphc" role="img"'
        f' aria-label="{escape(label)}" style="min-width: {NARROWEST}px"'
        f' font-family="Courier, monospace">\n<title>{escape(name)}</title>\n'
        f"<style>{stylesheet()}</style>\n"
        f"{rect(0, 0, WIDTH, height, 'paper')}\n{body}\n</svg>\n"
    )


def human_bytes(size: float) -> str:
    """Return bytes in the largest unit that fits, three digits at most: `391 kB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            value = size / scale
            return f"{value:.0f} {unit}" if value >= 99.5 else f"{value:.3g} {unit}"
    return f"{size:.0f} B"


def human_seconds(seconds: float) -> str:
    """Return a time in the unit that fits: `12.3 us`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def ticks(most: float, count: int = 6) -> list[float]:
    """Return round numbers from 0 up to `most`, about as many as `count`."""
    if most <= 0:
        return [0.0]
    rough = most / count
    power = 10.0 ** (len(f"{rough:.0f}") - 1)
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    return [i * step for i in range(int(most / step) + 1)]
