"""The documents are true: their code runs, prints what they say, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from graphc.backends.backend import backend as by_name
from tests.extras import needs
from tests.together import together

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ("README.md", "docs/native.md")
"""The documents that run on the native backend by default; the others do if slow tests run."""
LONG = ("docs/guide.md", "docs/pictures.md", "docs/populations.md")
"""The documents whose code takes longest: it runs if slow tests do."""
SLOW = [pytest.mark.slow]


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _default(document: str) -> str | None:
    """The backend that a document runs on by default, if any."""
    if document in LONG:
        return None
    return "native" if document in NATIVE else "numpy"


refresh: Any = _tool("refresh")
pictures: Any = _tool("pictures")


@pytest.mark.parametrize(
    ("document", "backend"),
    [
        pytest.param(name, kind, marks=[] if kind == _default(name) else SLOW)
        for name in refresh.DOCUMENTS
        for kind in ("numpy", "native")
    ],
)
def test_code_runs_and_prints_what_the_document_says(
    document: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the backend of plans that ask for none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPHC_BACKEND", backend)
    by_name.cache_clear()  # one document makes a backend, anew in each run
    compiles = backend == "native" or 'backend="native"' in (ROOT / document).read_text()
    if compiles:
        needs("native")
    for block in refresh.blocks(document):
        if block.expected is not None and not refresh.same(block.expected, block.printed):
            assert block.printed == block.expected, f"{document}, line {block.line}"


def test_the_last_digits_of_long_decimals_are_the_processors() -> None:
    assert refresh.same("loss 1.3525169, 1 row", "loss 1.3525171, 1 row")
    assert refresh.same("{'loss': 1.0986123085021973}", "{'loss': 1.0986121892929077}")
    for other in ("loss 1.3535169, 1 row", "loss 1.3525169, 2 row", "loss -1.3525169, 1 row"):
        assert not refresh.same("loss 1.3525169, 1 row", other)
    # all that is short, or no decimal, is exact
    for said, printed in (
        ("+8.5%", "+8.6%"),
        ("1,757,248", "1,757,249"),
        ("3436973836", "3435973836"),
    ):
        assert not refresh.same(said, printed)


@together("document", refresh.DOCUMENTS)
def test_relative_links_lead_to_files(document: str) -> None:
    page = ROOT / document
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    for link in links:
        assert (page.parent / link).exists(), link


def test_the_tour_names_what_is_there() -> None:
    tour = (ROOT / "docs" / "tour.md").read_text()
    paths = re.findall(r"`((?:graphc|passes)/[\w/.]+)`", tour)
    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / path).exists()] == []
    rooms = {path.name for path in (ROOT / "graphc").iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"`graphc/{room}`" not in tour} == set()


def test_the_page_of_the_package_stands_alone() -> None:
    """A package index shows it without the files around it."""
    text = (ROOT / "PACKAGE.md").read_text()
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert about["readme"] == "PACKAGE.md"
    assert not re.search(r"\]\(|<img|<a ", text), "a link that may lead nowhere"
    for page in (text, (ROOT / "README.md").read_text()):
        assert "pip install graphc-nn" in page
    extras = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert extras and set(extras) <= set(about["optional-dependencies"])
    (code,) = re.findall(r"^```python\n.*?^```$", text, re.M | re.S)
    assert code in (ROOT / "README.md").read_text()  # where it is run


@pytest.mark.parametrize("action", [".venv/bin/graphc demo", ".venv/bin/python -m pytest -q"])
def test_readme_has_the_commands_that_set_everything_up(action: str) -> None:
    setup = "python3 -m venv .venv && .venv/bin/python -m pip install -q -e '.[all]' && "
    assert setup + action in (ROOT / "README.md").read_text().splitlines()


def test_readme_says_what_graphc_is_not_for_on_its_first_screen() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:20])
    for word in ("for the CPU", "It is for", "It is not for", "GPUs", "control flow"):
        assert word in screen


def test_pictures_are_drawn_by_one_command_the_same_each_time(tmp_path: Path) -> None:
    needs("renderer")
    drawn = [pictures.draw(tmp_path / str(number)) for number in range(2)]
    for first, second in zip(*drawn, strict=True):
        assert first.read_bytes() == second.read_bytes()
    committed = {path.name for path in pictures.FOLDER.glob("*.svg")}
    assert {path.name for path in drawn[0]} == committed
    documents = "".join((ROOT / name).read_text() for name in refresh.DOCUMENTS)
    for name in committed:
        assert f"pictures/{name})" in documents
    assert "python docs/pictures.py" in (ROOT / "README.md").read_text()
