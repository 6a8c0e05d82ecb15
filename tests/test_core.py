"""The core closes: what it imports is the core, and its files alone train a net."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest

from graphc.data import load_digits
from tests.core import CORE, FILES
from tests.sources import ROOT, nodes_of, parsed

LINES, COUNT = 22_000, 100
"""The most lines of the core, docstrings and blank ones included, and its most files."""
ALONE = ROOT / "tests" / "core_alone.py"


def imports(file: ast.Module) -> Iterator[str]:
    """Yield the modules that a file imports when it runs, those inside of functions included."""
    for_types = {
        node
        for block in nodes_of(file)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in nodes_of(file):
        if node in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def outside(name: str, file: ast.Module) -> list[str]:
    """The imports of a file of the core that lead out of it."""
    core = {path.removesuffix(".py").replace("/", ".") for path in FILES}
    own = [name for name in imports(file) if name.partition(".")[0] in ("graphc", "passes")]
    return [f"{name}: {one}" for one in own if not {one, one.rpartition(".")[0]} & core]


def test_each_file_is_there_once() -> None:
    assert len({*FILES}) == len(FILES)
    assert [path for path in FILES if not (ROOT / path).is_file()] == []


def test_the_core_imports_the_core_alone() -> None:
    files = parsed()
    assert [one for path in FILES for one in outside(path, files[ROOT / path])] == []


@pytest.mark.parametrize(
    "text",
    [
        "from graphc.ops.loops.op import Scan",
        "from graphc.ops import loops",
        "import graphc.compiler.options",
        "def f() -> None:\n    from graphc.runtime.population import Population",
        "from passes import DEFAULT",
        "from graphc import view",
    ],
)
def test_a_planted_import_is_found(text: str) -> None:
    assert outside("graphc/ir/op.py", ast.parse(text))
    guarded = f"if TYPE_CHECKING:\n    {text}"
    assert "def" in text or not outside("graphc/ir/op.py", ast.parse(guarded))


def test_it_can_be_read() -> None:
    lines = sum(len((ROOT / path).read_text().splitlines()) for path in FILES)
    assert lines <= LINES and len(FILES) <= COUNT, (lines, len(FILES))


def test_the_tour_lists_it_in_this_order() -> None:
    tour = " ".join((ROOT / "docs" / "tour.md").read_text().split())
    for room, names in CORE.items():
        assert f"- `{room}`: " + ", ".join(f"`{name}`" for name in names.split()) in tour, room


def test_its_files_alone_train_a_net(tmp_path: Path) -> None:
    for path in FILES:
        copy = tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copyfile(ROOT / path, copy)
    for package in ("graphc", "passes"):  # an installed one would come before a folder without it
        (tmp_path / package / "__init__.py").touch()
    x, y = load_digits()
    np.savez(tmp_path / "digits.npz", x=x, y=y)
    alone = copyfile(ALONE, tmp_path / "alone.py")
    command = [sys.executable, "-I", "-c", RUN, str(tmp_path), str(alone), "digits.npz"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    text = run.stdout
    assert text.startswith(f"from {tmp_path}"), text[:200]
    assert (
        "hidden: float32[N, 32] = layer affine(x, hidden.weight, hidden.bias)" in text
    )  # the graph
    assert "memory of 'digits' at N = 128, bytes" in text
    right = float(text.partition("right: ")[2].split()[0])
    assert right > 0.85
    refused = text.split("refused: ")[1:]
    assert len(refused) == 3
    lines = "relu(affine(h, 0))", 'h + net.input("t", (N, 31))', "ex.step(x=x[:8])"
    for error, line in zip(refused, lines, strict=True):
        assert f"alone.py:{number_of(line)} in " in error and line in error


RUN = "import sys, runpy; _, root, script, *sys.argv[1:] = sys.argv; sys.path.insert(0, root); "
RUN += "runpy.run_path(script, run_name='__main__')"
"""Runs a script with the files of a folder, whatever is installed."""


def number_of(line: str) -> int:
    return next(i for i, text in enumerate(ALONE.read_text().split("\n"), 1) if line in text)
