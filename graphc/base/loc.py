"""The line of the user's code that declared a node."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType, TracebackType

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
_OWN = tuple(os.path.join(_ROOT, folder) + os.sep for folder in ("graphc", "passes"))
_COMMAND_LINE = os.path.join(_OWN[0], "cli") + os.sep
_LIBRARIES = tuple(
    path + os.sep
    for path in {sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib")}
)


@dataclass(frozen=True, slots=True)
class Loc:
    """A line of the user's code; `caller` is the line that called the helper which contains it."""

    file: str
    line: int
    function: str
    caller: Loc | None = None

    @property
    def text(self) -> str:
        """The source of the line, stripped; empty if it cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        where = f"{_shown_file(self.file)}:{self.line}"
        if self.function != "<module>":
            where += f" in {self.function}"
        return where if self.caller is None else f"{where}, called at {self.caller}"


def caller_loc() -> Loc | None:
    """Return the innermost line outside graphc, with its caller if that is the user's too."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _in_users_code(frame):
        if frame.f_code.co_filename.startswith(_COMMAND_LINE):
            return None  # the caller of the command is not the user's code
        frame = frame.f_back
    if frame is None:
        return None
    outer = frame.f_back if frame.f_code.co_name != "<module>" else None
    caller = None
    if outer is not None and _in_users_code(outer):
        caller = _line(*_place(outer))
    return _line(*_place(frame), caller)


def warn(message: str) -> None:
    """Issue a warning at the user's line."""
    loc = caller_loc()
    if loc is None:
        warnings.warn(message, stacklevel=2)
    else:
        warnings.warn_explicit(message, UserWarning, loc.file, loc.line)


def raised_loc(error: BaseException) -> Loc | None:
    """Return the last line outside graphc on the way to the place that raised an exception."""
    found = step = users_frames(error.__traceback__)
    while step is not None:
        found, step = step, users_frames(step.tb_next)
    if found is None:
        return None
    code = found.tb_frame.f_code
    return _line(code.co_filename, found.tb_lineno, code.co_name)


def users_frames(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first line outside graphc on, or None if there is none."""
    while frames is not None and not _in_users_code(frames.tb_frame):
        frames = frames.tb_next
    return frames


def _place(frame: FrameType) -> tuple[str, int, str]:
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name


@lru_cache(maxsize=4096)
def _line(file: str, line: int, function: str, caller: Loc | None = None) -> Loc:
    """Return a Loc, one object for all nodes that a loop declares in the line."""
    return Loc(file, line, function, caller)


def _in_users_code(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file == "<string>":  # an __init__ made by dataclasses; its module is that of its class
        return str(frame.f_globals.get("__name__")).partition(".")[0] != "graphc"
    return _is_users(file)


@lru_cache(maxsize=4096)
def _is_users(file: str) -> bool:
    if file.startswith("<"):  # the REPL, exec and IPython cells; never importlib or dataclasses
        return not file.startswith(("<frozen", "<__array_function__"))
    path = os.path.abspath(file)
    return not path.startswith(_OWN) and not path.startswith(_LIBRARIES)


def _shown_file(file: str) -> str:
    if file.startswith("<stdin>"):
        return "<stdin>"  # Python 3.13 numbers the inputs: <stdin>-2
    cell = _cell_number(file)
    return f"cell [{cell}]" if cell is not None else os.path.basename(file)


def _cell_number(file: str) -> int | None:
    """Return the execution count of the notebook cell that was compiled under this file name."""
    shell = sys.modules.get("IPython")
    if shell is None or os.path.exists(file):
        return None
    running = shell.get_ipython()
    cells = getattr(getattr(running, "compile", None), "_filename_map", {})
    number = cells.get(file)
    return number if isinstance(number, int) else None
