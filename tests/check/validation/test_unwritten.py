"""Memory is poisoned before a kernel runs: bytes that it leaves unwritten are refuted by name.

The right values are 0 wherever a fault leaves memory as it was, so that new memory would hide it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation import ValidationError
from graphc.check.validation.plans import validate_plan
from graphc.runtime.workspace import poison, poisoned
from tests.check.validation.test_run_faults import NATIVE, NUMPY, Planted, forget, planted
from tests.extras import needs


def padded() -> gc.Net:
    """Zeros around what a row has."""
    net = gc.Net("padded")
    x = net.input("x", (gc.N, 6))
    net.output("pad", gc.pad(gc.tanh(x), ((0, 0), (70, 70))))
    return net


def beside() -> gc.Net:
    """A convolution whose filter misses the image altogether."""
    net = gc.Net("beside")
    x = net.input("x", (gc.N, 3, 1))
    w = net.constant(np.ones((2, 3, 2), np.float32))
    net.output("sums", gc.conv(gc.exp(x), w, dilation=(2,), padding=(1,), name="missed"))
    return net


def zeros() -> gc.Net:
    """A loop and a product, whose results are all 0."""
    net = gc.Net("zeros")
    x = net.input("x", (gc.N, 6))
    h = gc.relu(-1 - gc.exp(x), name="cut")
    net.output("sums", gc.matmul(h, net.constant(np.ones((6, 4), np.float32))))
    return net


# fmt: off
FAULTS = (
    Planted("numpy leaves padding", "backend", padded, f"{NUMPY}.access:fetch",
            "[partial(out.fill, at.fill)]", "[]"),
    Planted("native sums of nothing", "backend", beside, f"{NATIVE}.window_places:Places._of_line",
            "tile.runs is None", "not tile.runs", "native"),
    Planted("C leaves the last row", "backend", zeros,
            "graphc.backends.c.loops:LoopWriter._by_rows",
            'code.loop("i", rows)', 'code.loop("i", f"{rows} - 1")', "c"),
    Planted("a kernel of the last rows", "lowering", zeros, "graphc.kernels.interpret:_Run.stores",
            "target[...] = value.reshape(target.shape)",
            "target[1:] = value.reshape(target.shape)[1:]"),
)
# fmt: on


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_what_is_not_written_is_refuted(
    fault: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needs(fault.backend)
    plan = gc.compile(fault.net(), batch=4, backend=fault.backend, threads=1)
    assert validate_plan(plan).count.values
    planted(fault, monkeypatch)
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    forget()
    with pytest.raises(ValidationError, match="is not written, or is computed of what") as caught:
        gc.compile(fault.net(), batch=4, backend=fault.backend, threads=1, validate=True)
    forget()
    error = caught.value
    assert error.layer == fault.layer
    assert error.kernel and "test_unwritten.py" in str(error)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "bool", "uint16"])
def test_what_is_poisoned_is_found(dtype: str) -> None:
    memory = np.zeros((2, 6), dtype)
    some = memory[:, 1:4]
    poison(some)
    assert poisoned(some).all() and not poisoned(memory)[:, [0, 4, 5]].any()
    assert np.isnan(some).all() if dtype.startswith("f") else some.all()
    one = np.zeros((), dtype)
    assert not poisoned(one)
    poison(one)
    assert poisoned(one)
