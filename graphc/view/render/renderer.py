"""Run the renderer (Graphviz), which lays out DOT text, and write what it draws."""

from __future__ import annotations

import html
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphviz.backend import dot_command, execute

from graphc.base.errors import GraphError, RendererMissing
from graphc.files.disk import write_file
from graphc.view.render.finish import finished
from graphc.view.render.scene import Scene

FORMATS = ("svg", "png", "pdf", "dot", "html")
PNG_DPI = 144

INSTALL = """\
install one of these:
    pip install 'graphc-nn[dot]'
    apt-get install graphviz
    brew install graphviz
    winget install Graphviz.Graphviz
  or write .dot or .html, which need no renderer"""
PURE = "graphviz-pure"
PURE_FORMATS = ("svg", "png")


def format_of(target: Path, formats: Sequence[str] = FORMATS, what: str = "") -> str:
    """Return the format that the suffix names; raise GraphError if it is not one of `formats`."""
    format = target.suffix.lower().removeprefix(".")
    if format not in formats:
        raise GraphError(
            f"cannot draw {what}{target.name!r}: the suffix says the format",
            hint=f"one of {', '.join('.' + name for name in formats)}",
        )
    return format


def put(target: Path, data: bytes) -> Path:
    """Write the file, all or nothing; raise GraphError, which says why, if that fails."""
    return write_file(target, [data], GraphError)


class LayoutTooSlow(GraphError):
    """The error for a picture that the renderer did not finish in time."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """A program that takes DOT text; `full` if it makes pdf too."""

    path: Path
    full: bool


def find_renderer() -> Renderer | None:
    """Return the renderer: GRAPHC_DOT, `dot` on PATH, or graphviz-pure; None if there is none.

    Raise RendererMissing if the variable GRAPHC_DOT does not name a program.
    """
    asked = os.environ.get("GRAPHC_DOT", "")
    if asked:
        path = shutil.which(asked)
        if path is None:
            message = f"GRAPHC_DOT={asked!r} does not name a program that runs"
            raise RendererMissing(message, hint=INSTALL)
        return _renderer(path)
    path = shutil.which("dot") or shutil.which(PURE) or _pure()
    return None if path is None else _renderer(path)


def need_renderer(format: str) -> Renderer:
    """Return a renderer that makes `format`, or raise RendererMissing with what to install."""
    found = find_renderer()
    if found is None:
        raise RendererMissing(f"{format} needs Graphviz, and no renderer was found", hint=INSTALL)
    if not found.full and format not in PURE_FORMATS:
        raise RendererMissing(
            f"graphviz-pure makes {' and '.join(PURE_FORMATS)}, not {format}", hint=INSTALL
        )
    return found


def _renderer(path: str) -> Renderer:
    return Renderer(Path(path), full=not Path(path).stem.lower().startswith(PURE))


def _pure() -> str | None:
    """Return the program of the package graphviz-pure in this environment, on PATH or not."""
    try:
        files = importlib.metadata.files(PURE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.stem == PURE:
            path = shutil.which(str(Path(str(file.locate())).resolve()))
            if path is not None:
                return path
    return None


def run(renderer: Renderer, source: str, format: str, seconds: float = 10) -> bytes:
    """Return the laid-out picture; raise LayoutTooSlow after `seconds`, GraphError if it fails."""
    command = dot_command.command("dot", format)
    command[0] = renderer.path
    # Renderers that know this variable stamp a pdf with it instead of the time of day.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    try:
        done = execute.run_check(
            command, input=source.encode(), capture_output=True, quiet=True,
            timeout=seconds, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LayoutTooSlow(
            f"{renderer.path.name} took longer than {seconds:.0f} s to lay the picture out",
            hint="write .dot, and lay it out by hand",
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", None) or str(error).encode()
        text = output.decode(errors="replace").strip()[-2000:]
        raise GraphError(f"{renderer.path.name} could not make the {format}: {text}") from None
    return bytes(done.stdout)


def lay_out(draw: Callable[[], Scene], format: str) -> tuple[Scene, bytes]:
    """Return what is drawn, or else its simpler form, with its file.

    Raise RendererMissing, before anything is drawn, if there is no renderer for the format.  Raise
    LayoutTooSlow if even the simpler form is too tangled.
    """
    renderer = need_renderer(format)
    scene = draw()
    source = scene.dot(dpi=PNG_DPI if format == "png" else None)
    try:
        data = run(renderer, source, format, scene.seconds)
    except LayoutTooSlow:
        if scene.simpler is None:
            raise
        return lay_out(scene.simpler, format)
    return scene, finished(data, scene).encode() if format == "svg" else data


def svg_of(draw: Callable[[], Scene]) -> str:
    """Return the laid-out drawing as SVG text, themed for light and dark."""
    return lay_out(draw, "svg")[1].decode()


def write_drawing(draw: Callable[[], Scene], path: str | Path, page: Callable[[], str]) -> Path:
    """Write a drawing in the format that the suffix names; `page` makes that of .html."""
    target = Path(path)
    format = format_of(target)
    if format == "html":
        return put(target, page().encode())
    return put(target, draw().dot().encode() if format == "dot" else lay_out(draw, format)[1])


def missing_note() -> str:
    """Return the note of a page without pictures; "" if there is a renderer."""
    if find_renderer() is not None:
        return ""
    return f"No picture: no Graphviz renderer was found. To have one, {INSTALL}"


def dot_section(scene: Scene) -> str:
    """Return the DOT text as a part of a page, to lay out on another machine."""
    return f"\n<h2>DOT</h2>\n<pre>{html.escape(scene.dot())}</pre>"
