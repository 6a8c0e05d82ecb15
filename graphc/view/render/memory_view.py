"""The arena as a picture: rectangles over time and offset, and the step that needs the most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil, floor
from pathlib import Path

from graphc.base.errors import GraphError
from graphc.compiler.plan import Plan
from graphc.kernels.program import Program
from graphc.view.render.arena import ROLES, ArenaMap, Part, Role, arena_text
from graphc.view.render.page import Step, View, simple_page
from graphc.view.render.renderer import format_of, put
from graphc.view.render.style import (
    ADVANCE,
    WIDTH,
    document,
    group,
    human_bytes,
    line,
    listed,
    number,
    paint,
    printable,
    rect,
    short,
    ticks,
    words,
)

ORDER = ("step", "accumulate", "shard", "infer", "grad", "apply")

MOST_BUFFERS = 40_000
"""The most buffers of all programs together; above it, only the first program is drawn."""

LEFT, RIGHT = 76.0, 14.0
TOP, HEIGHT = 84.0, 380.0
GAP, STRIP = 46.0, 64.0
ROW = 17.0
MOST_ROWS = 10
"""The most buffers live at the peak that have a line each; the others are summed up."""
MOST_SINGLE = 1500
"""If there are more rectangles than this, small ones are drawn together too."""
SMALL = 40.0
"""The area below which a rectangle is small, in square pixels."""
MOST_TOGETHER = 800
"""If thin rectangles make more boxes than this, the pixels of the grid grow, up to four."""
NAMES = 6
"""The most names in the title of buffers that are drawn together."""
_LOOKS: dict[Role, tuple[str, str, str]] = {
    "forward": ("forward-fill", "forward", ""),
    "kept": ("saved", "saved", 'fill-opacity="0.2" stroke-dasharray="1.5 2" stroke-width="1.6"'),
    "backward": ("backward-fill", "backward", 'stroke-dasharray="6 3"'),
    "wrt": ("wrt-fill", "wrt", 'stroke-dasharray="10 2 2 2"'),
    "recomputed": ("forward-fill", "forward", 'fill-opacity="0.5" stroke-dasharray="3 1.5"'),
    "update": ("input-fill", "input", 'stroke-dasharray="2 4"'),
    "sent": ("edge", "muted", 'stroke-width="0.6"'),
    "loop": ("frame", "ink", 'stroke-dasharray="1 1"'),
}
"""The colours of a buffer's area and edge, and further attributes."""
_LEGEND: dict[Role, str] = {
    "forward": "values",
    "kept": "kept for backward",
    "backward": "gradients",
    "wrt": "of parameters",
    "recomputed": "recomputed",
    "update": "updates",
    "sent": "sent",
    "loop": "workspace",
}


Box = tuple[float, float, float, float]
"""The left, top, right and bottom of a rectangle."""


def memory_view(plan: Plan) -> View:
    """Return a tab with a picture for each program that has an arena."""
    return View("memory", "Memory", tuple(arena_steps(plan.programs)))


def arena_steps(programs: Mapping[str, Program]) -> Iterator[Step]:
    """Yield a picture for each program that has an arena, the most often run program first.

    For a huge net, yield only the first program's; its words say so.
    """
    names = [n for n in sorted(programs, key=ORDER.index) if programs[n].arena.nbytes]
    huge = sum(len(programs[name].buffers) for name in names) > MOST_BUFFERS
    for name in names[:1] if huge else names:
        arena = ArenaMap(programs[name])
        more = f"\nnot drawn: {', '.join(names[1:])}" if huge and names[1:] else ""
        yield Step(name, _Drawing(arena).svg(), arena_text(arena) + more)


def render_arena(programs: Mapping[str, Program], name: str, path: str | Path) -> Path:
    """Write the arenas: .svg has that of the most often run program, .html has all of them.

    Raise GraphError for another suffix, or if no program has an arena.
    """
    target = Path(path)
    format = format_of(target, ("svg", "html"), "the memory as ")
    steps = list(arena_steps(programs))
    if not steps:
        raise GraphError(f"{name!r} needs no arena, so there is nothing to draw")
    text = steps[0].svg if format == "svg" else simple_page(f"memory of {name}", steps)
    return put(target, text.encode())


class _Drawing:
    """The drawing of one arena."""

    def __init__(self, arena: ArenaMap) -> None:
        self.arena = arena
        self.across = (WIDTH - LEFT - RIGHT) / arena.steps
        self.down = HEIGHT / arena.nbytes
        boxes = [(p, self._box(p.begin, p.end, p.offset, p.height)) for p in arena.parts]
        least = SMALL if len(boxes) > MOST_SINGLE else 1.0
        self.single = [(p, b) for p, b in boxes if _is_drawn_alone(b, least)]
        drawn = {id(part) for part, _ in self.single}
        self.together = _together([(p, b) for p, b in boxes if id(p) not in drawn])

    def svg(self) -> str:
        """Return the finished picture as SVG text; equal programs give equal text."""
        arena = self.arena
        rows = min(len(arena.at_peak), MOST_ROWS + 1)
        height = TOP + HEIGHT + GAP + STRIP + 58 + (rows + 1) * ROW
        name = printable(f"{arena.program.graph.name}: memory of {arena.program.name!r}")
        parts = [*self._head(), *self._axes(), *self._rectangles(), *self._peak()]
        parts += [*self._strip(), *self._table(TOP + HEIGHT + GAP + STRIP + 46)]
        return document(name, f"{name}: {self._summary()}", height, parts)

    def _summary(self) -> str:
        arena = self.arena
        return (
            f"arena {human_bytes(arena.nbytes)}, peak {max(arena.live):,} bytes at "
            f"epoch {arena.peak_step}, {arena.program.capacity} rows"
        )

    def _box(self, begin: float, end: float, offset: int, nbytes: int) -> Box:
        left, right = (LEFT + at * self.across for at in (begin, end))
        bottom = TOP + HEIGHT - offset * self.down
        return left, bottom - nbytes * self.down, right, bottom

    def _head(self) -> Iterator[str]:
        arena = self.arena
        name = f"{short(arena.program.graph.name, 40)}: memory of {arena.program.name}"
        yield words(LEFT, 22, name, size=15, bold=True)
        merged = sum(len(parts) for parts, _ in self.together if len(parts) > 1)
        thin = f"; {merged:,} buffers thinner than a pixel are drawn together" if merged else ""
        yield words(LEFT, 42, self._summary() + thin, "muted")
        x = LEFT
        present = {part.role for part in arena.parts}
        for role in (role for role in ROLES if role in present):
            yield _filled((x, 54, x + 18, 66), role, "")
            yield words(x + 23, 64, _LEGEND[role], "muted", size=11)
            x += 23 + 6.6 * len(_LEGEND[role]) + 16

    def _axes(self) -> Iterator[str]:
        arena = self.arena
        yield rect(LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT, "frame", "edge")
        for at in ticks(arena.nbytes):
            y = TOP + HEIGHT - at * self.down
            yield line(LEFT - 4, y, WIDTH - RIGHT, y, "edge")
            yield words(LEFT - 8, y + 4, human_bytes(at), "muted", "end")
        yield words(LEFT - 8, TOP - 16, "offset", "muted", "end")
        base = TOP + HEIGHT + GAP + STRIP
        for at in self._steps():
            x = LEFT + (at + 0.5) * self.across
            for y in (TOP + HEIGHT, base):
                yield line(x, y, x, y + 4, "muted")
            label = f"{at:,}"
            middle = min(x, WIDTH - 2 - 0.5 * ADVANCE * len(label))
            yield words(middle, base + 16, label, "muted", "middle")
        yield words(
            LEFT,
            base + 32,
            "epochs, each from one barrier of the threads to the next, in order",
            "muted",
        )

    def _steps(self) -> list[int]:
        """Return the steps that the axis is marked at."""
        return sorted({int(at) for at in ticks(self.arena.steps - 1, 12)})

    def _rectangles(self) -> Iterator[str]:
        for slot in self.arena.slots:
            left, top, right, bottom = self._box(
                slot.first, slot.last + 1, slot.offset, slot.nbytes
            )
            if len(slot.parts) > 1 and bottom - top >= 3:
                yield rect(left, top, right - left, bottom - top, "", "muted")
        for part, box in self.single:
            drawn = [_filled(box, part.role), *_label(box, part)]
            yield group(part.role, self._title(part), drawn, part.name)
        for parts, box in self.together:
            yield self._cluster(parts, box)

    def _cluster(self, parts: Sequence[Part], box: Box) -> str:
        first, drawn = parts[0], [_filled(box, parts[0].role)]
        if len(parts) == 1:
            return group(first.role, self._title(first), drawn, first.name)
        more = f"\nand {len(parts) - NAMES:,} more" if len(parts) > NAMES else ""
        lines = [f"{p.name}: {p.nbytes:,} bytes, epoch {p.live_range}" for p in parts]
        head = f"{len(parts):,} buffers thinner than a pixel: {ROLES[first.role]}"
        title = "\n".join([head, *lines[:NAMES]]) + more
        return group(f"together {first.role}", title, drawn)

    def _title(self, part: Part) -> str:
        where = f"\n{part.loc}" if part.loc else ""
        source = f"\n    {part.loc.text}" if part.loc and part.loc.text else ""
        return (
            f"{part.name}: {ROLES[part.role]}\n{part.nbytes:,} bytes, {part.formula}\n"
            f"offset {part.offset:,}, epoch {part.live_range}{where}{source}"
        )

    def _peak(self) -> Iterator[str]:
        """Yield a frame around the peak step, over everything, and its label."""
        arena, at = self.arena, self.arena.peak_step
        x = LEFT + at * self.across
        wide = max(self.across, 2.0)
        strokes = 'fill-opacity="0" stroke-width="1.6" pointer-events="none"'
        yield rect(x, TOP, wide, HEIGHT + GAP + STRIP, "", "mark", strokes)
        label = f"peak {max(arena.live):,} bytes"
        middle = min(max(x + wide / 2, LEFT + 0.5 * ADVANCE * len(label)), WIDTH - RIGHT - 84)
        yield words(middle, TOP - 5, label, "mark", "middle", bold=True)

    def _strip(self) -> Iterator[str]:
        """Yield the curve of the bytes in use, over the same steps."""
        top = TOP + HEIGHT + GAP
        yield words(LEFT, top - 8, "bytes in use", "muted")
        yield rect(LEFT, top, WIDTH - LEFT - RIGHT, STRIP, "frame", "edge")
        most = max(self.arena.live)
        yield words(LEFT - 8, top + 8, human_bytes(most), "muted", "end")
        yield words(LEFT - 8, top + STRIP, "0 B", "muted", "end")
        fills, name = paint("fill", "mark")
        points = "".join(_curve(self.arena.live, self.across, STRIP / most))
        start = f"M{number(LEFT)} {number(top + STRIP)}"
        yield f'<path class="{name}" {fills} fill-opacity="0.35" d="{start}{points}z"/>'

    def _table(self, top: float) -> Iterator[str]:
        arena = self.arena
        computes = listed([short(name, 28) for name in arena.running], 2)
        at = f"epoch {arena.peak_step}"
        yield words(14, top + 8, f"Alive at the peak, {at}: {computes}", bold=True)
        y = top + 8
        for part in arena.at_peak[:MOST_ROWS]:
            y += ROW
            yield group(part.role, self._title(part), self._row(part, y), part.name)
        rest = arena.at_peak[MOST_ROWS:]
        if rest:
            text = f"{sum(p.nbytes for p in rest):>12,}  {len(rest)} more, none larger"
            yield words(34, y + ROW, text, "muted")

    def _row(self, part: Part, y: float) -> Iterator[str]:
        yield rect(12, y - 13, WIDTH - 24, ROW, "", mark="area")
        yield _filled((16, y - 10, 30, y), part.role, "")
        yield words(34, y, f"{part.nbytes:>12,}  {short(part.name, 30)}")
        what = short(f"{_LEGEND[part.role]}, {part.formula}", 38)
        yield words(34 + 46 * ADVANCE, y, what, "muted")
        where = short(str(replace(part.loc, caller=None)), 38) if part.loc else ""
        yield words(34 + 86 * ADVANCE, y, where, "muted")


def _is_drawn_alone(box: Box, least: float) -> bool:
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    return min(wide, high) >= 1 and wide * high >= least


def _filled(box: Box, role: Role, mark: str = "area") -> str:
    left, top, right, bottom = box
    fill, stroke, more = _LOOKS[role]
    if min(right - left, bottom - top) < 2.5:  # no room for a border
        return rect(left, top, right - left, bottom - top, stroke, "", 'fill-opacity="0.7"', mark)
    edge = 0.5
    size = right - left - 2 * edge, bottom - top - 2 * edge
    return rect(left + edge, top + edge, *size, fill, stroke, more, mark)


def _label(box: Box, part: Part) -> Iterator[str]:
    left, top, right, bottom = box
    room = int((right - left - 8) / (0.6 * 11))
    if room >= 4 and bottom - top >= 13:
        y = (top + bottom) / 2 + 4
        yield words(left + 4, y, short(part.name, room), size=11)


def _together(boxes: Sequence[tuple[Part, Box]]) -> list[tuple[list[Part], Box]]:
    """Return boxes for parts too thin to see, on the finest grid that does not give too many."""
    found: list[tuple[list[Part], Box]] = []
    for pixels in (1, 2, 4):
        found = list(_clusters(boxes, pixels))
        if len(found) <= MOST_TOGETHER:
            break
    return found


def _clusters(boxes: Sequence[tuple[Part, Box]], grid: int) -> Iterator[tuple[list[Part], Box]]:
    """Yield one box for each set of parts of one role that touch on the grid."""

    def cells(low: float, high: float) -> tuple[int, int]:
        start = floor(low / grid)
        return start * grid, max(ceil(high / grid), start + 1) * grid

    rows: dict[tuple[int, int, Role], list[tuple[int, int, Part]]] = {}
    for part, (left, top, right, bottom) in boxes:
        rows.setdefault((*cells(top, bottom), part.role), []).append((*cells(left, right), part))
    for (top, low, _), touching in sorted(rows.items(), key=lambda item: item[0]):
        touching.sort(key=lambda item: (item[0], item[1], item[2].name))
        begin, end, parts = touching[0][0], touching[0][1], [touching[0][2]]
        for left, right, part in touching[1:]:
            if left > end:
                yield parts, (begin, top, end, low)
                begin, end, parts = left, right, []
            end = max(end, right)
            parts.append(part)
        yield parts, (begin, top, end, low)


def _curve(live: Sequence[int], across: float, down: float) -> Iterator[str]:
    """Yield the curve's steps from left to right as relative moves, on a pixel the largest one."""
    every = max(1, int(1 / across))
    before = 0
    for start in range(0, len(live), every):
        some = live[start : start + every]
        now = max(some)
        yield f"v{number((before - now) * down)}h{number(len(some) * across)}"
        before = now
    yield f"v{number(before * down)}"
