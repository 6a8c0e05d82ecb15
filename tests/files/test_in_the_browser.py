"""The page of docs/in_the_browser.md: its commands, in Node and in a browser."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from graphc.cli import main
from tests.extras import needs

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "in_the_browser.md").read_text()
LARGEST = 100_000
"""The bytes that a module with its weights may have."""

needs("LLVM")


def blocks(language: str) -> list[str]:
    """The blocks of the page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def section_numbers(module: bytes) -> list[int]:
    """The numbers of a WebAssembly module's sections, in order."""
    found, at = [], 8
    while at < len(module):
        found.append(module[at])
        size = shift = 0
        while True:
            at += 1
            size |= (module[at] & 0x7F) << shift
            shift += 7
            if module[at] < 0x80:
                break
        at += 1 + size
    assert at == len(module)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the page's commands have run."""
    monkeypatch.chdir(tmp_path)
    for name in ("digits.py", "digits.mjs", "digits.html"):
        shutil.copy(DOCS / "examples" / name, tmp_path)
    export, server = blocks("sh")
    program, *words = shlex.split(export)
    assert program == "graphc"
    assert main(words) == 0
    assert server.strip() == "python -m http.server"
    for block in blocks("python"):
        exec(block, {})
    return tmp_path


def test_the_page_and_the_module_are_small(folder: Path) -> None:
    module = (folder / "digits.wasm").read_bytes()
    assert len(module) <= LARGEST
    assert 2 not in section_numbers(module)  # it imports nothing
    assert len((folder / "digits.html").read_text().splitlines()) <= 60
    header = (folder / "digits.h").read_text()
    for name in re.findall(r"<name>(_\w+)\(", PAGE):
        assert f"digits{name}(" in header


@pytest.mark.slow
@pytest.mark.needs("node")
def test_node_trains_the_digits(folder: Path) -> None:
    (block,) = blocks("js")
    (folder / "train.mjs").write_text(block)
    said = subprocess.run(["node", "train.mjs"], cwd=folder, check=True, capture_output=True)
    assert float(said.stdout) >= 0.97


@pytest.mark.browser
def test_a_browser_trains_the_digits(folder: Path) -> None:
    sync_api = needs("playwright.sync_api")
    chromium = needs("chromium")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            wrong: list[str] = []
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(f"http://127.0.0.1:{server.server_port}/digits.html")
            page.click("#train:enabled")
            page.wait_for_selector("body[data-done]", timeout=300_000)
            said = page.text_content("#said")
            shown = page.locator("figure canvas").count()
            browser.close()
        server.shutdown()
    assert not wrong
    assert shown == 20
    match = re.fullmatch(r"epoch 15 of 15: ([\d.]+) % of the test digits are right", said or "")
    assert match is not None, said
    assert float(match[1]) >= 97
