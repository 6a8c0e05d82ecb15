"""What is packed, and what the extras bring."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.extras import lacks, needs

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def brought(extra: str) -> set[str]:
    """The packages of an extra, with those of the extras that it names."""
    found = set[str]()
    for requirement in EXTRAS[extra]:
        name, others = re.match(r"([\w-]+)(?:\[(.*)\])?", requirement).groups()
        found |= set.union(*map(brought, others.split(","))) if others else {name}
    return found


def test_docs_alone_brings_what_the_pages_import() -> None:
    assert brought("docs") >= {"sphinx", "myst-nb", "furo", "ipykernel", "matplotlib"}
    assert brought("docs") >= {"onnx", "scikit-learn", "graphviz-pure"}


@pytest.mark.slow
def test_a_source_distribution_holds_no_tests(tmp_path: Path) -> None:
    """Some of them alone would look for the others, and for the documents."""
    if int(needs("setuptools").__version__.partition(".")[0]) < 77:
        lacks("setuptools is older than 77 here")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("graphc", "passes", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    pack = "from setuptools.build_meta import build_sdist; build_sdist('packed')"
    subprocess.run([sys.executable, "-c", pack], cwd=tree, check=True, capture_output=True)
    (archive,) = (tree / "packed").iterdir()
    with tarfile.open(archive) as packed:
        folders = {name.split("/")[1] for name in packed.getnames() if name.count("/") > 1}
    assert {"graphc", "passes"} <= folders
    assert "tests" not in folders
