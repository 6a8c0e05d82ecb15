"""Files by suffix, how a renderer is found, and what is said where there is none."""

from __future__ import annotations

import importlib.metadata
import os
import stat
from html import escape
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError, RendererMissing
from graphc.view.render import notebook_bundle, render_plan, renderer
from graphc.view.render.draw import picture
from tests.error_text import error_text
from tests.extras import needs
from tests.view.render.graphs import digits, render_graph

INSTALL = """\
  hint: install one of these:
    pip install 'graphc-nn[dot]'
    apt-get install graphviz
    brew install graphviz
    winget install Graphviz.Graphviz
  or write .dot or .html, which need no renderer"""

BEGINS = {"svg": b"<svg ", "png": b"\x89PNG", "dot": b"digraph ", "html": b"<!DOCTYPE html>"}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any renderer; the folder that its PATH is."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GRAPHC_DOT", raising=False)
    monkeypatch.setattr(importlib.metadata, "files", _no_package)
    return tmp_path


def _no_package(name: str) -> None:
    raise importlib.metadata.PackageNotFoundError(name)


def _program(path: Path, script: str = "exit 0") -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("suffix", BEGINS)
def test_the_suffix_says_the_format(suffix: str, tmp_path: Path) -> None:
    path = render_graph(digits().graph(), tmp_path / f"net.{suffix.upper()}")
    assert path.read_bytes().startswith(BEGINS[suffix])


@pytest.mark.needs("full renderer")
def test_pdf_where_the_renderer_makes_it(tmp_path: Path) -> None:
    assert render_graph(digits().graph(), tmp_path / "net.pdf").read_bytes().startswith(b"%PDF")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        render_graph(digits().graph(), tmp_path / "net.gif")
    assert error_text(caught.value) == (
        "cannot draw 'net.gif': the suffix says the format\n"
        "  hint: one of .svg, .png, .pdf, .dot, .html"
    )


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "net.dot"
    with pytest.raises(GraphError) as caught:
        render_graph(digits().graph(), path)
    assert error_text(caught.value) == (
        f"cannot write {path}: No such file or directory\n"
        f"  hint: make the folder first: {path.parent}"
    )


def test_a_plan_is_drawn_by_its_training_program(tmp_path: Path) -> None:
    plan = gc.compile(digits(), batch=4, optimizer=gc.SGD(lr=0.1))
    assert "d_affine_1" in render_plan(plan, tmp_path / "a.dot").read_text()
    net = gc.Net("infer")
    net.output("y", gc.relu(net.input("x", (gc.N, 2))))
    text = render_plan(gc.compile(net, batch=4), tmp_path / "b.dot").read_text()
    assert "relu_1" in text and "gradient" not in text


def test_a_net_draws_itself(tmp_path: Path) -> None:
    net = digits()
    dot = net.render(tmp_path / "net.dot").read_text()
    assert "affine_1" in dot and "gradient" not in dot
    page = net.render(str(tmp_path / "net.html")).read_text()
    assert '<th scope="row">affine_1</th>' in page
    with pytest.raises(GraphError):
        net.render(tmp_path / "net.txt")


def test_a_net_draws_what_a_notebook_shows(tmp_path: Path) -> None:
    needs("renderer")
    net = digits()
    shown = net._repr_mimebundle_()["image/svg+xml"]
    assert net.render(tmp_path / "net.svg").read_text() == shown


def test_a_net_draws_each_repeat_if_asked(tmp_path: Path) -> None:
    net = gc.Net("deep")
    h = net.input("x", (gc.N, 4))
    for _ in range(8):
        h = gc.relu(gc.affine(h, 4))
    net.output("y", h)
    folded, whole = (
        net.render(tmp_path / f"{fold}.dot", fold=fold).read_text() for fold in (True, False)
    )
    assert "affine_8" in whole and "affine_8" not in folded and "more time" in folded


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_without_a_renderer_the_error_says_what_to_install(bare: Path, suffix: str) -> None:
    with pytest.raises(RendererMissing) as caught:
        render_graph(digits().graph(), bare / f"net.{suffix}")
    sentence = f"{suffix} needs Graphviz, and no renderer was found"
    assert error_text(caught.value) == f"{sentence}\n{INSTALL}"
    assert not list(bare.iterdir())


def test_without_a_renderer_dot_and_the_page_are_written(bare: Path) -> None:
    graph = digits().graph()
    assert render_graph(graph, bare / "net.dot").read_text().startswith("digraph ")
    page = render_graph(graph, bare / "net.html").read_text()
    assert escape("pip install 'graphc-nn[dot]'") in page and "<svg" not in page
    assert "<pre>digraph graphc {" in page and '<th scope="row">affine_1</th>' in page


def test_without_a_renderer_a_notebook_shows_text(bare: Path) -> None:
    assert notebook_bundle(digits().graph(), "text") == {"text/plain": "text"}


def test_nothing_is_drawn_before_the_renderer_is_known(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "graphc.view.render.layer_scene.picture", lambda *args: pytest.fail("work was done")
    )
    with pytest.raises(RendererMissing):
        render_graph(digits().graph(), bare / "net.svg")


def test_the_pure_renderer_makes_no_pdf(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DOT", str(_program(bare / "graphviz-pure")))
    with pytest.raises(RendererMissing) as caught:
        render_graph(digits().graph(), bare / "net.pdf")
    assert error_text(caught.value) == f"graphviz-pure makes svg and png, not pdf\n{INSTALL}"


def test_the_order_in_which_renderers_are_looked_for(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert renderer.find_renderer() is None
    programs = {name: bare / name for name in ("packaged", "dot", "variable")}
    (bare / "env").mkdir()
    packaged = _program(bare / "env" / "graphviz-pure")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [_Located(packaged)])
    assert renderer.find_renderer() == renderer.Renderer(packaged, full=False)
    _program(programs["dot"])
    assert renderer.find_renderer() == renderer.Renderer(programs["dot"], full=True)
    monkeypatch.setenv("GRAPHC_DOT", str(_program(programs["variable"])))
    assert renderer.find_renderer() == renderer.Renderer(programs["variable"], full=True)


class _Located:
    """A file of a distribution, as importlib.metadata describes it."""

    def __init__(self, path: Path) -> None:
        self.path, self.stem = path, path.stem

    def locate(self) -> os.PathLike[str]:
        return self.path


def test_a_renderer_that_is_asked_for_and_not_there(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(bare / "dot")
    monkeypatch.setenv("GRAPHC_DOT", "nodot")
    with pytest.raises(RendererMissing) as caught:
        render_graph(digits().graph(), bare / "a.svg")
    text = f"GRAPHC_DOT='nodot' does not name a program that runs\n{INSTALL}"
    assert error_text(caught.value) == text


def test_the_message_of_a_failing_renderer_is_kept(bare: Path) -> None:
    _program(bare / "dot", "echo 'no such font' >&2; exit 3")
    with pytest.raises(GraphError) as caught:
        render_graph(digits().graph(), bare / "net.png")
    assert error_text(caught.value) == "dot could not make the png: no such font"


def test_a_renderer_that_hangs_is_stopped(bare: Path) -> None:
    hanging = renderer.Renderer(_program(bare / "dot", "exec /bin/sleep 60"), full=True)
    with pytest.raises(renderer.LayoutTooSlow) as caught:
        renderer.run(hanging, "digraph {}", "svg", seconds=0.2)
    assert error_text(caught.value) == (
        "dot took longer than 0 s to lay the picture out\n"
        "  hint: write .dot, and lay it out by hand"
    )


def test_a_graph_too_tangled_to_lay_out_shows_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = gc.Net("tangled")
    h = net.input("x", (gc.N, 2))
    for _ in range(60):
        h = gc.relu(h)
    whole = len(picture(net.graph(), fold=False).layers)
    real = renderer.run
    calls: list[int] = []

    def slow_once(own: renderer.Renderer, source: str, *args: object) -> bytes:
        calls.append(source.count("<table port="))
        if len(calls) == 1:
            raise renderer.LayoutTooSlow("too slow")
        return real(own, source, "svg")

    monkeypatch.setattr("graphc.view.render.renderer.run", slow_once)
    text = render_graph(net.graph(), tmp_path / "net.svg", fold=False).read_text()
    assert calls == [whole, 41]
    assert "not drawn one by one: 21 of 61 layers, in the middle" in text


def test_drawing_leaves_the_graphviz_package_as_it_was(tmp_path: Path) -> None:
    from graphviz.backend import dot_command

    render_graph(digits().graph(), tmp_path / "net.svg")
    assert Path("dot") == dot_command.DOT_BINARY


def test_notebooks_get_the_picture_and_the_text() -> None:
    needs("renderer")
    net = digits()
    bundle = net._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "image/svg+xml"}
    assert bundle["text/plain"] == str(net) and bundle["image/svg+xml"].startswith("<svg")
    trained = gc.compile(net, batch=2)._repr_mimebundle_()
    assert "gradients of parameters" in trained["image/svg+xml"]


@pytest.mark.slow
def test_notebooks_get_the_pictures_of_memory_and_time(tmp_path: Path) -> None:
    plan = gc.compile(digits(), batch=4, optimizer=gc.SGD(lr=0.1))
    feeds = {"x": np.zeros((4, 64)), "y": np.zeros(4, np.int64)}
    for shown in (plan.memory, gc.Executor(plan).profile(feeds, rounds=1)):
        bundle = shown._repr_mimebundle_()
        assert bundle["text/plain"] == str(shown)
        assert bundle["image/svg+xml"] == shown.render(tmp_path / "shown.svg").read_text()


def test_of_a_plan_without_an_arena_a_notebook_gets_the_text() -> None:
    net = gc.Net()
    net.output("y", net.input("x", (gc.N, 2)))
    memory = gc.compile(net, batch=2, backend="numpy").memory
    assert not any(memory.arenas.values())
    assert memory._repr_mimebundle_() == {"text/plain": str(memory)}
