"""The time of a program as bars of layers and of instructions, and as heat on the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from graphc.base.errors import GraphError
from graphc.view.profile.executor_profile import Profile, Timed
from graphc.view.render.bars import Bar, bars_svg
from graphc.view.render.files import put
from graphc.view.render.heat import heated, time_lines
from graphc.view.render.homes import Homes
from graphc.view.render.shapes import human_seconds
from graphc.view.render.view import Step, View
from graphc.view.render.words import shown

MOST = 60
"""The most instructions that are drawn: the longest, in order; the others are summed up."""


def time_view(profile: Profile, graph_svg: str = "") -> View:
    """Return a tab with the layers, the instructions, and the graph if it is already drawn."""
    steps = [_layers(profile), _instructions(profile)]
    if graph_svg:
        text = "The same times on the graph, hotter where more of the time goes."
        steps.append(Step("on the graph", heated(graph_svg, profile), text))
    return View("time", "Time", tuple(steps))


def render_times(profile: Profile, path: str | Path) -> Path:
    """Write the times: .svg has the bars of the instructions, .html the plan's page with times."""
    target = Path(path)
    format = target.suffix.lower()
    if format == ".svg":
        return put(target, times_svg(profile).encode())
    if format == ".html":
        from graphc.view.render import html_text, plan_graph

        plan = profile.plan
        page = html_text(plan.declared, backward=plan_graph(plan), plan=plan, profile=profile)
        return put(target, page.encode())
    raise GraphError(
        f"cannot draw the times as {target.name!r}: the suffix says the format",
        hint="one of .svg, .html",
    )


def times_svg(profile: Profile) -> str:
    """Return the bars of the instructions."""
    return _instructions(profile).svg


def _instructions(profile: Profile) -> Step:
    timed, rest = _longest(profile.timed)
    bars = [_bar(found, profile) for found in timed]
    name = f"{profile.plan.declared.name}: time of {profile.name!r}"
    caption = f"{len(profile.timed)} instructions in order, {_sum(profile)}"
    more = ""
    if rest:
        seconds = sum(t.seconds for t in rest)
        more = f"and {len(rest):,} shorter ones, {human_seconds(seconds)} together"
    return Step("instructions", bars_svg(name, caption, bars, more), str(profile))


def _sum(profile: Profile) -> str:
    rows = f"{profile.n} row{'' if profile.n == 1 else 's'}"
    return f"{human_seconds(profile.total)} in all, {rows}, {profile.plan.backend}"


def _longest(timed: tuple[Timed, ...]) -> tuple[list[Timed], list[Timed]]:
    ranked = sorted(range(len(timed)), key=lambda i: (-timed[i].seconds, i))
    kept = set(ranked[:MOST])
    return (
        [t for i, t in enumerate(timed) if i in kept],
        [t for i, t in enumerate(timed) if i not in kept],
    )


def _bar(found: Timed, profile: Profile) -> Bar:
    title = "\n".join([_label(found), *time_lines(found, profile)])
    share = found.seconds / (profile.total or 1.0)
    least = min(found.roof * found.seconds, found.seconds)
    note = f"{found.roof:>5.0%} {found.verdict}"
    return Bar(found.instr.node, _label(found), title, found.seconds, share, least, note)


def _label(found: Timed) -> str:
    others = len(found.nodes) - 1
    return shown(found.instr.node) + (f" +{others}" if others else "")


def _layers(profile: Profile) -> Step:
    found = dict(_by_layer(profile))
    bars = []
    for name, (seconds, least, verdicts) in found.items():
        share = seconds / (profile.total or 1.0)
        most = max(verdicts, key=lambda word: (verdicts[word], word))
        label = shown(name) or "updates and counters"
        roof = least / seconds if seconds else 0.0
        title = f"{label}\n{human_seconds(seconds)}, {share:.1%} of {profile.name}"
        note = f"{roof:>5.0%} {most}"
        bars.append(Bar(name, label, title, seconds, share, min(least, seconds), note))
    kept = set(sorted(range(len(bars)), key=lambda i: (-bars[i].seconds, i))[:MOST])
    rest = [bar for i, bar in enumerate(bars) if i not in kept]
    more = ""
    if rest:
        seconds = sum(bar.seconds for bar in rest)
        more = f"and {len(rest):,} others, {human_seconds(seconds)} together"
    name = f"{profile.plan.declared.name}: time of each layer"
    caption = (
        f"forward, backward and update, {_sum(profile)}; a kernel's time is shared by its nodes"
    )
    lines = [f"{bar.label}: {human_seconds(bar.seconds)}, {bar.share:.1%}" for bar in bars]
    shown_bars = [bar for i, bar in enumerate(bars) if i in kept]
    return Step("layers", bars_svg(name, caption, shown_bars, more), "\n".join([caption, *lines]))


def _by_layer(profile: Profile) -> Iterator[tuple[str, tuple[float, float, dict[str, float]]]]:
    """Yield seconds, least seconds and seconds by verdict of each layer.

    A kernel's times are shared among its nodes.
    """
    graph = profile.program.graph
    homes = Homes(profile.plan.declared, graph, graph.forward())
    found: dict[str, tuple[float, float, dict[str, float]]] = {}
    for timed in profile.timed:
        part = timed.seconds / len(timed.nodes)
        for node in timed.nodes:
            layer = homes.layer(node)
            layer = layer if layer in profile.plan.declared else ""
            seconds, least, verdicts = found.get(layer, (0.0, 0.0, {}))
            verdicts[timed.verdict] = verdicts.get(timed.verdict, 0.0) + part
            found[layer] = seconds + part, least + part * timed.roof, verdicts
    order: Mapping[str, int] = {n.name: i for i, n in enumerate(profile.plan.declared)}
    yield from sorted(found.items(), key=lambda item: order.get(item[0], len(order)))
