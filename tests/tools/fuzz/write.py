"""A failing case as a test that can be run."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from graphc.ir.graph import Graph
from graphc.ir.text import graph_text, parse_graph
from graphc.ops import OPS
from tests.tools.fuzz.case import Case
from tests.tools.fuzz.check import Verdict

TEMPLATE = '''"""Found by fuzzing: {summary}"""

from __future__ import annotations

{imports}from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import assert_right
from tests.tools.fuzz.write import graph_of

GRAPH = r"""
{graph}"""


def test_{name}() -> None:
    assert_right(
        Case(
            graph_of(GRAPH),
{options}        )
    )
'''


def write(verdict: Verdict, folder: Path) -> Path:
    """The path of the new test."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"test_seed_{verdict.case.draw}.py"
    path.write_text(source(verdict), encoding="utf-8")
    return path


def source(verdict: Verdict) -> str:
    """The test's text."""
    case = verdict.case
    options = dict(_options(case))
    optimizers = options.get("optimizer", "") + options.get("other", "")
    names = sorted(set(re.findall(r"\b[A-Z]\w+(?=\()", optimizers)))
    return TEMPLATE.format(
        summary=verdict.summary.replace('"""', "'''").replace("\\", "/"),
        imports=f"from graphc import {', '.join(names)}\n" if names else "",
        graph=graph_text(case.graph),
        name=f"seed_{case.draw}",
        options="".join(f"            {name}={value},\n" for name, value in options.items()),
    )


def graph_of(text: str) -> Graph:
    """The graph of a test."""
    return parse_graph(text.lstrip("\n"), OPS)


def _options(case: Case) -> list[tuple[str, str]]:
    """What is not as it is by default."""
    found = []
    for field in fields(case):
        value = getattr(case, field.name)
        if field.name != "graph" and value != field.default:
            found.append((field.name, repr(value)))
    return found
