"""One self-contained page: pictures in tabs, the layers as a table, and a panel for each node."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from graphc.view.render.finish import slim
from graphc.view.render.style import DARK, FAMILY, LIGHT, escape, stylesheet, variables


@dataclass(frozen=True, slots=True)
class Step:
    """One picture, and its description in words.

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


def page_text(name: str, views: Sequence[View], table: str, data: str, note: str = "") -> str:
    """Return the page: a tab for each view and one for the table; `page.js` reads `data`.

    The page loads nothing from outside the file and runs no script but its own; its policy makes
    the browser enforce both.
    """
    title = escape(name)
    noted = f'<p class="note">{html.escape(note)}</p>\n' if note else ""
    script = files(__name__).joinpath("page.js").read_text("utf-8")
    tabs = [(view.id, view.title) for view in views] + [("layers", "Layers")]
    sections = [_section(view, i == 0) for i, view in enumerate(views)]
    sections.append(_panel("layers", f'<div class="port" tabindex="0">{table}</div>', not views))
    return (
        f'{_HEAD}<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n'
        f"<title>{title}</title>\n<style>\n{_styles()}</style>\n"
        f"<noscript><style>[hidden] {{ display: block !important }}</style></noscript>\n"
        f"</head>\n<body>\n<header>\n<h1>{title}</h1>\n{_tabs(tabs)}\n{_SEARCH}\n</header>\n"
        f"{noted}<main>\n{''.join(sections)}{_ASIDE}\n</main>\n"
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""

_SEARCH = """\
<form role="search">
<input type="search" id="search" placeholder="Search (/), keys (?)" autocomplete="off" \
spellcheck="false" aria-label="Search nodes by name, op, type or line" aria-describedby="found">
<output id="found" aria-live="polite"></output>
</form>"""

_ASIDE = """\
<aside id="panel" aria-label="Node" tabindex="-1" hidden>
<button type="button" id="close" aria-label="Close the panel" title="Close (Esc)">\u00d7</button>
<div id="facts"></div>
</aside>"""

_ZOOM = """\
<span class="zoom"><button type="button" data-zoom="-1" aria-label="Smaller" \
title="Smaller (-)">\u2212</button><button type="button" data-zoom="0" aria-label="Fit" \
title="Fit the width (0)">Fit</button><button type="button" data-zoom="1" aria-label="Larger" \
title="Larger (+)">+</button></span>"""


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _styles() -> str:
    own = files(__name__).joinpath("page.css").read_text("utf-8")
    return (
        f":root {{ {variables(LIGHT)} --mono: {FAMILY}; color-scheme: light dark; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}\n"
        f"@media print {{ :root, .graphc {{ {variables(LIGHT)} }} }}\n"
        f"{stylesheet()}{own}"
    )


def _tabs(tabs: Sequence[tuple[str, str]]) -> str:
    buttons = "".join(
        f'<button type="button" role="tab" id="tab-{id}" aria-controls="view-{id}"'
        f' aria-selected="{str(i == 0).lower()}" tabindex="{0 if i == 0 else -1}">'
        f"{html.escape(title)}</button>"
        for i, (id, title) in enumerate(tabs)
    )
    return f'<nav role="tablist" aria-label="Views">{buttons}</nav>'


def _panel(id: str, inside: str, first: bool) -> str:
    hidden = "" if first else " hidden"
    return (
        f'<section role="tabpanel" id="view-{id}" aria-labelledby="tab-{id}"{hidden}>\n'
        f"{inside}\n</section>\n"
    )


def _section(view: View, first: bool) -> str:
    label = f"{view.title}: arrow keys move the picture, plus and minus zoom, Tab goes to nodes"
    figures = "".join(_figure(step, i) for i, step in enumerate(view.steps))
    inside = (
        f'<div class="bar">{_slider(view)}{_ZOOM}</div>\n'
        f'<div class="port" tabindex="0" role="region" aria-label="{html.escape(label)}">'
        f"{figures}</div>"
    )
    return _panel(view.id, inside, first)


def _slider(view: View) -> str:
    if len(view.steps) == 1:
        return f'<span class="step">{escape(view.steps[0].title)}</span>'
    return (
        f'<label class="slider"><span class="count"></span><input type="range" min="0"'
        f' max="{len(view.steps) - 1}" value="0" aria-label="Step of {html.escape(view.title)}"'
        f' title="Earlier ([), later (])"></label>'
        f'<output class="step">{escape(view.steps[0].title)}</output>'
    )


def _figure(step: Step, index: int) -> str:
    """Return the picture, then its words, which appear in the picture's place when asked for."""
    title = escape(step.title)
    hidden = " hidden" if index else ""
    return (
        f'<figure data-title="{title}"{hidden}>\n{slim(step.svg)}'
        f"{_in_words(step, 'In words')}</figure>\n"
    )


def simple_page(name: str, steps: Sequence[Step]) -> str:
    """Return a page of pictures one below the other, each with its words, without a script."""
    title = escape(name)
    parts = "\n".join(
        f"<section>\n<h2>{escape(step.title)}</h2>\n<figure>\n{step.svg}</figure>\n"
        f"{_in_words(step, 'The same in words')}\n</section>"
        for step in steps
    )
    return (
        f"{_HEAD}<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{parts}\n</main>\n</body>\n</html>\n"
    )


def _in_words(step: Step, summary: str) -> str:
    text = html.escape(step.text)
    return f"<details><summary>{summary}</summary><pre>{text}</pre></details>"


_STYLE = """\
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
  background: #ffffff; color: #1b2430; }
@media (prefers-color-scheme: dark) { body { background: #12161c; color: #e8edf3; } }
figure { margin: 0; overflow-x: auto; }
pre { overflow-x: auto; }
"""
