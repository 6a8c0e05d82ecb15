"""The page in a real browser: clicks, keys, slider, search, zoom, themes, narrow windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.view.render import plan_graph
from tests.extras import needs
from tests.view.render.graphs import deep, digits, hostile, html_text, residual

sync_api = needs("playwright.sync_api")
BROWSER = needs("chromium")
pytestmark = pytest.mark.browser
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser that tries to reach nothing by itself."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield started
        started.close()


NETS: dict[str, Callable[[], gc.Net]] = {
    "digits": digits,
    "hostile": hostile,
    "fifty": lambda: deep(50),
    "residual": lambda: residual(16),
    "2,000 nodes": lambda: deep(500),
    "20,000 nodes": lambda: deep(5000),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the nets; that of digits with times."""
    made = tmp_path_factory.mktemp("pages")
    for name, make in NETS.items():
        plan = gc.compile(make(), batch=4, optimizer=gc.SGD(lr=0.1))
        times = None
        if name == "digits":
            feeds = {"x": np.zeros((4, 64), np.float32), "y": np.zeros(4, np.int64)}
            times = gc.Executor(plan).profile(feeds, rounds=1)
        text = html_text(plan.declared, backward=plan_graph(plan), plan=plan, profile=times)
        (made / f"{name}.html").write_text(text)
    return made


class Opened:
    """A page that was opened, with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, size: dict[str, int], **options: Any) -> None:
        self.context = browser.new_context(viewport=size, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *raised: object) -> None:
        self.context.close()
        if raised[0] is None:
            assert self.said == []
            assert len(self.asked) == 1


def _text(page: Any, selector: str) -> str:
    return str(page.inner_text(selector))


def test_a_click_opens_the_panel_and_escape_closes_it(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        assert not page.is_visible("#panel")
        page.click('#view-graph [data-node="d_affine_2.weight"]')
        panel = _text(page, "#panel")
        assert "d_affine_2.weight" in panel and "matmul" in panel and "xᵀ · d_out" in panel
        assert "graphs.py:" in panel and "gc.affine(h, width)" in panel
        assert page.evaluate("document.activeElement.id") == "panel"
        page.click("#panel li button >> text=d_affine_2 >> nth=0")
        assert page.locator(".op.chosen:visible").first.get_attribute("data-node") == "d_affine_2"
        page.keyboard.press("Escape")
        assert not page.is_visible("#panel") and page.locator(".chosen").count() == 0


def test_nodes_can_be_reached_and_opened_by_keys(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        page.focus("#view-graph .port")
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.dataset.node")
        label = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert label.startswith(f"{name}, ")
        page.keyboard.press("Enter")
        assert _text(page, "#panel h2") == name
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.dataset.node") == name


def test_search_finds_goes_on_and_clears(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        page.keyboard.press("/")
        page.keyboard.type("dropout_2")
        assert _text(page, "#found").endswith("found")
        assert page.locator("#view-graph .op.hit").count() >= 2
        page.keyboard.press("Enter")
        first = _text(page, "#panel h2")
        assert _text(page, "#found").startswith("1 of ")
        page.keyboard.press("Enter")
        assert _text(page, "#panel h2") != first and _text(page, "#found").startswith("2 of ")
        page.keyboard.press("Shift+Enter")
        assert _text(page, "#panel h2") == first
        box = page.locator("#view-graph .op.chosen").first.bounding_box()
        assert 90 < box["y"] < 800 and 0 < box["x"] < 1280
        page.keyboard.press("Escape")
        assert page.input_value("#search") == "" and page.locator(".hit").count() == 0


def test_search_finds_a_name_before_names_that_have_it(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        for name in ("affine_1.weight", "affine_1", "scores"):
            page.fill("#search", name)
            page.press("#search", "Enter")
            assert _text(page, "#panel h2") == name


def test_a_key_shows_the_list_of_keys(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        assert "keys (?)" in page.get_attribute("#search", "placeholder")
        page.keyboard.press("?")
        told = _text(page, "#panel")
        keys = ("/", "Enter, Shift+Enter", "Escape", "+, -, 0", "arrows", "[, ]", "?")
        assert all(key in told.splitlines() for key in keys)
        page.click('#view-graph [data-node="d_affine_2.weight"]')
        assert "d_affine_2.weight" in _text(page, "#panel")
        page.keyboard.press("?")
        assert page.locator(".chosen").count() == 0
        page.keyboard.press("Escape")
        assert not page.is_visible("#panel")
        page.keyboard.press("/")
        page.keyboard.type("?")
        assert page.input_value("#search") == "?" and not page.is_visible("#panel")


def test_the_slider_goes_through_the_passes(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        page.click("#tab-passes")
        assert _text(page, "#view-passes output").startswith("1 specialize")
        page.focus("#view-passes input")
        page.keyboard.press("ArrowRight")
        assert _text(page, "#view-passes output").startswith("2 cse")
        page.keyboard.press("Tab")
        page.keyboard.press("]")
        assert _text(page, "#view-passes output").startswith("3 ")
        page.keyboard.press("[")
        assert page.get_attribute("#view-passes input", "aria-valuetext").startswith("2 cse")
        assert page.locator("#view-passes figure:visible").count() == 1
        assert page.locator("#view-passes figure:visible .op.changed").count() > 0


def test_tabs_work_as_tabs_do(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:
        page.focus("#tab-graph")
        for name in ("passes", "memory", "time", "layers", "graph"):
            page.keyboard.press("ArrowRight")
            assert page.evaluate("document.activeElement.id") == f"tab-{name}"
            assert page.locator("section:visible").count() == 1
            assert page.is_visible(f"#view-{name}")
        page.click("#tab-memory")
        page.locator("#view-memory figure:visible .op").first.click()
        assert "lives in step" in _text(page, "#panel")
        page.click("#tab-layers")
        page.click("#view-layers tr[data-node=scores]")
        page.click("#panel li button >> text=Graph")
        assert page.is_visible("#view-graph .op.chosen")


def test_a_click_on_a_fold_opens_it(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "fifty.html", WIDE) as page:
        fold = page.locator("#view-graph figure:visible .op.fold").first
        assert "49 more times: open" in fold.get_attribute("aria-label")
        name = fold.get_attribute("data-node")
        fold.click()
        assert page.locator("#view-graph figure:visible .op.fold").count() == 0
        chosen = page.locator("#view-graph figure:visible .op.chosen").first
        assert chosen.get_attribute("data-node") == name == _text(page, "#panel h2")
        page.keyboard.press("[")
        assert page.locator("#view-graph figure:visible .op.fold").count() == 2
        page.keyboard.press("/")
        page.keyboard.type("relu_30")
        page.keyboard.press("Enter")
        box = page.locator("#view-graph figure:visible .op.chosen").first.bounding_box()
        assert 90 < box["y"] < 800 and _text(page, "#panel h2").endswith("relu_30")


def test_zoom_by_keys_buttons_and_wheel(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE) as page:

        def width() -> float:
            return float(page.locator("#view-graph svg").bounding_box()["width"])

        start = width()
        page.keyboard.press("+")
        assert width() == pytest.approx(start * 1.25, rel=0.01)
        page.keyboard.press("-")
        assert width() == pytest.approx(start, rel=0.01)
        page.click("#view-graph [data-zoom='1']")
        page.click("#view-graph [data-zoom='0']")
        assert width() == pytest.approx(start, rel=0.01)
        page.mouse.move(600, 500)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -200)
        page.keyboard.up("Control")
        page.wait_for_function(
            f"document.querySelector('#view-graph svg').getBoundingClientRect().width > {start}"
        )


def test_pictures_move_by_dragging_and_by_arrows(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "fifty.html", WIDE) as page:
        top = "document.querySelector('#view-graph .port').scrollTop"
        page.keyboard.press("]")
        page.mouse.move(300, 600)
        page.mouse.down()
        page.mouse.move(300, 400, steps=4)
        page.mouse.up()
        assert page.evaluate(top) == 200
        assert not page.is_visible("#panel")
        page.keyboard.press("ArrowDown")
        assert page.evaluate(top) == 280


def test_names_are_only_text(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "hostile.html", WIDE) as page:
        for word in ("alert(1)", "onerror", "]]>", "שלום", "xxxxxxxxxx", "emoji"):
            page.fill("#search", word)
            page.keyboard.press("Enter")
            assert word in _text(page, "#panel h2")
        for tab in ("passes", "memory", "layers"):
            page.click(f"#tab-{tab}")
        assert page.locator("img").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDE["width"]


@pytest.mark.parametrize("net", ["digits", "hostile", "fifty"])
def test_a_narrow_window_is_enough(browser: Any, folder: Path, net: str) -> None:
    with Opened(browser, folder / f"{net}.html", NARROW) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        page.locator("#view-graph figure:visible .op").first.click()
        panel = page.locator("#panel").bounding_box()
        assert panel["x"] >= 0 and panel["x"] + panel["width"] <= 390
        assert panel["y"] + panel["height"] <= 800
        box = page.locator("#view-graph .port").bounding_box()
        assert box["height"] > 150 and box["y"] + box["height"] <= panel["y"] + 1
        page.locator("#view-graph figure:visible .op").last.click()
        chosen = page.locator("#view-graph .op.chosen").first.bounding_box()
        assert box["y"] <= chosen["y"] and chosen["y"] + chosen["height"] <= panel["y"]
        for tab in page.locator("[role=tab]").all():
            tab.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_dark_is_dark(browser: Any, folder: Path) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        with Opened(browser, folder / "digits.html", WIDE, color_scheme=scheme) as page:
            seen = page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " getComputedStyle(document.querySelector('.fill-forward-fill')).fill]"
            )
            colours.add(tuple(seen))
    (one, other) = colours
    assert one[0] != other[0] and one[1] != other[1]


@pytest.mark.parametrize("net", ["digits", "hostile"])
def test_text_stays_on_its_card(browser: Any, folder: Path, net: str) -> None:
    with Opened(browser, folder / f"{net}.html", WIDE) as page:
        spilt = page.evaluate(
            """[...document.querySelectorAll(
              "#view-graph figure:not([hidden]) .layer")].filter((layer) => {
              const areas = [...layer.querySelectorAll(":scope > path, :scope > polygon")]
                .map((shape) => shape.getBoundingClientRect());
              return [...layer.querySelectorAll("text")].some((text) => {
                const t = text.getBoundingClientRect();
                return !areas.some((a) => t.left >= a.left - 1 && t.right <= a.right + 1 &&
                  t.top >= a.top - 2 && t.bottom <= a.bottom + 2);
              });
            }).map((layer) => layer.querySelector("title").textContent)"""
        )
        assert spilt == []


SPOILT = """() => {
  const figure = document.querySelector("section:not([hidden]) figure:not([hidden])");
  const svg = figure.querySelector("svg"), frame = svg.getBoundingClientRect(), found = [];
  const scale = frame.width / svg.viewBox.baseVal.width;
  const boxes = (elements) => elements.map((e) => [e.getBoundingClientRect(), e.textContent])
    .filter(([box]) => box.width * box.height > 0).sort(([a], [b]) => a.top - b.top);
  const overlap = (all, across, down) => all.forEach(([a, text], i) => {
    for (let j = i + 1; j < all.length && all[j][0].top < a.bottom - down; j++) {
      const b = all[j][0];
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > across) {
        found.push(`${text} over ${all[j][1]}`);
      }
    }
  });
  const texts = boxes([...svg.querySelectorAll("text")]);
  for (const [box, text] of texts) {
    const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1 &&
      box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
    if (!inside) found.push(`${text} is cut`);
  }
  overlap(texts, 2, 4 * scale);
  overlap(boxes([...svg.querySelectorAll(".layer")].map((e) => e.querySelector("path, polygon"))),
    1, 1);
  return [texts.length, found];
}"""
"""How many texts the shown picture has; those that are cut, and what lies over another."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("net", [name for name in NETS if name != "hostile"])
def test_nothing_overlaps_or_is_cut(browser: Any, folder: Path, net: str, scheme: str) -> None:
    with Opened(browser, folder / f"{net}.html", WIDE, color_scheme=scheme) as page:
        for tab in ("graph", "passes", "memory"):
            page.click(f"#tab-{tab}")
            for _ in range(page.locator(f"#view-{tab} figure").count()):
                texts, spoilt = page.evaluate(SPOILT)
                assert texts > 0 and spoilt == []
                page.keyboard.press("]")


@pytest.mark.parametrize("net", NETS)
def test_every_net_can_be_searched_and_stepped_through(
    browser: Any, folder: Path, net: str
) -> None:
    with Opened(browser, folder / f"{net}.html", WIDE) as page:
        page.keyboard.press("/")
        page.keyboard.type("d_")
        page.keyboard.press("Enter")
        assert "d_" in _text(page, "#panel h2") and _text(page, "#found").startswith("1 of ")
        chosen = page.locator("#view-graph figure:visible .op.chosen").first
        chosen.click()
        assert "d_" in _text(page, "#panel h2") and "Derivation" in _text(page, "#panel")
        page.click("#tab-passes")
        steps = page.locator("#view-passes figure").count()
        for step in range(1, steps):
            page.keyboard.press("]")
            assert _text(page, "#view-passes output").startswith(f"{step + 1} ")


def test_print_shows_the_picture_and_the_table(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert not page.is_visible("#search") and not page.is_visible(".zoom >> nth=0")
        assert page.is_visible("#view-graph svg") and page.is_visible("#view-layers table")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(255, 255, 255)"


def test_without_scripts_everything_is_there(browser: Any, folder: Path) -> None:
    with Opened(browser, folder / "digits.html", WIDE, java_script_enabled=False) as page:
        for view in ("graph", "passes", "memory", "layers"):
            assert page.is_visible(f"#view-{view}")
