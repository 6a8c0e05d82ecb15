"""The arena as a picture: rectangles over time and offset, and the step that needs the most."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path

from graphc.base.errors import GraphError
from graphc.ir.plan import Plan, Program
from graphc.view.render.arena import ROLES, ArenaMap, Part
from graphc.view.render.arena_svg import arena_svg
from graphc.view.render.files import put
from graphc.view.render.view import Step, View
from graphc.view.render.words import shown

ORDER = ("step", "accumulate", "shard", "infer", "grad", "apply")
MOST_TOLD = 20
"""The most buffers live at the peak that are named; the largest are."""

MOST_BUFFERS = 40_000
"""The most buffers of all programs together; above it, only the first program is drawn."""


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
        yield Step(name, arena_svg(arena), arena_text(arena) + more)


def arena_text(arena: ArenaMap) -> str:
    """Return the picture in words: the peak, where it is, and the buffers live there."""
    program, most = arena.program, max(arena.live)
    lines = [
        f"{program.name}: an arena of {arena.nbytes:,} bytes at {program.capacity} rows; at most "
        f"{most:,} of them are in use at once, at epoch {arena.peak_step} of "
        f"{arena.steps}, which computes {_listed(arena.running)}.",
        "Alive there:",
    ]
    lines += [f"  {_told(part, arena)}" for part in arena.at_peak[:MOST_TOLD]]
    rest = arena.at_peak[MOST_TOLD:]
    if rest:
        lines.append(f"  and {len(rest)} more of {sum(p.nbytes for p in rest):,} bytes together")
    return "\n".join(lines)


def _told(part: Part, arena: ArenaMap) -> str:
    where = f", {part.loc}" if part.loc else ""
    return shown(
        f"{part.name}: {part.nbytes:,} bytes ({part.formula}), {ROLES[part.role]}, "
        f"epoch {part.life}{where}"
    )


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown(name) for name in names[:3]) + more if names else "nothing"


def render_arena(programs: Mapping[str, Program], name: str, path: str | Path) -> Path:
    """Write the arenas: .svg has that of the most often run program, .html has all of them.

    Raise GraphError for another suffix, or if no program has an arena.
    """
    target = Path(path)
    format = target.suffix.lower()
    if format not in (".svg", ".html"):
        raise GraphError(
            f"cannot draw the memory as {target.name!r}: the suffix says the format",
            hint="one of .svg, .html",
        )
    steps = list(arena_steps(programs))
    if not steps:
        raise GraphError(f"{name!r} needs no arena, so there is nothing to draw")
    text = steps[0].svg if format == ".svg" else simple_page(f"memory of {name}", steps)
    return put(target, text.encode())


def simple_page(name: str, steps: list[Step]) -> str:
    """Return a page of pictures one below the other, each with its words; it holds no script."""
    title = html.escape(shown(name))
    parts = "\n".join(
        f"<section>\n<h2>{html.escape(shown(step.title))}</h2>\n<figure>\n{step.svg}</figure>\n"
        f"<details><summary>The same in words</summary><pre>{html.escape(step.text)}</pre>"
        "</details>\n</section>"
        for step in steps
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{parts}\n</main>\n</body>\n</html>\n"
    )


_STYLE = """\
:root { color-scheme: light dark; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
  background: #ffffff; color: #1b2430; }
@media (prefers-color-scheme: dark) { body { background: #12161c; color: #e8edf3; } }
figure { margin: 0; overflow-x: auto; }
pre { overflow-x: auto; }
"""
