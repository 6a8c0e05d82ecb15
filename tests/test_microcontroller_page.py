"""The page that leads to a microcontroller: its files, programs and commands, in their order."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.c.microcontroller import blocks
from tests.extras import needs


@pytest.mark.slow
def test_each_command_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for kind, text in blocks():
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "<page>", "exec"), names)
            printed = out.getvalue()
        elif kind == "sh":
            printed = "".join(map(shell, text.splitlines()))
        elif kind == "text":
            assert printed == text
        else:
            name = text.split()[1].rstrip(":")
            Path(name).write_text(text)


def shell(command: str) -> str:
    """What a command prints; the test is skipped where its program is not installed."""
    program, *arguments = command.split()
    if program == "graphc":
        words = [sys.executable, "-m", "graphc", *arguments]
    else:
        words = [program if program.startswith("./") else needs(program), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
