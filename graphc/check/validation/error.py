"""The error of a failed validation."""

from __future__ import annotations

from pathlib import Path

from graphc.base.errors import GraphError
from graphc.check.validation.compare import Mismatch
from graphc.ir.graph import Graph, Node
from graphc.ir.text.graph import node_text

SHOWN = 8
"""The number of nodes, from its end, that an error shows of the smallest graph."""


class ValidationError(GraphError):
    """The error of a pass that changed a result, or computes a wrong one.

    `mismatch` has the result and the numbers, `rewrite` the first change of the pass that shows
    it, `smallest` a small graph on which the pass still fails, `path` the test that was written.
    """

    mismatch: Mismatch
    rewrite: str = ""
    smallest: Graph | None = None
    path: Path | None = None


def validation_error(
    pass_name: str,
    mismatch: Mismatch,
    *,
    culprit: Node | None = None,
    rewrite: str = "",
    smallest: Graph | None = None,
    path: Path | None = None,
    unwritten: str = "",
) -> ValidationError:
    """Return the error, with a message in the user's words."""
    lines = [f"pass {pass_name!r}: {mismatch}"]
    if rewrite:
        lines.append(f"  first rewrite that shows it: {rewrite}")
    if smallest is not None:
        lines.append(f"  smallest graph that still fails: {len(smallest)} nodes")
        lines.extend(f"    {node_text(node)}" for node in list(smallest)[-SHOWN:])
    hint = f"this test shows the failure: python -m pytest {path}" if path else unwritten
    loc = culprit.locs[0] if culprit is not None and culprit.locs else None
    error = ValidationError("\n".join(lines), loc=loc, hint=hint)
    error.mismatch, error.rewrite, error.smallest, error.path = mismatch, rewrite, smallest, path
    return error
