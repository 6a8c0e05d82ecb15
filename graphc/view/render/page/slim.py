"""An SVG without what the page has once for all of them: the stylesheet, colours, the font."""

from __future__ import annotations

import html
import re

from graphc.view.render.style import LIGHT, stylesheet

_FONT = re.compile(r' (?:font-family="Courier,monospace"|text-anchor="start"|xml:space="preserve")')
_COLOUR = re.compile(r' (?:fill|stroke)="(?:' + "|".join(LIGHT.values()) + ')"')
_TAG = re.compile(r"<[a-z][^<>]*>")
_PLACE = re.compile(r"\d{2,}\.\d{2,}")
"""Coordinates; a number below ten may be an opacity or the width of a line."""


def slim(svg: str) -> str:
    """Return the same picture for a page whose CSS has a class for every colour of the style.

    Only tags change, where text is escaped: there `<`, `>` and `"` are only themselves, and no name
    can look like an attribute.
    """
    style = stylesheet()
    for written in (style, html.escape(style, quote=False)):
        svg = svg.replace(f"<style>{written}</style>\n", "")
    svg = svg.replace("<svg ", '<svg font-size="11" ', 1)
    return _TAG.sub(lambda tag: _slim_tag(tag[0]), svg)


def _slim_tag(tag: str) -> str:
    if tag.startswith(("<svg", "<g")):  # these hold names, and too few colours to matter
        return tag
    tag = _COLOUR.sub("", _FONT.sub("", tag)).replace(' font-size="11.00"', "")
    return _PLACE.sub(lambda number: f"{float(number[0]):.1f}", tag).replace(" />", "/>")
