"""The line is the user's: through helpers, in notebooks, at the prompt; and files in the way."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphc as gc
from graphc import data
from tests.extras import needs
from tests.mistakes.harness import collector, digits, line_of, place, refused

ROOT = Path(__file__).resolve().parent.parent.parent
MISTAKES, mistake = collector()


def dense(x: gc.Value, units: int) -> gc.Value:
    return gc.affine(x, units)  # helper


@mistake(
    """
    affine: units is 0, it must be a whole number from 1 up
      at {helper}: return gc.affine(x, units)  # helper
      called at {this}: dense(net.input("x", (gc.N, 64)), 0)  # here
      hint: it is the number of features that come out: gc.affine(x, 10)
    """
)
def a_mistake_through_a_helper() -> None:
    net = gc.Net("digits")
    dense(net.input("x", (gc.N, 64)), 0)  # here


def test_a_helper_and_its_caller_are_both_named() -> None:
    mistake = MISTAKES[0]
    with pytest.raises(gc.GraphError) as caught:
        mistake.call()
    here = place(mistake.call, line_of(mistake.call, "here")[0])
    helper = place(dense, line_of(dense, "helper")[0])
    assert str(caught.value) == mistake.text.format(helper=helper, this=here)


def python(*arguments: str, cwd: Path, stdin: str = "") -> str:
    """What a Python process prints that finds graphc, and first of all what is in `cwd`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{cwd}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
    )
    return done.stdout + done.stderr


CELLS = ["import graphc as gc\nnet = gc.Net()", "x = net.input('x', (gc.N, 64))"]
WRONG = "# the layer\ngc.affine(x, 10, weight=net.parameter('w', (32, 10)))"
TOLD = """\
affine 'affine_1': x has 64 features, weight takes 32
  x       x float32[N, 64]  declared at cell [2]:1
  weight  w float32[32, 10]  declared at cell [3]:2
  bias    affine_1.bias float32[10]  declared at cell [3]:2
  at cell [3]:2: gc.affine(x, 10, weight=net.parameter('w', (32, 10)))
  hint: share a weight only between layers of one input width"""


def test_in_ipython_the_line_is_the_cells(tmp_path: Path) -> None:
    needs("IPython")
    script = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {[*CELLS, WRONG]!r}:
    result = shell.run_cell(cell, store_history=True)
print("<" + str(result.error_in_exec) + ">")
"""
    assert f"<{TOLD}>" in python("-c", script, cwd=tmp_path)


@pytest.mark.slow
def test_in_a_notebook_the_line_is_the_cells() -> None:
    needs("ipykernel")
    nbclient, nbformat = needs("nbclient"), needs("nbformat")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in (*CELLS, WRONG)]
    )
    client = nbclient.NotebookClient(notebook, timeout=600, allow_errors=True)
    client.execute(env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    (error,) = notebook.cells[-1].outputs
    assert error.evalue == TOLD
    assert error.traceback == f"GraphError: {TOLD}".splitlines()  # and no frames of graphc's


def test_at_the_prompt_there_is_a_line_without_text(tmp_path: Path) -> None:
    lines = "import graphc as gc\nnet = gc.Net()\ngc.affine(net.input('x', (gc.N, 3)), 0)\n"
    shown = python("-i", "-q", cwd=tmp_path, stdin=lines)
    assert "GraphError: affine: units is 0, it must be a whole number from 1 up\n" in shown
    assert re.search(r"\n  at <stdin(-2)?>:1\n", shown)  # numbered by Python 3.14


@pytest.mark.parametrize("file", ["passes.py", "passes/__init__.py"])
def test_a_foreign_passes_in_the_way_is_named(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("MINE = True\n")
    script = tmp_path / "mine.py"
    script.write_text(
        "import graphc as gc\n"
        "net = gc.Net()\n"
        "net.output('y', gc.affine(net.input('x', (gc.N, 3)), 2))\n"
        "try:\n"
        "    gc.compile(net, batch=1)\n"
        "except gc.GraphError as error:\n"
        "    print(error)\n"
    )
    assert python(str(script), cwd=tmp_path) == (
        f"{tmp_path / file} hides graphc's own package 'passes'\n"
        "  at mine.py:5: gc.compile(net, batch=1)\n"
        "  hint: rename it: graphc imports that name\n"
    )


@mistake(
    """
    svg needs Graphviz, and no renderer was found
      at {here}
      hint: install one of these:
        pip install 'graphc-nn[dot]'
        apt-get install graphviz
        brew install graphviz
        winget install Graphviz.Graphviz
      or write .dot or .html, which need no renderer
    """
)
def drawing_without_dot(path: Path) -> None:
    gc.compile(digits(), batch=1).render(path / "digits.svg")  # here


def test_a_missing_dot_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_package(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GRAPHC_DOT", raising=False)
    monkeypatch.setattr(importlib.metadata, "files", no_package)
    refused(MISTAKES[1], tmp_path)


@mistake(
    """
    {file}, line 3, column 1 ('a'): 'x' is not a finite float32 number
      at {here}
      hint: fill missing values, and encode words as numbers, before loading
    """
)
def a_table_with_a_word(file: Path) -> None:
    data.load_table(file)  # here


def test_a_data_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a,y\n1,0\nx,1\n")
    refused(MISTAKES[2], file, file=str(file))
