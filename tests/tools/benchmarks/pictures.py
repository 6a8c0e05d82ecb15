"""How long the pictures of small and large nets take to make.

    python -m tests.tools.benchmarks.pictures

prints, for each net, the nodes as declared and as compiled, the seconds that its svg and its page
take, and the size of the page.  Where Chromium and playwright are installed, it also opens the page
and prints the seconds until that is drawn.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import graphc as gc
from graphc.view.render import plan_graph
from tests.view.render.graphs import deep, digits, residual

NETS = {
    "digits": digits,
    "50 layers": lambda: deep(50),
    "residual": lambda: residual(16),
    "2,000 nodes": lambda: deep(500),
    "20,000 nodes": lambda: deep(5000),
}
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def seconds(plan: gc.Plan, path: Path) -> float:
    """The time of one picture."""
    start = perf_counter()
    plan.render(path)
    return perf_counter() - start


def opened(page: Path) -> float | None:
    """The time until a browser that runs already has loaded and drawn the page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if browser is None:
        return None
    with sync_playwright() as playwright:
        chromium: Any = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 800})
        start = perf_counter()
        tab.goto(page.as_uri())
        tab.evaluate(DRAWN)
        took = perf_counter() - start
        chromium.close()
    return took


def main() -> None:
    """Measure each net once."""
    print(
        f"{'':14}{'declared':>9}{'compiled':>9}{'svg s':>7}{'html s':>7}{'html MB':>8}{'open s':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, make in NETS.items():
            plan = gc.compile(make(), batch=32, optimizer=gc.SGD(lr=0.1))
            page = Path(folder) / "net.html"
            svg, html = seconds(plan, Path(folder) / "net.svg"), seconds(plan, page)
            drawn = opened(page)
            print(
                f"{name:14}{len(plan.declared):9,}{len(plan_graph(plan)):9,}{svg:7.2f}{html:7.2f}"
                f"{page.stat().st_size / 1e6:8.2f}{'' if drawn is None else f'{drawn:7.2f}'}"
            )


if __name__ == "__main__":
    main()
