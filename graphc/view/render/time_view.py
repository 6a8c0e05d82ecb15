"""The time of a program as bars of layers and of instructions, and as heat on the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from graphc.base.errors import counted
from graphc.view.measure import RULE
from graphc.view.render.finish import SVG
from graphc.view.render.layers import LayerIndex
from graphc.view.render.page import Step, View
from graphc.view.render.style import (
    LIGHT,
    WIDTH,
    document,
    group,
    human_seconds,
    line,
    printable,
    rect,
    short,
    ticks,
    words,
)

if TYPE_CHECKING:
    from graphc.view.profile import Profile, Timed

MOST = 60
"""The most instructions that are drawn: the longest, in order; the others are summed up."""

LEFT, RIGHT = 250.0, 300.0
TOP, ROW = 78.0, 18.0
LABEL = 32
LINE = 15.0
_RULE = wrap(f"bound by {RULE}", 138)
FAINTEST, DARKEST = 0.06, 0.5
LEAST_NUMBERED = 0.005
"""The smallest share of the time that is shown as a number."""

Element = ElementTree.Element


def time_view(profile: Profile, graph_svg: str = "") -> View:
    """Return a tab with the layers, the instructions, and the graph if it is already drawn."""
    steps = [_layers(profile), _instructions(profile)]
    if graph_svg:
        text = "The same times on the graph, hotter where more of the time goes."
        steps.append(Step("on the graph", heated(graph_svg, profile), text))
    return View("time", "Time", tuple(steps))


def times_svg(profile: Profile) -> str:
    """Return the bars of the instructions."""
    return _instructions(profile).svg


def _instructions(profile: Profile) -> Step:
    name = f"{profile.plan.declared.name}: time of {profile.name!r}"
    caption = f"{len(profile.timed)} instructions in order, {_sum(profile)}"
    bars = [_bar(timed, profile) for timed in profile.timed]
    return Step("instructions", _longest(name, caption, bars, "shorter ones"), str(profile))


def _sum(profile: Profile) -> str:
    rows = f"{profile.n} row{'' if profile.n == 1 else 's'}"
    return f"{human_seconds(profile.total)} in all, {rows}, {profile.plan.backend}"


def _longest(name: str, caption: str, bars: Sequence[Bar], others: str) -> str:
    """Return the picture of the longest bars, a row each, in order; `others` are summed up."""
    longest = set(sorted(range(len(bars)), key=lambda i: (-bars[i].seconds, i))[:MOST])
    rest = [bar.seconds for i, bar in enumerate(bars) if i not in longest]
    more = f"and {len(rest):,} {others}, {human_seconds(sum(rest))} together" if rest else ""
    drawn = _drawn(name, caption, [bars[i] for i in sorted(longest)], more)
    height = TOP + ROW * len(longest) + 64 + LINE * len(_RULE)
    return document(printable(name), f"{name}: {caption}", height, drawn)


def _bar(found: Timed, profile: Profile) -> Bar:
    title = "\n".join([_label(found), *time_lines(found, profile)])
    share = found.seconds / (profile.total or 1.0)
    return Bar(
        found.instr.node, _label(found), title, found.seconds, share, found.roof, found.verdict
    )


def _label(found: Timed) -> str:
    others = len(found.nodes) - 1
    return printable(found.instr.node) + (f" +{others}" if others else "")


def _layers(profile: Profile) -> Step:
    bars = []
    for name, (seconds, least, verdicts) in _by_layer(profile):
        share = seconds / (profile.total or 1.0)
        most = max(verdicts, key=lambda word: (verdicts[word], word))
        label = printable(name) or "updates and counters"
        title = f"{label}\n{human_seconds(seconds)}, {share:.1%} of {profile.name}"
        roof = least / seconds if seconds else 0.0
        bars.append(Bar(name, label, title, seconds, share, roof, most))
    name = f"{profile.plan.declared.name}: time of each layer"
    caption = (
        f"forward, backward and update, {_sum(profile)}; a kernel's time is shared by its nodes"
    )
    lines = [f"{bar.label}: {human_seconds(bar.seconds)}, {bar.share:.1%}" for bar in bars]
    text = "\n".join([caption, *lines])
    return Step("layers", _longest(name, caption, bars, "others"), text)


def _by_layer(profile: Profile) -> Iterator[tuple[str, tuple[float, float, dict[str, float]]]]:
    """Yield a layer's seconds, least seconds and seconds by verdict; nodes share kernels' times."""
    graph = profile.program.graph
    index = LayerIndex(profile.plan.declared, graph, graph.forward())
    found: dict[str, tuple[float, float, dict[str, float]]] = {}
    for timed in profile.timed:
        part = timed.seconds / len(timed.nodes)
        for node in timed.nodes:
            layer = index.layer(node)
            layer = layer if layer in profile.plan.declared else ""
            seconds, least, verdicts = found.get(layer, (0.0, 0.0, {}))
            verdicts[timed.verdict] = verdicts.get(timed.verdict, 0.0) + part
            found[layer] = seconds + part, least + part * timed.roof, verdicts
    order: Mapping[str, int] = {n.name: i for i, n in enumerate(profile.plan.declared)}
    yield from sorted(found.items(), key=lambda item: order.get(item[0], len(order)))


@dataclass(frozen=True, slots=True)
class Bar:
    """An instruction or a layer: its seconds, its share of all, and what limits it."""

    node: str
    label: str
    title: str
    seconds: float
    share: float
    roof: float
    """The share of its time that it needs at least."""
    verdict: str


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
        yield group("time", bar.title, drawn, bar.node)
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
    least = min(bar.roof, 1.0) * bar.seconds * across
    if least >= 0.3:
        yield rect(LEFT, y + 6, least, ROW - 12, "forward")
    text = f"{human_seconds(bar.seconds):>8} {bar.share:>6.1%} {bar.roof:>5.0%} {bar.verdict}"
    yield words(WIDTH - RIGHT + 10, y + 13, text)


def heated(svg: str, profile: Profile) -> str:
    """Return a drawn graph with the share of the time on each node that an instruction computes.

    A kernel of several nodes gives all of them its heat, and its number to the last one drawn.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)
    timed = {printable(name): found for name, found in profile.by_node.items()}
    hottest = max((t.seconds for t in profile.timed), default=0.0) or 1.0
    numbered: dict[int, Element] = {}
    for element in root.iter(f"{{{SVG}}}g"):
        found = timed.get(element.get("data-node", ""))
        area = element.find(f"{{{SVG}}}rect[@class='area']")
        if found is not None and area is not None:
            element.insert(1, _glow(area, found.seconds / hottest))
            title = element.find(f"{{{SVG}}}title")
            if title is not None:
                title.text = "\n".join([title.text or "", *time_lines(found, profile)])
            numbered[id(found)] = element
    shares = {id(t): t.seconds / (profile.total or 1.0) for t in profile.timed}
    for key, element in numbered.items():
        if shares[key] >= LEAST_NUMBERED:
            element.append(_number(element, shares[key]))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _glow(area: Element, heat: float) -> Element:
    place = {key: area.get(key, "0") for key in ("x", "y", "width", "height")}
    opacity = f"{FAINTEST + (DARKEST - FAINTEST) * heat:.2f}"
    marks = {"class": "heat fill-removed", "fill": LIGHT["removed"], "fill-opacity": opacity}
    return ElementTree.Element(f"{{{SVG}}}rect", place | marks)


def time_lines(found: Timed, profile: Profile) -> Iterator[str]:
    """Yield lines about the time of an instruction."""
    share = found.seconds / (profile.total or 1.0)
    others = len(found.nodes) - 1
    with_others = f", with {counted(others, 'other node')}" if others else ""
    yield f"{human_seconds(found.seconds)}, {share:.1%} of {profile.name}{with_others}"
    yield f"{found.roof:.0%} of what the machine's limits allow, bound by {found.verdict}"
    work = found.cost
    yield f"{work.flops / 1e3:,.1f} kFLOP, {work.bytes / 1e3:,.1f} kB read and written"


def _number(element: Element, share: float) -> Element:
    area = element.find(f"{{{SVG}}}rect[@class='area']")
    assert area is not None
    x, y, wide, high = (float(area.get(key, "0")) for key in ("x", "y", "width", "height"))
    place = {"x": f"{x + wide + 1:.2f}", "y": f"{y + high - 5:.2f}", "font-size": "9"}
    marks = {"font-weight": "bold", "class": "fill-removed", "fill": LIGHT["removed"]}
    text = ElementTree.Element(f"{{{SVG}}}text", place | marks)
    text.text = f"{min(share, 0.99):.0%}"
    return text
