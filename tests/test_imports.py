"""The import rules: one way, no cycles, heavy libraries at one place and at first use."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.sources import FILES, ROOT, parsed

STANDARD = sys.stdlib_module_names
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}

LAYERS = (
    ("graphc.ir.tensor_type", "graphc.base.loc", "graphc.base.errors"),
    (
        "graphc.ir.op",
        "graphc.ir.operators",
        "graphc.ir.graph",
        "graphc.ir.build",
    ),
    ("graphc.ops",),
    ("passes",),
    (
        "graphc.declare.net",
        "graphc.compiler.plan",
        "graphc.compiler.options",
        "graphc.compiler.compile",
    ),
    (
        "graphc.train",
        "graphc.cli",
        "graphc.view.render",
        "graphc.view.plots",
        "graphc.runtime.freeze",
        "graphc.check.validation",
        "graphc.sklearn",
        "graphc.onnx",
    ),
)
"""Each may import from its own row and the rows above it, not from those below."""

ONLY_IN = {
    "networkx": "graphc/ir/graph.py",
    "graphviz": "graphc/view/render/",
    "onnx": "graphc/onnx/",
    "mpi4py": "graphc/runtime/distributed/mpi.py",
}
AT_FIRST_USE = (
    "networkx",
    "graphviz",
    "llvmlite",
    "matplotlib",
    "mpi4py",
    "tqdm",
    "sklearn",
    "mlxtend",
    "safetensors",
    "tensorboardX",
    "onnx",
)


@cache
def imports(path: Path, everywhere: bool) -> tuple[str, ...]:
    """The modules that a file imports: when it is imported itself, or at any time."""
    return tuple(_imports(parsed()[path], (lambda _: False) if everywhere else _later))


def _imports(tree: ast.AST, left_out: Callable[[ast.AST], bool]) -> Iterator[str]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports name the whole module"
            assert child.module is not None
            parts = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (part if part in NAMES else child.module for part in parts)
        elif not left_out(child):
            yield from _imports(child, left_out)


def _for_types(tree: ast.AST) -> bool:
    """Whether type checkers alone read this code."""
    return isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test)


def _later(tree: ast.AST) -> bool:
    """Whether this code does not run when its file is imported."""
    functions = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda
    return _for_types(tree) or isinstance(tree, functions)


NAMES = {name.removesuffix(".__init__") for name in MODULES}


@cache
def at_start() -> dict[str, set[str]]:
    """What each module imports when it is imported itself."""
    return {
        name.removesuffix(".__init__"): set(imports(path, everywhere=False))
        for name, path in MODULES.items()
    }


def in_layer(module: str) -> int | None:
    for rank, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return rank
    return None


def test_there_is_no_cycle() -> None:
    """Nor one that is closed when a function runs."""
    found = {name: set(_imports(parsed()[path], _for_types)) for name, path in MODULES.items()}
    own = {name.removesuffix(".__init__"): names & NAMES for name, names in found.items()}
    order = TopologicalSorter({name: names - {name} for name, names in own.items()}).static_order()
    assert len(list(order)) == len(NAMES)


def test_imports_run_one_way() -> None:
    for name, found in at_start().items():
        rank = in_layer(name)
        for other in found:
            below = in_layer(other)
            if rank is not None and below is not None:
                assert below <= rank, f"{name} imports {other}"


@pytest.mark.slow
def test_every_module_that_imports_passes_tells_of_a_foreign_one(tmp_path: Path) -> None:
    """Another package of that name in the way is told in one sentence, not as a missing module."""
    importers = [
        name
        for name, found in at_start().items()
        if name.startswith("graphc") and any(other.split(".")[0] == "passes" for other in found)
    ]
    assert len(importers) > 5
    (tmp_path / "passes.py").write_text("MINE = True\n")
    script = tmp_path / "mine.py"
    script.write_text(FOREIGN.format(names=importers))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert run.stdout.splitlines() == importers, run.stderr


FOREIGN = """
import sys
from importlib import import_module
from graphc.base.errors import GraphError
for name in {names}:
    for known in [known for known in sys.modules if known.startswith("graphc.")]:
        if known != "graphc.base.errors":
            del sys.modules[known]
    try:
        import_module(name)
    except GraphError as error:
        assert "hides graphc's own package 'passes'" in str(error)
        print(name)
"""


def test_passes_import_modules_of_graphc_never_graphc() -> None:
    for name, path in MODULES.items():
        if name.startswith("passes"):
            assert "graphc" not in set(imports(path, everywhere=True)), name


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_at_one_place(library: str) -> None:
    for path in FILES:
        elsewhere = not path.relative_to(ROOT).as_posix().startswith(ONLY_IN[library])
        if elsewhere and library in path.read_text(encoding="utf-8"):
            found = {name.split(".")[0] for name in imports(path, everywhere=True)}
            assert library not in found, path


@pytest.mark.parametrize("library", AT_FIRST_USE)
def test_a_heavy_library_is_imported_at_first_use(library: str) -> None:
    importers = {
        name
        for name, found in at_start().items()
        if library in {other.split(".")[0] for other in found}
    }
    loaded, queue = set[str](), ["graphc", "passes"]
    while queue:
        module = queue.pop()
        if module in NAMES and module not in loaded:
            loaded.add(module)
            queue.extend(at_start()[module])
    assert not importers & loaded


def test_no_file_surprises_by_its_size() -> None:
    """Docstrings, which have the sections of the public API, do not count."""
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400 or len(lines) - docstring_lines(parsed()[path]) <= 400, path


def docstring_lines(tree: ast.Module) -> int:
    """The lines of all docstrings."""
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    firsts = [node.body[0] for node in nodes if ast.get_docstring(node, clean=False) is not None]
    return sum((first.end_lineno or 0) - first.lineno + 1 for first in firsts)


def test_the_verifier_shares_nothing_with_what_makes_plans() -> None:
    """It reads tables, and of graphc nothing but their layout; the tables need nothing."""
    own = {
        "graphc.check.certificate",
        *(n for n in NAMES if n.startswith("graphc.check.verify")),
    }
    for name in own:
        path = MODULES.get(name) or MODULES[f"{name}.__init__"]
        found = {other for other in imports(path, everywhere=True) if other != "__future__"}
        outside = {other for other in found - own if other.split(".")[0] not in STANDARD}
        assert outside <= {"numpy", "numpy.typing"}, name
