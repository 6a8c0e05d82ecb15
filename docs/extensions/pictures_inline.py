"""graphc's SVG pictures as part of the page, so that they have tooltips and follow its theme.

A picture in an <img> would follow the theme of the system, not the one chosen in the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes

from graphc.view.render.style import DARK, LIGHT, variables

_MARK = 'class="graphc"'


def inline(app: Any, doctree: nodes.document, docname: str) -> None:
    """Replace every image of a picture by the picture."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir, image["uri"])
        if path.suffix == ".svg" and _MARK in (text := path.read_text())[:2000]:
            image.replace_self(nodes.raw("", _block(text), format="html"))


def _block(svg: str) -> str:
    """Wide pictures scroll in a block of their own, which the keyboard reaches."""
    return f'<div class="picture" tabindex="0">{svg[svg.index("<svg") :]}</div>'


def write_theme(app: Any) -> None:
    """The colours of pictures under the theme that the page was switched to."""
    rules = (
        f'body[data-theme="{theme}"] .graphc {{ {variables(colours)} color-scheme: {theme}; }}\n'
        for theme, colours in (("light", LIGHT), ("dark", DARK))
    )
    folder = Path(app.outdir, "_static")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pictures.css").write_text("".join(rules))


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-resolved", inline)
    app.connect("builder-inited", write_theme)
    app.add_css_file("pictures.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
