"""A pass of the default list touches two files, as docs/writing_a_pass.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import graphc as gc

net = gc.Net("squares")
x = net.input("x", (gc.N, 3))
net.output("out", gc.sum(x * x, axis=1))
plan = gc.compile(net, batch=4, backend="numpy", validate=True)
print(*(record.name for record in plan.graphs["infer"]))
print(plan.graphs["infer"][-1].graph)
"""


def written_by_the_page() -> str:
    """The first block of code of the page, with the decorator imported as the page says."""
    page = (ROOT / "docs/writing_a_pass.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S)
    assert code is not None
    assert "passes.contract.graph_pass" in page
    text = code[1].replace("import graphc as gc\n", "").replace("gc.passes.", "")
    return text.replace("\n\n\n@", "\nfrom passes.contract import graph_pass\n\n\n@")


def test_a_pass_is_its_file_and_a_place_in_the_list(tmp_path: Path) -> None:
    for room in ("graphc", "passes"):
        ignored = shutil.ignore_patterns("*.pyc.*")  # which others are writing
        shutil.copytree(ROOT / room, tmp_path / room, ignore=ignored)
    (tmp_path / "passes/square.py").write_text(written_by_the_page())
    listed = tmp_path / "passes/__init__.py"
    text = listed.read_text()
    text = text.replace("from passes", "from passes.square import square\nfrom passes", 1)
    listed.write_text(text.replace("        cse,\n", "        cse,\n        square,\n", 1))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "cse square" in done.stdout.splitlines()[0]
    assert "power(x)  exponent=2.0" in done.stdout
