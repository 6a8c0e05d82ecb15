"""Writes a test file that fails as a pass fails: the graph as text, the pass by import."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.files.graph_file import user_ops
from graphc.files.writing import write_atomically
from graphc.ir.graph import Graph
from graphc.ir.text.graph import graph_text, word_of

FILE = '''\
"""{title}

Written by graphc when it validated the pass.  It fails until the pass is right.
"""

{imports}

GRAPH = """\\
{graph}"""


def test_{name}():
    graph = parse_graph(GRAPH, {ops})
    {call}
'''


def write_test(folder: Path, pass_name: str, step: Any, graph: Graph, told: str, call: str) -> Path:
    """Write the file and return its path; raise OSError if the folder cannot be written.

    `call` is the test's call of validation, with `{step}` for the pass.
    """
    source = _Source(call)
    expression = source.of(step)
    ops = source.ops(graph)
    imports = source.text()
    text = FILE.format(
        title=f"Pass {pass_name!r}: {told.partition(chr(10))[0]}.",
        imports=imports,
        graph=graph_text(graph).replace("\\", "\\\\"),
        name=_identifier(pass_name),
        ops=ops,
        call=call.format(step=expression),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = _free(folder, _identifier(pass_name))
    write_atomically(path, [text.encode()])
    return path


def _free(folder: Path, name: str) -> Path:
    number = 1
    while (path := folder / f"test_{name}_{number}.py").exists():
        number += 1
    return path


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name).strip("_") or "pass"


class _Source:
    """Expressions for objects, and the imports and definitions that they need."""

    def __init__(self, call: str) -> None:
        self.imports = {
            "from graphc.ops import OPS",
            "from graphc.ir.text import parse_graph",
            f"from graphc.check.validation import {call.partition('(')[0]}",
        }
        self.loaded: dict[str, str] = {}
        self.sources: list[str] = []

    def text(self) -> str:
        """Return the imports, the files that are run for their definitions, and copied source."""
        loads = [
            f"{name} = SimpleNamespace(**run_path({path!r}))" for path, name in self.loaded.items()
        ]
        if loads:
            self.imports |= {"from runpy import run_path", "from types import SimpleNamespace"}
        parts = ["\n".join(sorted(self.imports)), "\n".join(loads), *self.sources]
        return "\n\n".join(part for part in parts if part)

    def ops(self, graph: Graph) -> str:
        """Return the table of ops that the graph is read with."""
        own = user_ops(graph)
        if not own:
            return "OPS"
        inside = ", ".join(f"{word_of(cls)!r}: {self._named(cls)}" for cls in own)
        return f"{{**OPS, {inside}}}"

    def of(self, value: Any) -> str:
        """Return an expression that makes the object."""
        run = getattr(value, "run", None)
        if inspect.isfunction(run):  # a function with a declaration of what it preserves
            return self._function(value, run)
        if inspect.isfunction(value):
            return self._function(value, value)
        if isinstance(value, tuple):
            return f"({''.join(f'{self.of(part)}, ' for part in value).strip()})"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [f.name for f in dataclasses.fields(value) if f.init]
            inside = ", ".join(f"{name}={self.of(getattr(value, name))}" for name in fields)
            return f"{self._named(type(value))}({inside})"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        return f"{self._named(type(value))}()"

    def _function(self, step: Any, run: Any) -> str:
        """Return the function's name, imported if its module has it, else defined by its source."""
        module = sys.modules.get(run.__module__)
        if "<" not in run.__qualname__ and getattr(module, run.__name__, None) is step:
            return self._named(run)
        text = _source_text(run)
        if text is None:
            return self._named(run)
        self.sources.append(_with_imports(text, module))
        return str(run.__name__)

    def _named(self, thing: Any) -> str:
        module = sys.modules.get(thing.__module__)
        file = getattr(module, "__file__", None)
        if _importable(module) or file is None:
            root = thing.__qualname__.partition(".")[0]
            self.imports.add(f"from {thing.__module__} import {root}")
            return str(thing.__qualname__)
        path = str(Path(file).resolve())
        name = self.loaded.setdefault(path, f"mine{len(self.loaded) or ''}")
        return f"{name}.{thing.__qualname__}"


def _importable(module: ModuleType | None) -> bool:
    """Return whether a new process would find the module under its name."""
    if module is None or module.__name__ == "__main__" or module.__spec__ is None:
        return False
    return not module.__name__.startswith("graphc_model_")


def _source_text(run: Any) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(run))
    except (OSError, TypeError):
        return None


def _with_imports(text: str, module: ModuleType | None) -> str:
    """Return the source after the imports of the file that contains it."""
    names: Mapping[str, object] = vars(module) if module is not None else {}
    file = names.get("__file__")
    if not isinstance(file, str) or not Path(file).is_file():
        return f"import graphc as gc\n\n\n{text}"
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    lines = [
        ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    lines = [line for line in lines if "__future__" not in line]
    return "\n".join(lines) + f"\n\n\n{text}"
