"""The site: its pages name all that is public, every notebook runs, no link leads nowhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from graphc.cli.command_line import COMMANDS
from graphc.view.render.style import DARK, LIGHT
from tests.extras import needs

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LESSONS = sorted((DOCS / "lessons").glob("*.md"))
LABS = sorted((DOCS / "labs").glob("*.md"))
NOTEBOOKS = [*LESSONS, *LABS, DOCS / "index.md", DOCS / "command_line.md"]
MODULES = (
    *("graphc", "graphc.data", "graphc.layers", "graphc.view.plots", "graphc.sklearn", "passes"),
)
NEEDED = ("sphinx", "myst_nb", "furo", "ipykernel", "matplotlib", "sklearn")
BUILD = ["-m", "sphinx", "-W", "--keep-going", "-j", "auto", "-b", "html", "docs"]


def public(module: str) -> set[str]:
    """The public names of a module, with the module's."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None)
    if names is None:  # functions of its own
        own = vars(found).items()
        names = [n for n, v in own if getattr(v, "__module__", "") == module and n[0] != "_"]
    return {f"{module}.{name}" for name in names} - {"graphc.plots"}  # it is graphc.view.plots


def extension(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / "extensions" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- without building


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_as_text_names_its_kernel_as_jupyter_asks(path: Path) -> None:
    _, front, _ = path.read_text().split("---\n", 2)
    _, _, kernel = front.partition("kernelspec:\n")
    said = [line.strip() for line in kernel.splitlines() if line.startswith("  ")]
    assert said == ["display_name: Python 3", "language: python", "name: python3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_jupytext_opens_a_notebook_as_text(path: Path) -> None:
    jupytext = needs("jupytext")
    cells = jupytext.read(path).cells  # which checks the notebook by nbformat
    code = path.read_text().count("\n```{code-cell}")
    assert sum(cell.cell_type == "code" for cell in cells) == code > 0


def test_the_reference_names_all_that_is_public() -> None:
    needs("sklearn")
    text = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = set(re.findall(r"^\.\. auto\w+:: (\S+)", text, re.M))
    # by their modules
    whole = {"graphc.data", "graphc.layers", "graphc.view.plots", "graphc.onnx"}
    assert named >= whole | public("graphc") | public("passes") | public("graphc.sklearn")


@pytest.mark.parametrize("lesson", [*LESSONS, *LABS], ids=lambda path: path.stem)
def test_a_lesson_is_a_notebook_that_the_first_page_leads_to(lesson: Path) -> None:
    text = lesson.read_text()
    assert text.startswith("---\nfile_format: mystnb\n")
    assert f"\n{lesson.parent.name}/{lesson.stem}\n" in (DOCS / "index.md").read_text()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)#]+)", prose):
        assert (lesson.parent / link).exists(), link


def test_the_reference_of_the_command_line_has_every_command() -> None:
    sections = re.findall(r"^## (\w+)$", (DOCS / "command_line.md").read_text(), re.M)
    assert sections == [command.__name__.rpartition(".")[2].rstrip("_") for command in COMMANDS]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/conf.py"])
def test_the_command_that_builds_the_site_is_told(page: str) -> None:
    assert f"python {' '.join(BUILD)} docs/_build/html" in (ROOT / page).read_text()


def test_docstrings_are_plain_text_for_sphinx() -> None:
    plain = extension("docstrings").plain
    assert plain(["v = m *v*, or n_ as in a|b", "", "`*x*`"]) == [
        r"v = m \*v\*, or n\_ as in a\|b",
        "",
        "`*x*`",
    ]
    assert plain(["What.", "", "lr, decay: of Adam,", "  both", "net: yours", "", "End: no"]) == [
        "What.",
        "",
        "- lr, decay: of Adam,",
        "    both",
        "- net: yours",
        "",
        "- End: no",
    ]
    assert plain(["By", "D. Kingma, see docs/onnx.md"]) == ["By", r"\D. Kingma, see :doc:`/onnx`"]
    assert plain(["as `gc.fit` does"]) == ["as :obj:`gc.fit <graphc.fit>` does"]


# ---------------------------------------------------------------- the site itself


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built with every warning an error."""
    needs(*NEEDED, "renderer")
    folder = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, *BUILD, str(folder)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert made.returncode == 0, made.stderr[-6000:]
    return folder


def executed(site: Path, notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook with what they gave."""
    name = notebook.relative_to(DOCS).with_suffix(".ipynb")
    cells = json.loads((site.parent / "jupyter_execute" / name).read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_ran_and_only_those_failed_that_should(site: Path, notebook: Path) -> None:
    cells = executed(site, notebook)
    assert len(cells) == notebook.read_text().count("```{code-cell}")
    for number, cell in enumerate(cells, 1):
        assert cell["execution_count"] == number
        kinds = [output["output_type"] for output in cell["outputs"]]
        asked = "raises-exception" in cell["metadata"].get("tags", ())
        assert ("error" in kinds) == asked, cell["source"]
        streams = [output for output in cell["outputs"] if output["output_type"] == "stream"]
        assert [s["name"] for s in streams] in ([], ["stdout"]), streams
        for stream in streams:  # a command that fails in a shell fails no cell
            told = "".join(stream["text"])
            assert not re.search(r"^error:|^usage: .*\n.*error:|not found|Traceback", told, re.M)


@pytest.mark.slow
def test_errors_are_told_without_frames(site: Path) -> None:
    errors = [
        "\n".join(output["traceback"])
        for lesson in LESSONS
        for cell in executed(site, lesson)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]
    assert len(errors) >= 4
    for text in errors:
        assert "Error: " in text.partition("\n")[0]
        assert "hint: " in text
        assert "Traceback" not in text
        assert 'File "' not in text


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_page(site: Path, module: str) -> None:
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    assert public(module) <= listed


class Links(HTMLParser):
    """What a page leads to, what it loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        if "href" in found:
            (self.links if tag == "a" else self.loaded).append(found["href"])
        if "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text()) for path in site.rglob("*.html")}


def local(links: list[str]) -> Iterator[tuple[str, str]]:
    """Path and place of those that stay within the site."""
    for link in links:
        parts = urlsplit(link)
        if not parts.scheme and not parts.netloc:
            yield unquote(parts.path), unquote(parts.fragment)


@pytest.mark.slow
def test_no_link_within_the_site_is_broken(pages: dict[Path, Links]) -> None:
    for page, found in pages.items():
        for path, place in local(found.links + found.loaded):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name} leads to {path}"
            if place and target in pages:
                assert place in pages[target].places, f"{page.name} leads to {path}#{place}"


@pytest.mark.slow
def test_pages_load_nothing_over_the_network(pages: dict[Path, Links]) -> None:
    for page, found in pages.items():
        assert not [link for link in found.loaded if urlsplit(link).netloc], page


@pytest.mark.slow
def test_pictures_are_part_of_the_page_and_follow_its_theme(site: Path) -> None:
    for name in ("index", "lessons/first_steps", "lessons/reading_pictures", "how_it_works"):
        text = (site / f"{name}.html").read_text()
        assert text.count('<div class="picture"') >= 2
        assert not re.search(r'<img[^>]*\.svg"', text)
        assert "pictures.css" in text
    theme = (site / "_static" / "pictures.css").read_text()
    assert 'body[data-theme="dark"] .graphc' in theme
    assert "srcdoc=" in (site / "lessons" / "reading_pictures.html").read_text()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_pages_fit_their_window_and_pictures_follow_the_theme(
    site: Path, pages: dict[Path, Links], width: int
) -> None:
    sync_api = needs("playwright.sync_api")
    chromium = needs("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        for path in pages:
            page.goto(path.as_uri())
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), path
        page.goto((site / "index.html").as_uri())
        for theme, colours in (("light", LIGHT), ("dark", DARK)):
            page.evaluate(f"document.body.dataset.theme = '{theme}'")
            picture = "getComputedStyle(document.querySelector('svg.graphc'))"
            paper = page.evaluate(f"{picture}.getPropertyValue('--paper')")
            assert paper.strip() == colours["paper"]
        browser.close()
    assert not wrong
