"""The layout of a picture: its file's format, the renderer on this machine, and its runs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphviz.backend import dot_command, execute

from graphc.base.errors import GraphError, RendererMissing
from graphc.files.disk import write_file

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


def find_renderer(dot: str | Path | None = None) -> Renderer | None:
    """Return the renderer: `dot`, or else GRAPHC_DOT, `dot` on PATH, or graphviz-pure.

    Return None if there is none.  Raise RendererMissing if `dot` or the variable GRAPHC_DOT does
    not name a program.
    """
    asked = str(dot) if dot is not None else os.environ.get("GRAPHC_DOT", "")
    if asked:
        path = shutil.which(asked)
        if path is None:
            who = "dot=" if dot is not None else "GRAPHC_DOT="
            raise RendererMissing(f"{who}{asked!r} does not name a program that runs", hint=INSTALL)
        return _renderer(path)
    path = shutil.which("dot") or shutil.which(PURE) or _pure()
    return None if path is None else _renderer(path)


def need_renderer(format: str, dot: str | Path | None = None) -> Renderer:
    """Return a renderer that makes `format`, or raise RendererMissing with what to install."""
    found = find_renderer(dot)
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
    """Return the laid-out picture.

    Raise LayoutTooSlow after `seconds`.  Raise GraphError with the renderer's message if it fails.
    """
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
        said = getattr(error, "stderr", None) or str(error).encode()
        text = said.decode(errors="replace").strip()[-2000:]
        raise GraphError(f"{renderer.path.name} could not make the {format}: {text}") from None
    return bytes(done.stdout)
