"""The self-test of an exported file: it fails for functions that leave out what they should do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.files.code.self_test import hashed
from tests.extras import needs
from tests.plans import compiled


def perceptron() -> gc.Net:
    """A net whose scores are zeros before it is trained."""
    net = gc.Net("perceptron")
    scores = net.output("scores", gc.mlp(net.input("x", (gc.N, 5)), [4], 3))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def zeros() -> gc.Net:
    """A net whose outputs are zeros, and bytes of each kind, whatever it reads."""
    net = gc.Net("zeros")
    x = net.input("x", (gc.N, 5))
    net.output("zero", gc.abs(x) * 0.0)
    net.output("never", gc.isnan(x))
    return net


CASES: dict[str, tuple[Callable[[], gc.Net], bool, dict[str, bool]]] = {
    "an untrained net": (perceptron, True, {"backward": True}),
    "an untrained net that does not train": (perceptron, False, {}),
    "an untrained net of constants": (perceptron, False, {"infer_only": True}),
    "zeros": (zeros, False, {}),
}


HEAD = re.compile(r"^(void|float) (x_\w+)\([^)]*\)\n\{", re.MULTILINE)
"""The head of a function of the model."""


def may_do_nothing(head: re.Match[str]) -> str:
    """A head, and the line that makes the function do nothing if a variable has its name."""
    returned = " 0" if head[1] == "float" else ""
    idle = f'getenv("IDLE") && !strcmp(getenv("IDLE"), "{head[2]}")'
    return f"{head[0]} if ({idle}) return{returned};"


def said_by(program: Path, idle: str = "") -> dict[str, str]:
    """What a self-test says, by what it is of; the last of equal ones."""
    done = subprocess.run(
        [program], env={"IDLE": idle}, capture_output=True, text=True, check=False
    )
    found = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    assert (done.returncode == 0) == ("WRONG" not in found.values())
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_function_that_does_nothing_is_found(case: str, tmp_path: Path) -> None:
    make, trains, options = CASES[case]
    optimizer = gc.SGD(lr=0.1) if trains else None
    ex = gc.Executor(compiled(make, batch=4, optimizer=optimizer, backend="numpy"), seed=0)
    given = {"self_test": True, **options}
    file, *_ = gc.export_c(ex, tmp_path / "x.c", name="x", **given)  # type: ignore[arg-type]
    names = [head[2] for head in HEAD.finditer(file.read_text())]
    assert len(names) == (4 if trains else 1 + (not options and case != "zeros"))
    code = HEAD.sub(may_do_nothing, file.read_text())
    file.write_text(f"#include <stdlib.h>\n#include <string.h>\n{code}")
    command = [needs("cc"), "-std=c99", "-O0", "-w", "-DX_SELF_TEST", "x.c", "-o", "x"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert set(said_by(tmp_path / "x").values()) == {"right"}
    for name in names:
        wrong = {what for what, said in said_by(tmp_path / "x", name).items() if said == "WRONG"}
        own = {what for what in wrong if what.startswith(name)}
        assert own or (name == "x_init" and "state" in wrong)


def test_no_result_is_hashed_as_what_was_there_before(tmp_path: Path) -> None:
    """Arrays are filled with a byte that they have the least: the file expects another hash."""
    ex = gc.Executor(compiled(zeros, batch=4, backend="numpy"))
    file, *_ = gc.export_c(ex, tmp_path / "x.c", name="x", self_test=True)
    text = file.read_text()
    filled = [int(byte) for byte in re.findall(r"test_fill\(out_\w+, sizeof \w+, (\d+)u\)", text)]
    expected = [int(one) for one in re.findall(r"sizeof\s+out_\w+\),\s+UINT64_C\((\d+)\)", text)]
    sizes = 4 * 5 * 4, 4 * 5
    assert len(filled) == len(expected) == 2
    for byte, size, one in zip(filled, sizes, expected, strict=True):
        assert one == hashed(bytes(size)) != hashed(bytes([byte]) * size)
    assert hashed(np.zeros(3, np.uint8)) != hashed(np.zeros(4, np.uint8))
