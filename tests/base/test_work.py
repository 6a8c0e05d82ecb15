"""The budget of work for reading files: what is counted, how it is raised, and when nothing is."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import graphc as gc
from graphc.base import work
from graphc.base.work import (
    BYTES,
    NODES,
    bytes_left,
    spend_array,
    spend_bytes,
    spend_nodes,
    work_budget,
)
from graphc.files import model_file
from graphc.files.serialize import from_bytes, to_bytes


def derivatives(depth: int) -> gc.Net:
    """Each of them makes several times the nodes of the one before."""
    net = gc.Net("derivatives")
    x = net.input("x", (gc.N, 4))
    h = gc.sum(gc.tanh(x))
    for _ in range(depth):
        g = gc.grad(h, x)
        assert isinstance(g, gc.Value)
        h = gc.sum(gc.sin(g) * g)
    net.output("h", h)
    return net


def executor(depth: int) -> gc.Executor:
    return gc.Executor(gc.compile(derivatives(depth), batch=2, backend="numpy"))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file that makes more nodes than it may, where that is less than usual."""
    monkeypatch.setattr(work, "NODES", 100)
    monkeypatch.setattr(model_file, "COMPILED", 1)
    return to_bytes(executor(3))


def test_nothing_is_counted_without_a_file() -> None:
    spend_nodes(10**12)
    spend_array(10**12)
    assert bytes_left() is None


def test_what_is_spent_is_gone() -> None:
    with work_budget("f", nbytes=10, nodes=5):
        assert bytes_left() == BYTES + 160
        spend_bytes(BYTES)
        assert bytes_left() == 160
        with work_budget("inside", nbytes=10**9, nodes=0):
            assert bytes_left() == 160, "one budget for all that a file holds"
        spend_nodes(NODES + 5)
        with pytest.raises(gc.ModelFileError, match=r"reading f takes .* more than 16,005 nodes"):
            spend_nodes()


def test_an_error_that_is_lost_comes_back() -> None:
    def lost() -> None:
        with work_budget("f", nbytes=0, nodes=0):
            try:
                spend_array(10**12)
            except ValueError:
                raise ValueError("line 3 cannot be read") from None

    with pytest.raises(gc.ModelFileError, match="too much work"):
        lost()


def test_a_model_file_says_how_to_allow_more(large: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gc"
    path.write_bytes(large)
    with pytest.raises(gc.ModelFileError) as caught:
        gc.load(path)
    assert "model.gc takes too much work: more than" in str(caught.value)
    assert "hint: if that is intended, allow ten times as much: work=10, or GRAPHC_WORK=10" in str(
        caught.value
    )
    assert gc.load(path, work=100).plan.batch == 2


def test_the_environment_allows_more(large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_WORK", "100")
    assert isinstance(from_bytes(large), gc.Executor)
    with pytest.raises(gc.ModelFileError, match="too much work"):
        from_bytes(large, work=1)
    monkeypatch.setenv("GRAPHC_WORK", "much")
    with pytest.raises(gc.GraphError, match="GRAPHC_WORK is 'much', it must be a number above 0"):
        from_bytes(large)


@pytest.mark.parametrize("given", [0, -1, "10", True, float("nan")])
def test_work_is_a_number(given: object, large: bytes) -> None:
    with pytest.raises(gc.GraphError, match="it must be a number above 0"):
        from_bytes(large, work=given)  # type: ignore[arg-type]


def test_ones_own_nets_may_take_any_work(large: bytes) -> None:
    """Pickles run code anyway: who reads one trusts it."""
    assert isinstance(copy.deepcopy(executor(3)), gc.Executor)
    assert isinstance(pickle.loads(pickle.dumps(executor(3).plan)), gc.Plan)


@pytest.mark.slow
def test_a_large_graph_is_read(tmp_path: Path) -> None:
    """The nodes that a file may make grow with those that are written in it."""
    net = gc.Net("long")
    x, y = net.input("x", (gc.N, 2)), net.input("y", (gc.N,), dtype="int64")
    h = gc.affine(x, 2)
    for _ in range(800):
        h = gc.tanh(h)
    net.loss("loss", gc.softmax_loss(h, y))
    plan = gc.compile(net, batch=2, optimizer=gc.Adam(), backend="numpy")
    path = gc.save(tmp_path / "long.gc", gc.Executor(plan))
    assert len(gc.load(path).plan.declared) > 800
