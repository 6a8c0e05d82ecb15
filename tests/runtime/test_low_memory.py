"""A plan for which the system has not the memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.runtime import state as state_module

ROOT = Path(__file__).resolve().parents[2]


def network() -> gc.Net:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 8))
    net.output("scores", gc.affine(gc.relu(gc.affine(x, 512, name="a")), 4, name="b"))
    net.loss("loss", gc.mean(net["b"] ** 2))
    return net


LIMITED = """
import resource
import numpy as np
import graphc as gc
from tests.runtime.test_low_memory import network

small = gc.compile(network(), batch=8, optimizer=gc.SGD(lr=0.1), backend="numpy")
large = gc.compile(network(), batch=1_000_000, optimizer=gc.Adam(name="adam"), backend="numpy")
ex = gc.Executor(small)
x = np.ones((8, 8), np.float32)
ex.step(x=x)
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, resource.RLIM_INFINITY))
for state in (None, ex.state):
    try:
        gc.Executor(large, state=state)
    except gc.OutOfMemoryError as error:
        assert isinstance(error, (gc.GraphError, MemoryError)) and "bytes" in str(error), error
    else:
        raise AssertionError("it had the memory")
assert not [name for name in ex.state if name.endswith(".square")], list(ex.state)
print(ex.step(x=x) > 0, gc.Executor(small, seed=1).step(x=x) > 0)
"""


@pytest.mark.needs("Linux")
def test_a_limit_of_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]


def test_nothing_is_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever memory ends, a state that is shared stays as it was, and can be used."""
    small = gc.compile(network(), batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")
    other = gc.compile(network(), batch=4, optimizer=gc.Adam(name="adam"), backend="numpy")
    ex = gc.Executor(small)
    before = list(ex.state)
    whole, blocks = state_module.block, len(ex.state.blocks)
    for fails in range(5):
        left = [fails]

        def block(nbytes: int, left: list[int] = left) -> np.ndarray:  # type: ignore[type-arg]
            left[0] -= 1
            if left[0] < 0:
                raise MemoryError("Unable to allocate 9 TiB")
            return whole(nbytes)

        monkeypatch.setattr(state_module, "block", block)
        monkeypatch.setattr("graphc.runtime.workspace.block", block)
        with pytest.raises(gc.OutOfMemoryError, match="not enough memory for this plan"):
            gc.Executor(other, state=ex.state)
        assert list(ex.state) == before
        assert len(ex.state.blocks) == blocks
    monkeypatch.undo()
    assert ex.step(x=np.ones((4, 8))) > 0
    assert gc.Executor(other, state=ex.state).step(x=np.ones((4, 8))) > 0
