"""Take the screenshots of docs/pictures.md: the digits network's page, opened in Chromium.

    python docs/screenshots.py        rewrites docs/pictures/*.png

It needs Graphviz, Chromium, and `pip install playwright`.  Times are those of the machine at hand.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
SIZE = {"width": 1280, "height": 800}


def page_file(folder: Path) -> Path:
    """The page of the digits network with the times of a step."""
    import numpy as np

    import graphc as gc
    from graphc.cli.model import load_model

    net = load_model(f"{ROOT}/docs/examples/digits.py:net").net
    plan = gc.compile(net, batch=128, optimizer=gc.SGD(lr=0.1), backend="numpy")
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((128, 64)), "y": rng.integers(0, 10, 128)}
    return gc.Executor(plan).profile(feeds, rounds=200).render(folder / "digits.html")


def tab(page: Any, name: str) -> None:
    """Open a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def find(page: Any, name: str) -> None:
    """Search for a node and open its panel, as a reader does from the keyboard."""
    page.keyboard.press("/")
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def peak(page: Any) -> None:
    tab(page, "Memory")


def time(page: Any) -> None:
    tab(page, "Time")


def passes(page: Any) -> None:
    tab(page, "Passes")
    names = page.locator("section:not([hidden]) figure").evaluate_all(
        "figures => figures.map((figure) => figure.dataset.title)"
    )
    wanted = next(i for i, name in enumerate(names) if "statistics" in name)
    for _ in range(wanted):
        page.keyboard.press("]")


def kept(page: Any) -> None:
    find(page, "relu_1")


def line(page: Any) -> None:
    find(page, "d_affine_2.weight")


QUESTIONS: dict[str, Callable[[Any], None]] = {
    "peak": peak,
    "time": time,
    "passes": passes,
    "kept": kept,
    "line": line,
}


def shoot(folder: Path) -> list[Path]:
    """One picture for each question; each starts from the page as it opens."""
    from playwright.sync_api import sync_playwright

    made = []
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        address = page_file(Path(place)).as_uri()
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, answer in QUESTIONS.items():
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            page.goto(address)
            answer(page)
            page.screenshot(path=folder / f"{name}.png")
            made.append(folder / f"{name}.png")
            page.close()
        browser.close()
    return made


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for path in shoot(FOLDER):
        print(path.relative_to(ROOT))
