"""A folder with a model file to work in."""

from __future__ import annotations

from pathlib import Path

import pytest

MODEL = """\
import graphc as gc


def net():
    net = gc.Net("small")
    x = net.input("x", (gc.N, 64))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 8))
    net.output("scores", gc.affine(h, 10, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    return net


def table():
    net = gc.Net("table")
    x = net.input("x", (gc.N, 2))
    y = net.input("y", (gc.N,))
    guess = gc.reshape(gc.affine(x, 1), (gc.N,))
    net.output("guess", guess)
    net.loss("loss", gc.mse_loss(guess, y))
    return net


def no_loss():
    net = gc.Net("no_loss")
    net.output("out", gc.affine(net.input("x", (gc.N, 2)), 3))
    return net


def misfit():
    net = gc.Net("misfit")
    x = net.input("x", (gc.N, 2))
    return gc.affine(x, 3, weight=net.parameter("w", (5, 3)))


def boom():
    return helper()


def helper():
    raise RuntimeError("no luck")


def seven():
    return 7


def needs(width):
    return width


class Wrong(gc.Op):
    name = "wrong"

    def infer(self, ins):
        return ins[0]

    def reference(self, ins):
        return 3 * ins[0]

    def grad(self, b, ins, out, dout):
        return (2 * dout,)


def wrong_gradient():
    net = gc.Net("wrong_gradient")
    h = gc.affine(net.input("x", (gc.N, 2)), 3, name="below")
    net.loss("loss", gc.mean(gc.affine(gc.apply(Wrong(), h), 1, name="above")))
    return net
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with model.py in it."""
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


DEEP = """\
import graphc as gc


def net():
    net = gc.Net("deep")
    h = net.input("x", (gc.N, 32))
    y = net.input("y", (gc.N,), dtype="int64")
    for _ in range(6):
        h = gc.relu(gc.affine(h, 32))
    net.loss("loss", gc.softmax_loss(h, y))
    return net
"""


@pytest.fixture
def deep(folder: Path) -> str:
    """A model whose activations are most of what training needs."""
    (folder / "deep.py").write_text(DEEP)
    return "deep.py:net"
