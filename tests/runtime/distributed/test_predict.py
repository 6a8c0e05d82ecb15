"""What steps on many ranks are predicted to take."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import pytest

import graphc as gc
from graphc.cli import main
from graphc.cli.plan import bandwidth, latency
from graphc.runtime.distributed import predict as module
from graphc.runtime.distributed.predict import Event, Network, Timeline, counts, predict, timeline
from tests.runtime.distributed.launched import NET
from tests.runtime.distributed.nets import classes, feeds

FAST = Network(1e9, 1e-5)


def test_the_formulas_of_ring_and_tree() -> None:
    """Ten thousand bytes: 10 us at 1 GB/s; a message 10 us more."""
    assert FAST.ring(10_000, 2) == pytest.approx(2 * (10e-6 + 5e-6))
    assert FAST.tree(10_000, 2) == pytest.approx(2 * (10e-6 + 5e-6))
    assert FAST.ring(10_000, 8) == pytest.approx(14 * (10e-6 + 1.25e-6))
    assert FAST.tree(10_000, 8) == pytest.approx(2 * 3 * 10e-6 + 2 * 7 / 8 * 10e-6)
    assert FAST.tree(1_000, 8) == pytest.approx(3 * (10e-6 + 1e-6))
    assert FAST.tree(10_000, 1) == FAST.ring(10_000, 1) == 0
    assert FAST.tree(10_000, 5) == FAST.tree(10_000, 8)


def test_a_large_buffer_costs_little_more_on_many_ranks() -> None:
    nbytes = 10**9
    for way in (FAST.tree, FAST.ring):
        assert way(nbytes, 1024) < 2.03 * way(nbytes, 2)


@pytest.mark.parametrize(
    ("takes", "step"),
    [
        (0.0, 10.0),  # the work alone
        (1.0, 10.0),  # each bucket has arrived before it is awaited
        (3.0, 5.0 + 3.0 + 3.0),  # the second is awaited at 7 and begins at 5
        (5.0, 2.0 + 10.0 + 3.0),  # the second waits for the first
    ],
)
def test_buckets_travel_one_after_the_other(
    takes: float, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent at 2 and 5, awaited at 7; three seconds of work are left then."""
    events = (
        Event("send", 0, 8, 2.0),
        Event("send", 1, 8, 3.0),
        Event("receive", 0, 8, 2.0),
        Event("receive", 1, 8, 0.0),
    )
    assert module._step(Timeline(events, 3.0), lambda nbytes: takes) == step


def compiled(ranks: int, backend: str = "numpy") -> gc.Plan:
    net = classes(dropout=False)
    optimizer = gc.SGD(lr=0.01)
    return gc.compile(net, batch=32, optimizer=optimizer, ranks=ranks, threads=1, backend=backend)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=pytest.mark.slow)])
def test_a_timeline_has_each_bucket_sent_and_then_awaited(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passes.data_parallel.BUCKET_BYTES", 1024)
    batch = feeds(classes(), 32, 0)
    found = timeline(compiled(4, backend), batch, 1e-3)
    sent = [event.bucket for event in found.events if event.kind == "send"]
    awaited = [event.bucket for event in found.events if event.kind == "receive"]
    assert sorted(sent) == sorted(awaited) == list(range(len(sent)))
    assert len(sent) > 1
    assert all(event.after >= 0 for event in found.events)
    assert found.seconds > 0
    assert timeline(compiled(1, backend), batch, 1e-3).events == ()


def test_a_prediction_lies_between_its_bounds() -> None:
    batch = feeds(classes(), 32, 0)
    found = predict(compiled, batch, Network(1e8, 1e-4), counts(6), 1e-3)
    for rows in found.values():
        assert [row.ranks for row in rows] == [1, 2, 4, 6]
        assert [row.rows for row in rows] == [32, 16, 8, 6]
        assert rows[0].exchange == 0
        for row in rows:
            assert row.work <= row.step * (1 + 1e-9)
            assert row.step <= row.blocking * (1 + 1e-9)
            assert -1e-9 <= row.hidden <= 1


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "MEASURED", 1e-9)
    (tmp_path / "net.py").write_text(NET)
    model = f"{tmp_path}/net.py:net"
    words = ["plan", model, "--batch", "64", "--ranks", "4", "--bandwidth", "10Gb/s"]
    numpy = ["--backend", "numpy"]
    assert main([*words, *numpy]) == 1
    assert "ranks train, so there must be an optimizer" in capsys.readouterr().err
    words += ["--optimizer", "sgd", *numpy]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "on a network of 10 Gb/s and 20 us" in out
    assert [line.split()[0] for line in out.splitlines() if line[:1].isdigit()] == [*"124"] * 2
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["network"] == {"bandwidth": 1.25e9, "latency": 2e-5}
    assert [row["ranks"] for row in data["ring"]] == [1, 2, 4]
    assert main([*words, "--ranks", "65"]) == 1
    assert "64 rows are too few for 65 ranks" in capsys.readouterr().err
    assert main([*words[:6], "--optimizer", "sgd", *numpy]) == 0
    out = capsys.readouterr().out
    assert "cut into 4 shards on 4 ranks" in out
    assert "send bucket 0:" in out


def test_units() -> None:
    assert bandwidth("10Gb/s") == 1.25e9
    assert bandwidth("1.5 GB/s") == 1.5e9
    assert latency("20us") == 20e-6
    assert latency("1.5ms") == 1.5e-3
    for unit in (partial(bandwidth, "10G"), partial(bandwidth, "0b/s"), partial(latency, "5")):
        with pytest.raises(argparse.ArgumentTypeError):
            unit()
