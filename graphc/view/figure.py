"""Figures of matplotlib: made if it is installed, and written to files that notebooks display."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.files.disk import shown, write_file

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())

_MIME = {".png": "image/png", ".svg": "image/svg+xml"}


class PictureFile(_Path):
    """The path of a picture, which a notebook displays if it can."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = {"text/plain": repr(self)}
        kind = _MIME.get(self.suffix.lower())
        if kind is not None and self.is_file():
            data = self.read_bytes()
            found[kind] = data if kind == "image/png" else data.decode()
        return found


def new_figure(what: str, width: float, height: float) -> Any:
    """Return a figure of a size in inches; raise GraphError about `what` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GraphError(
            f"{what} is drawn by matplotlib, which is not installed",
            hint="pip install 'graphc-nn[plot]'",
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def bare(axis: Any) -> None:
    """Remove the upper and right edge of the frame of a plot."""
    axis.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Any, path: Path) -> Path:
    """Write the figure in the format that the suffix names; raise GraphError if that fails.

    A notebook shows the picture where the returned path is the result of a cell.
    """
    path = path if path.suffix else Path(f"{path}.png")
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=150)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise GraphError(
            f"cannot draw {shown(path)}: {reason}", hint=f"{path.stem}.png is a good name"
        ) from error
    return PictureFile(write_file(path, [drawn.getbuffer()], GraphError))
