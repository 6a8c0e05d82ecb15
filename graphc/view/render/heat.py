"""Times on the graph's own picture: the hotter a line on a card, the more of the time it takes."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from graphc.view.profile.executor_profile import Profile, Timed
from graphc.view.render.pointing import SVG
from graphc.view.render.shapes import human_seconds
from graphc.view.render.style import LIGHT
from graphc.view.render.words import shown

FAINTEST, DARKEST = 0.06, 0.5
LEAST_TOLD = 0.005
"""The smallest share of the time that is shown as a number."""

Element = ElementTree.Element


def heated(svg: str, profile: Profile) -> str:
    """Return a drawn graph with the share of the time on each node that an instruction computes.

    A kernel of several nodes gives all of them its heat, and its number to the last one drawn.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)
    timed = {shown(name): found for name, found in profile.by_node.items()}
    hottest = max((t.seconds for t in profile.timed), default=0.0) or 1.0
    numbered: dict[int, Element] = {}
    for group in root.iter(f"{{{SVG}}}g"):
        found = timed.get(group.get("data-node", ""))
        area = group.find(f"{{{SVG}}}rect[@class='area']")
        if found is not None and area is not None:
            group.insert(1, _glow(area, found.seconds / hottest))
            _retitle(group, found, profile)
            numbered[id(found)] = group
    shares = {id(t): t.seconds / (profile.total or 1.0) for t in profile.timed}
    for key, group in numbered.items():
        if shares[key] >= LEAST_TOLD:
            group.append(_number(group, shares[key]))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _glow(area: Element, heat: float) -> Element:
    glow = ElementTree.Element(f"{{{SVG}}}rect")
    for key in ("x", "y", "width", "height"):
        glow.set(key, area.get(key, "0"))
    opacity = FAINTEST + (DARKEST - FAINTEST) * heat
    glow.attrib.update({"class": "heat fill-removed", "fill": LIGHT["removed"]})
    glow.set("fill-opacity", f"{opacity:.2f}")
    return glow


def _retitle(group: Element, found: Timed, profile: Profile) -> None:
    title = group.find(f"{{{SVG}}}title")
    if title is not None:
        title.text = "\n".join([title.text or "", *time_lines(found, profile)])


def time_lines(found: Timed, profile: Profile) -> Iterator[str]:
    """Yield lines with what is known of the time of an instruction."""
    share = found.seconds / (profile.total or 1.0)
    others = len(found.nodes) - 1
    with_others = f", with {others} other node{'s' * (others > 1)}" if others else ""
    yield f"{human_seconds(found.seconds)}, {share:.1%} of {profile.name}{with_others}"
    yield f"{found.roof:.0%} of what the machine's limits allow, bound by {found.verdict}"
    work = found.cost
    yield f"{work.flops / 1e3:,.1f} kFLOP, {work.bytes / 1e3:,.1f} kB read and written"


def _number(group: Element, share: float) -> Element:
    area = group.find(f"{{{SVG}}}rect[@class='area']")
    assert area is not None
    x, y, wide, high = (float(area.get(key, "0")) for key in ("x", "y", "width", "height"))
    text = ElementTree.Element(f"{{{SVG}}}text")
    text.attrib.update({"x": f"{x + wide + 1:.2f}", "y": f"{y + high - 5:.2f}", "font-size": "9"})
    text.attrib.update({"font-weight": "bold", "class": "fill-removed", "fill": LIGHT["removed"]})
    text.text = f"{min(share, 0.99):.0%}"
    return text
