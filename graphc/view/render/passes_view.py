"""The slider through the passes: the difference that each made, and at the end the kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from graphc.base.collector import collector_paused
from graphc.ir.difference import Difference, difference
from graphc.ir.graph import Graph
from graphc.ir.plan import Plan
from graphc.ir.text.difference import change_lines, counts_text
from graphc.view.profile.totals import changed_totals, totals, totals_after
from graphc.view.render.cards import muted
from graphc.view.render.difference import difference_sheet
from graphc.view.render.kernels import kernel_words, kernels_sheet
from graphc.view.render.sheet import Sheet, sheet_svg
from graphc.view.render.view import Step, View

MOST_LINES = 200
"""The most lines of a step's text."""


def drawn_program(plan: Plan) -> str:
    """Return the program whose passes are shown: the one that trains, or else inference."""
    return next(name for name in ("step", "grad", "infer") if plan.graphs.get(name))


def pass_view(plan: Plan, *, times: bool = False, dot: str | Path | None = None) -> View:
    """Return a view with a step for each pass, and one for the kernels of a native program.

    With `times` the text says how long each pass took: it then differs from run to run.  Raise
    RendererMissing if there is no renderer.
    """
    with collector_paused():
        return View("passes", "Passes", tuple(_steps(plan, times, dot)))


def _steps(plan: Plan, times: bool, dot: str | Path | None) -> Iterator[Step]:
    name = drawn_program(plan)
    before: Graph = plan.declared
    known = totals(before, plan.batch)
    for number, record in enumerate(plan.graphs[name], 1):
        made = difference(before, record.graph)
        after = totals_after(known, made) if made else known
        words = list(changed_totals(known, after))
        title = f"{number} {record.name}"
        took = f", {record.seconds * 1e3:.1f} ms" if times else ""
        svg = sheet_svg(pass_sheet(title, made, words), dot=dot)
        yield Step(title, svg, f"{title}{took}: {pass_text(made, words)}")
        before, known = record.graph, after
    program = plan.programs.get(name)
    if program is not None:
        title = f"{len(plan.graphs[name]) + 1} kernels"
        svg = sheet_svg(kernels_sheet(program), dot=dot)
        yield Step(title, svg, f"{title}: {', '.join(kernel_words(program))}")


def pass_sheet(title: str, made: Difference, words: Sequence[str]) -> Sheet:
    """Return the drawing of what a pass changed; one line if that is nothing."""
    if made:
        return difference_sheet(title, made, words)
    return Sheet(title, ((muted(f"changed none of {len(made.after):,} nodes"),),), (), ())


def pass_text(made: Difference, words: Sequence[str]) -> str:
    """Return in words what the pass changed and saved, cut to the first lines if there are many."""
    if not made:
        return f"changed none of {len(made.after):,} nodes"
    lines = list(islice(change_lines(made), MOST_LINES))
    more = ["and more"] if len(lines) == MOST_LINES else []
    return "\n".join([counts_text(made), *words, *lines, *more])
