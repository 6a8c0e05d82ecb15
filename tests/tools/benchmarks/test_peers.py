"""The comparison with the peers computes the same everywhere and counts right; nothing is timed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extras import needs
from tests.tools.benchmarks.peers import outline, reference, rooflines, rounds, worker, workloads
from tests.tools.benchmarks.peers.gpt import Gpt, ViT
from tests.tools.benchmarks.peers.outline import Outline, batches
from tests.tools.benchmarks.peers.rooflines import profiled, roofline
from tests.tools.benchmarks.peers.rounds import Comparison, Options, Row
from tests.tools.benchmarks.peers.sides import SIDES, chosen
from tests.tools.benchmarks.peers.sides.side import Infer, Side, Unsupported
from tests.tools.benchmarks.peers.table import bfloat16, report, table, time_text
from tests.tools.benchmarks.peers.workloads import Chain, MobileNet, ResNet, Workload

SMALL = {
    "chain": Workload(Chain((5, 7, 6, 3)), 4, infer=(1, 4)),
    "normalised": Workload(Chain((5, 7, 6, 3), batchnorm=True, keep=0.8), 8),
    "autoencoder": replace(workloads.WORKLOADS["autoencoder"], batch=3, infer=(3,)),
    "residual": replace(workloads.WORKLOADS["residual"], batch=5, infer=(1, 5)),
    "two_inputs": replace(workloads.WORKLOADS["two_inputs"], batch=6, infer=(1, 6)),
    "two_losses": replace(workloads.WORKLOADS["two_losses"], batch=4, infer=(4,)),
    "gpt": replace(workloads.WORKLOADS["gpt"], declare=Gpt(5, 3, 8, 2, 1), batch=2),
    "lenet": replace(workloads.WORKLOADS["lenet"], batch=2, infer=(2,)),
    "resnet": Workload(ResNet(1, (3, 4, 5), 8), 3, kind="images"),
    "mobilenet": Workload(MobileNet(8, 4, 8, ((1, 4, 1, 1), (2, 6, 2, 2))), 3, kind="images"),
    "vit": Workload(ViT(4, 2, 8, 2, 1), 3, kind="sequences"),
}
HERE = ("graphc-numpy", "graphc", "unfrozen-graphc", "numpy", "numpy-layers", "numpy-hand")
BFLOAT16 = [name for name in SIDES if name.startswith("bf16-")]
"""The sides that need no package that graphc's tests do not need, too."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets that take no time."""
    for module in (outline, reference, worker):
        monkeypatch.setattr(module, "WORKLOADS", SMALL)
    monkeypatch.setattr(worker, "WARM_SECONDS", 0.0)


@pytest.mark.parametrize("workload", SMALL)
def test_the_reference_goes_down_its_own_gradient(workload: str) -> None:
    """The loss falls by the rate times the square of the gradient, which differences give."""
    (feeds,) = batches(workload, SMALL[workload].batch, 1)
    parameters = [p.astype(np.float64) for p in outline.outline(workload).parameters]

    def loss(arrays: list[Any]) -> tuple[float, list[Any]]:
        values = [reference.Value(a) for a in arrays]
        tape = reference.Tape(feeds, values)
        SMALL[workload].declare(tape)
        tape.backward()
        return tape.loss, [v.grad for v in values]

    _, gradients = loss(parameters)
    rng, eps = np.random.default_rng(0), 1e-6
    along = [rng.standard_normal(p.shape) for p in parameters]
    ahead, behind = (
        loss([p + sign * eps * d for p, d in zip(parameters, along, strict=True)])[0]
        for sign in (1, -1)
    )
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, along, strict=True))
    assert (ahead - behind) / (2 * eps) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def supports(name: str, workload: str) -> bool:
    """The sides that leave nothing out; one of them has nets of rows alone."""
    return name == "graphc-numpy" or (name == "numpy" and SMALL[workload].kind == "rows")


@pytest.mark.one_in(14)
@pytest.mark.parametrize("workload", SMALL)
@pytest.mark.parametrize("name", HERE)
def test_every_side_trains_alike(name: str, workload: str) -> None:
    try:
        _, answer = worker.prepared(name, 1, workload, 0)
    except Unsupported:
        assert not supports(name, workload)
        return
    assert answer["error"] < 1e-5


@pytest.mark.one_in(7)
@pytest.mark.parametrize("workload", [name for name, made in SMALL.items() if made.infer])
@pytest.mark.parametrize("name", HERE)
def test_every_side_infers_alike(name: str, workload: str) -> None:
    for rows in SMALL[workload].infer:
        try:
            _, answer = worker.prepared(name, 1, workload, rows)
        except Unsupported:
            assert not supports(name, workload)
            return
        assert answer["error"] < 1e-5


def others() -> list[Any]:
    """List the sides of other packages; those that run a C++ compiler take minutes each."""
    return [
        pytest.param(name, marks=pytest.mark.campaign if "compile" in name else pytest.mark.slow)
        for name in SIDES
        if name not in (*HERE, "bound")
    ]


@pytest.mark.parametrize("name", others())
def test_peers_compute_alike(name: str) -> None:
    needs(SIDES[name].package)
    for workload, made in SMALL.items():
        for rows in (0, *made.infer):
            with suppress(Unsupported):
                worker.prepared(name, 1, workload, rows)


def test_a_side_that_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "losses", lambda name, feeds: [0.0] * reference.STEPS)
    with pytest.raises(worker.Wrong, match="differs from float64"):
        worker.prepared("numpy", 1, "chain", 0)


@pytest.mark.parametrize("rows", [0, 4])
def test_a_side_of_8_bits_rounds_and_is_near(rows: int) -> None:
    exact, rounded = (
        worker.prepared(name, 1, "chain", rows)[1]["error"]
        for name in ("graphc", "bf16-graphc-blocks")
    )
    assert exact < 1e-6 < 1e-5 < rounded < 5e-2


def test_products_are_counted() -> None:
    made = Outline(SMALL["chain"])
    assert made.flops(4, train=False) == 4 * 2 * (5 * 7 + 7 * 6 + 6 * 3)
    assert made.flops(4, train=True) == 4 * 2 * (2 * 5 * 7 + 3 * 7 * 6 + 3 * 6 * 3)


def test_inference_is_fed_what_the_output_needs() -> None:
    assert set(batches("two_inputs", 2, 1)[0]) == {"state", "action", "target"}
    assert set(batches("two_inputs", 2, 1, inference=True)[0]) == {"state", "action"}
    assert set(batches("chain", 2, 1, inference=True)[0]) == {"x"}


def test_a_name_covers_those_that_it_begins() -> None:
    assert chosen("graphc,jax-rbg") == ["graphc", "graphc-numpy", "jax-rbg"]
    assert chosen("num") == []
    assert chosen("bf16-torch,-bf16-torch-compile") == [
        *("bf16-torch", "bf16-torch-medium", "bf16-torch-cast")
    ]
    assert not set(chosen(None)) & set(BFLOAT16)
    assert {*chosen(None), *chosen("bf16")} == set(SIDES)


MACHINE = {
    **{"processor": "fast", "cores": 2, "system": "any", "python": "3"},
    "peaks": [{"threads": t, "flops": 1e11 * t, "bytes": 2e10 * t} for t in (1, 2)],
}


def comparison() -> Comparison:
    rows = [
        Row("graphc", 1, "graphc 1", [10.0, 11.0, 12.0], 0.0, 0.5, 100.0),
        Row("graphc", 2, "graphc 1", [20.0, 22.0, 24.0], 0.0, 0.5, 100.0),
        Row("torch-fused", 2, "torch 2", [30.0, 33.0, 60.0], 0.0, 0.1, 300.0),
        Row("bound", 2, "loop", [5.0, 5.5, 6.0]),
    ]
    return Comparison(
        "tiny", 0, 10, "2026-11-25", rows, {"jax on 1 thread": "jax is not installed"}
    )


class ReadsScores(Side):
    """A side that reads what it answers."""

    def versions(self) -> str:
        return "none"

    def load(self, path: Path, batch: int) -> Infer:
        scores = np.load(path.with_suffix(".onnx.npy"))
        return lambda feeds: scores[:batch]


def test_an_exported_network_is_compared_before_it_is_timed(tmp_path: Path) -> None:
    path = tmp_path / "net"
    x, y = np.ones((8, 2), np.float32), np.arange(24.0).reshape(8, 3)
    np.savez(path.with_suffix(".npz"), x=x, y=y, flops=7)
    np.save(path.with_suffix(".onnx.npy"), y)
    for rows in (1, 8):
        timed, answer = worker.loading(ReadsScores(1), path, rows)
        assert answer["error"] == 0
        assert len(timed(0.0, 0.0)) == 1
        assert len(timed(0.0, 1e-6)) >= 1
    np.save(path.with_suffix(".onnx.npy"), y + 1e-3)
    with pytest.raises(worker.Wrong, match=r"4\.3e-05 of the largest output"):
        worker.loading(ReadsScores(1), path, 8)


def test_a_bound_counts_the_products_of_exported_networks(tmp_path: Path) -> None:
    np.savez(tmp_path / "tcn.npz", flops=7)
    assert rounds._flops("tcn", 8, tmp_path) == 56


def test_modes_are_told_in_titles_and_left_out_of_overviews() -> None:
    options = Options(["graphc"], [1], 1, 0.1, [], 1.0, Path(), beside=2, period=0.005)
    late = replace(comparison(), mode=options.mode)
    assert late.title == "tiny, training step at batch 32, beside 2 busy processes, every 5 ms"
    late.results[0].late = [10.0, 20.0, 30.0]
    text = report([late], MACHINE, "")
    assert "## Training steps" not in text
    assert "| p50 | p99 | p99.9 |" in text
    assert "| 10.0 us | 20.0 us | 30.0 us |" in text


def test_a_table_shows_each_side_at_its_better_number_of_threads() -> None:
    lines = table(comparison()).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:7]]
    assert [row[:3] for row in cells] == [
        ["bound", "2", "5.50 us"],
        ["graphc", "1", "11.0 us"],
        ["torch-fused", "2", "33.0 us"],
    ]
    assert [row[4] for row in cells] == ["0.50", "1.00", "3.00"]
    assert [row[5] for row in cells] == ["1.00", "2.00", "6.00"]
    assert lines[-1] == "Left out: jax (jax is not installed)."


def test_times_in_bfloat16_are_compared_with_graphcs() -> None:
    made = comparison()
    assert "in bfloat16" not in report([made], MACHINE, "")
    made.results.append(Row("bf16-graphc", 2, "graphc 1", [5.0, 6.0, 8.0]))
    lines = bfloat16([made]).splitlines()
    assert "| graphc | 1.83 |" in lines  # the median of 10/5, 11/6 and 12/8
    assert "| torch-fused | 6.00 |" in lines


def test_a_report_names_machine_and_versions() -> None:
    text = report([comparison()], MACHINE, "")
    assert "Peaks measured, by the number of threads: 100 GFLOP/s and 20 GB/s on 1;" in text
    assert "Measured on 2026-11-25: fast, 2 cores" in text
    later = replace(comparison(), date="2026-12-01")
    assert "from 2026-11-25 to 2026-12-01" in report([comparison(), later], MACHINE, "")
    assert "graphc 1; torch 2" in text
    assert "| torch-fused | 33.0 us |" in text


@pytest.mark.slow
def test_a_roofline_has_what_leaves_most_first_and_a_sum() -> None:
    made = profiled("lenet", 1, 1)
    lines = roofline("lenet", made).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:-2]]
    assert len(cells) == rooflines.SHOWN + 2
    assert {row[0].strip("`") for row in cells[:-2]} <= {t.instr.node for t in made.timed}
    beyond = [rooflines.left(t) for t in made.timed]
    assert cells[0][-1] == time_text(max(beyond) * 1e6)
    assert cells[-1][0] == "all"
    assert cells[-1][-1] == time_text(sum(beyond) * 1e6)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0.5, "0.50 us"), (99.94, "99.9 us"), (999, "999 us"), (1000, "1.00 ms"), (2.5e6, "2.50 s")],
)
def test_times_have_three_digits(microseconds: float, text: str) -> None:
    assert time_text(microseconds) == text
