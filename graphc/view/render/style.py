"""Colours, fonts, safe text, lines of text and SVG shapes: the look that all pictures share."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from graphc.ir.graph import Node

FONT = "Courier"
"""The font for layout, with the metrics of all monospaced fonts: an advance of 0.6 em."""
FAMILY = 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'

SHORT = 36
"""The number of characters to which a long text is cut."""
WIDTH = 960
NARROWEST = 720
"""The width in pixels below which a picture scrolls rather than shrink to unreadable text."""
SIZE = 12.0
ADVANCE = 0.6 * SIZE
"""The width of a character of that size, in every monospaced font."""

ADVANCE_11 = 6.62
"""That of a character of 11 points, as Graphviz counts it."""

COLOURS = {
    "paper": ("#ffffff", "#12161c"),
    "frame": ("#f6f7f9", "#1a2028"),
    "block": ("#fcfcfd", "#161b22"),
    "edge": ("#d4d9e0", "#39424e"),
    "ink": ("#1b2430", "#e8edf3"),
    "muted": ("#5d6877", "#9aa7b6"),
    "card": ("#fefefe", "#202731"),
    "input-fill": ("#fbf3dc", "#3a311a"),
    "input": ("#8a6410", "#e3bd62"),
    "forward-fill": ("#e3eefb", "#1c3350"),
    "forward": ("#1f5fa8", "#7db4f0"),
    "backward-fill": ("#fbe9e2", "#472a20"),
    "backward": ("#a8431f", "#f09a78"),
    "wrt-fill": ("#f3e8f8", "#3a2747"),
    "wrt": ("#7a3a9e", "#cf9bec"),
    "saved": ("#3f7051", "#86c29b"),
    "mark": ("#0b6b50", "#5fd0ab"),
    "added": ("#1a7f37", "#57c979"),
    "added-fill": ("#e0f4e5", "#15371f"),
    "removed": ("#b42318", "#ff8a80"),
    "removed-fill": ("#fdeae8", "#451c1a"),
    "changed": ("#8f5600", "#f0b959"),
    "changed-fill": ("#fff1d2", "#423010"),
    "renamed": ("#4a52b8", "#a3abff"),
    "renamed-fill": ("#ecedfb", "#262a52"),
}
"""Each colour in light and in dark."""
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
"""The light colours; each occurs once, so that a drawn colour identifies its variable."""
DARK = {name: dark for name, (_, dark) in COLOURS.items()}


def variables(colours: dict[str, str]) -> str:
    """Return the colours as CSS custom properties."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def stylesheet() -> str:
    """Return the rules of an SVG; they name no element outside `.graphc`."""
    fills = "\n".join(
        f".graphc .fill-{name} {{ fill: var(--{name}); }} "
        f".graphc .line-{name} {{ stroke: var(--{name}); }}"
        for name in LIGHT
    )
    return (
        f".graphc {{ {variables(LIGHT)} color-scheme: light dark; }}\n"
        "svg.graphc { max-width: 100%; height: auto; }\n"
        f"@media (prefers-color-scheme: dark) {{ .graphc {{ {variables(DARK)} }} }}\n"
        # A halo, so that a label can be read where lines pass behind it.
        ".graphc .saved text, .graphc .heading text "
        "{ paint-order: stroke; stroke: var(--frame); stroke-width: 4px; }\n"
        f".graphc text {{ font-family: {FAMILY}; white-space: pre; }}\n{fills}\n"
    )


def printable(text: str) -> str:
    """Escape characters that do not fit in a line, such as controls and direction marks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_plain(char) else _escaped(char) for char in text)


def short(text: str, width: int = SHORT) -> str:
    """Return the printable text, without its middle if it is too long."""
    line = printable(text)
    if len(line) > width:
        half = (width - 1) // 2
        line = f"{line[:half]}~{line[-half:]}"
    return line


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names, `most` of them, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def escape(text: str) -> str:
    """Return the printable text for markup: HTML, SVG, or DOT's HTML-like labels."""
    return html.escape(printable(text))


END = 14
"""The font size of the space that ends each line, larger than all text on cards."""


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of a line: plain text, bold, crossed out, or in a colour of the style's table."""

    text: str
    colour: str = "ink"
    bold: bool = False
    struck: bool = False

    def markup(self) -> str:
        """Return the piece as HTML-like text, in which spaces keep their width."""
        # DOT replaces \N, \G and the like by names; a doubled backslash is a literal one.
        text = escape(self.text).replace("\\", "\\\\")
        if self.bold and text:
            text = f"<b>{text}</b>"
        if self.colour != "ink" and text:
            text = f'<font color="{LIGHT[self.colour]}">{text}</font>'
        return f"<s>{text}</s>" if self.struck and text else text


Line = tuple[Run, ...]


def line_text(line: Line) -> str:
    """Return a line as plain text."""
    return "".join(run.text for run in line)


def muted(text: str) -> Run:
    """Return text in the colour for secondary information."""
    return Run(text, "muted")


def struck(text: str, width: int) -> Run:
    """Return text with a line through it."""
    return Run(short(text, width), "muted", struck=True)


def line_markup(line: Line) -> str:
    """Return a line as HTML-like text."""
    return "".join(run.markup() for run in line)


def lines_markup(lines: Sequence[Line]) -> str:
    """Return lines as the text of one cell, each left-aligned; a larger space spreads them."""
    end = f'<font point-size="{END}"> </font><br align="left"/>'
    return "".join(f"{line_markup(line)}{end}" for line in lines)


def sentence(node: Node) -> str:
    """Return a node in one line: name, op, type, and the user's line."""
    where = f", declared at {node.loc}" if node.loc else ""
    return printable(f"{node.name}: {node.op.name}, {node.type}{where}")


@cache
def _is_plain(char: str) -> bool:
    # Cc controls, Cf invisible and direction marks, Cs halves, Co/Cn none, Zl Zp line ends;
    # the joiner inside emoji is the one format character that readers need.
    return char == "\u200d" or unicodedata.category(char) not in (
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    )  # fmt: skip


def _escaped(char: str) -> str:
    code = ord(char)
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    )


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def paint(attribute: str, colour: str) -> tuple[str, str]:
    """Return a colour as an attribute, for viewers without CSS, and the class of its name."""
    kind = "fill" if attribute == "fill" else "line"
    return f'{attribute}="{LIGHT[colour]}"', f"{kind}-{colour}"


def _numbers(**values: float) -> str:
    return " ".join(f'{key}="{number(value)}"' for key, value in values.items())


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
    classes = f'class="{names}"' if names else ""
    place = _numbers(x=x, y=y, width=width, height=height)
    return f"<rect {' '.join(filter(None, (classes, place, fills, strokes, more)))}/>"


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    """Return a straight line."""
    strokes, name = paint("stroke", colour)
    return f'<line class="{name}" {_numbers(x1=x1, y1=y1, x2=x2, y2=y2)} {strokes}/>'


def words(
    x: float, y: float, text: str, colour: str = "ink", anchor: str = "start", size: float = SIZE,
    bold: bool = False,
) -> str:  # fmt: skip
    """Return one line of text with its base line at `y`."""
    fills, name = paint("fill", colour)
    where = _numbers(x=x, y=y) + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    font = f'font-size="{number(size)}"' + (' font-weight="bold"' if bold else "")
    return f'<text class="{name}" {where} {font} {fills}>{escape(text)}</text>'


def group(role: str, title: str, drawn: Iterable[str], node: str = "") -> str:
    """Return an SVG group; a page can select one about a node.  `title` may have lines."""
    attributes = f'class="op {role}" data-node="{escape(node)}"' if node else f'class="{role}"'
    text = "\n".join(escape(line) for line in title.split("\n"))
    return f"<g {attributes}><title>{text}</title>{''.join(drawn)}</g>"


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
