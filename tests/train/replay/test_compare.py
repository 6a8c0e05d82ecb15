"""Two runs that differ in one thing: the right step and the right node."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.numpy import functions, kernels
from graphc.train.record import recorder
from graphc.train.record.folder import RunFolder
from graphc.train.record.journal import WHOLE, StateDigest
from tests.train.nets import BATCH, executor, table

ROOT = Path(__file__).parents[3]
X, Y = table(45)
EPOCHS = 3
STEPS = 6


def net(*, eps: float = 1e-5, keep: float = 0.8, extra: bool = False) -> gc.Net:
    net = gc.Net("classes")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 8, name="hidden"), eps=eps, name="norm"), name="active")
    h = gc.dropout(h, keep_prob=keep, name="drop")
    h = gc.mul(h, 1.5, name="more") if extra else h
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y, name="cost"))
    return net


def run(
    folder: Path,
    *,
    data: Any = (X, Y),
    seed: int = 3,
    declared: gc.Net | None = None,
    executor_seed: int = 0,
    optimizer: Any = None,
    backend: str | None = None,
    **options: Any,
) -> Path:
    chosen = optimizer or gc.Adam(lr=0.01)
    plan = executor(declared or net(), optimizer=chosen, backend=backend).plan
    ex = gc.Executor(plan, seed=executor_seed)
    gc.fit(ex, data, **{"epochs": EPOCHS, "seed": seed, "record": folder, **options})
    return folder


def changed(row: int) -> tuple[Any, Any]:
    x = X.copy()
    x[row, 2] += 0.25
    return x, Y


def first_use(row: int) -> tuple[int, int]:
    """The step that a row is used in first, and its row of the batch: by fit's rule."""
    from graphc.ir.init import generator

    order = np.arange(45)
    generator(3, "epoch 1").shuffle(order)
    place = int(np.flatnonzero(order == row)[0])
    return place // BATCH + 1, place % BATCH


def slower_in_epoch_two(epoch: gc.Epoch) -> None:
    if epoch.number == 2:
        epoch.ex.hyper["lr"] = 0.001


Kind = tuple[dict[str, Any], int, str]
KINDS: dict[str, Kind] = {
    "learning rate": ({"optimizer": gc.Adam(lr=0.02)}, 1, "hyper.lr"),
    "a callback": ({"callbacks": [slower_in_epoch_two]}, 2 * STEPS + 1, "hyper.lr"),
    "another optimizer": (
        {"optimizer": gc.AdamW(lr=0.01, weight_decay=0.3)},
        1,
        "hidden.weight.next",
    ),
    "an attribute": ({"declared": net(eps=1e-3)}, 1, "norm"),
    "dropout": ({"declared": net(keep=0.7)}, 1, "drop.mask"),
    "one more layer": ({"declared": net(extra=True)}, 1, "scores"),
    "initial weights": ({"executor_seed": 1}, 1, "hidden.weight"),
    "order of rows": ({"seed": 4}, 1, "x"),
    "a row": ({"data": changed(30)}, first_use(30)[0], "x"),
    "a late row": ({"data": changed(3)}, first_use(3)[0], "x"),
    "a label": ({"data": (X, np.where(np.arange(45) == 7, (Y + 1) % 3, Y))}, first_use(7)[0], "y"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.one_in(14)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_planted_is_found(kind: str, plain: Path, tmp_path: Path) -> None:
    options, step, node = KINDS[kind]
    found = gc.compare_runs(plain, run(tmp_path, **options))
    assert found is not None
    assert (found.step, found.node) == (step, node), str(found)
    assert found.epoch == (step - 1) // STEPS + 1
    assert f"step {step}" in str(found)
    assert repr(node) in str(found)


def test_equal_runs(plain: Path, tmp_path: Path) -> None:
    assert gc.compare_runs(plain, run(tmp_path)) is None
    assert gc.compare_runs(plain, plain) is None


def test_as_far_as_both_go(plain: Path, tmp_path: Path) -> None:
    assert gc.compare_runs(plain, run(tmp_path / "longer", epochs=EPOCHS + 2)) is None
    assert gc.compare_runs(run(tmp_path / "shorter", epochs=1), plain) is None


def test_rows_are_named(plain: Path, tmp_path: Path) -> None:
    found = gc.compare_runs(plain, run(tmp_path, data=changed(30)))
    assert found is not None
    assert (found.rows, found.data_rows) == ((first_use(30)[1],), (30,))
    assert found.part == "data"
    assert "numbers, by up to 0.25; the first at (4, 2)" in found.described


@pytest.mark.slow
def test_nodes_that_are_declared_otherwise_are_shown(plain: Path, tmp_path: Path) -> None:
    found = gc.compare_runs(plain, run(tmp_path, declared=net(eps=1e-3)))
    assert found is not None
    assert found.texts is not None
    assert all(text.startswith("norm: ") for text in found.texts)
    assert "eps=0.001" in found.texts[1]


def test_choices_of_fit_are_reported(plain: Path, tmp_path: Path) -> None:
    found = gc.compare_runs(plain, run(tmp_path, seed=4))
    assert found is not None
    assert found.otherwise == ("seed 3 and 4",)


@pytest.mark.needs("native")
def test_backends_round_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHC_BACKEND", raising=False)  # each run is repeated on its own
    runs = [run(tmp_path / name, backend=name) for name in ("native", "numpy")]
    found = gc.compare_runs(*runs)
    assert found is not None
    assert found.part in ("forward", "backward", "update")
    assert found.otherwise == ("backend native and numpy",)


def test_threads_of_the_native_backend_change_nothing(tmp_path: Path) -> None:
    runs = []
    for threads in (1, 2):
        plan = executor(net(), threads=threads).plan
        gc.fit(gc.Executor(plan), (X, Y), epochs=2, record=tmp_path / str(threads))
        runs.append(tmp_path / str(threads))
    assert gc.compare_runs(*runs) is None


# ---------------------------------------------------------------------- what samples miss


@pytest.mark.slow
def test_a_difference_that_no_sample_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of samples that see nothing: digests of all bytes, and the end, find it."""
    monkeypatch.setattr(recorder, "SECONDS", 0.0)

    def blind(self: StateDigest, step: int) -> int:
        return self.whole() if step % WHOLE == 0 else 0

    epochs = WHOLE // STEPS + 5
    straight = run(tmp_path / "1", epochs=epochs)
    monkeypatch.setattr(StateDigest, "after", blind)
    monkeypatch.setattr(gc.Executor, "step", without_loss(gc.Executor.step))
    straight = run(tmp_path / "2", epochs=epochs)
    soon = run(tmp_path / "3", data=changed(30), epochs=epochs)
    found = gc.compare_runs(straight, soon)
    assert found is not None
    assert (found.step, found.node) == (first_use(30)[0], "x")
    few = [run(tmp_path / str(i), data=data) for i, data in enumerate(((X, Y), changed(30)), 4)]
    found = gc.compare_runs(*few)
    assert found is not None
    assert (found.step, found.node) == (first_use(30)[0], "x")


def without_loss(step: Callable[..., float]) -> Callable[..., float]:
    def stepped(*args: Any, **by_name: Any) -> float:
        step(*args, **by_name)
        return 1.0

    return stepped


# ---------------------------------------------------------------------- made otherwise


def test_code_that_is_another_now_is_reported(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = functions.clip

    def other(out: Any, x: Any, low: float, high: float) -> Any:
        return (*clip(out, x, low, high), lambda: np.multiply(out, np.float32(2), out=out))

    first = run(tmp_path / "first", backend="numpy")
    monkeypatch.setattr(functions, "clip", other)
    monkeypatch.setattr(
        kernels, "known_plan", kernels.known_plan.__wrapped__
    )  # plans hold functions
    found = gc.compare_runs(first, run(tmp_path / "second", backend="numpy"))
    assert found is not None
    assert (found.step, found.node) == (1, None)
    assert "does not give the recorded result" in found.why
    assert "its code has changed" in found.why


RECORD = """
import numpy as np
import graphc as gc

net = gc.Net("large")
x, y = net.input("x", (gc.N, 700)), net.input("y", (gc.N,), dtype="int64")
h = gc.relu(gc.affine(x, 500, name="hidden"))
net.loss("loss", gc.softmax_loss(gc.affine(h, 10, name="scores"), y))
plan = gc.compile(net, batch=128, optimizer=gc.SGD(lr=0.1), backend="numpy")
rng = np.random.default_rng(0)
data = rng.normal(size=(384, 700)).astype("float32"), rng.integers(0, 10, 384)
gc.fit(gc.Executor(plan), data, record={folder!r})
"""


@pytest.mark.slow
def test_other_threads_of_numpys_blas(tmp_path: Path) -> None:
    """Each run is repeated under its own variables, in a separate process."""
    runs = []
    for threads in ("1", "2"):
        folder = tmp_path / threads
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": threads}
        code = RECORD.format(folder=str(folder))
        subprocess.run([sys.executable, "-c", code], env=environ, check=True, cwd=tmp_path)
        runs.append(folder)
    found = gc.compare_runs(*runs)
    journals = [RunFolder(folder).journal().steps(0, 3) for folder in runs]
    if np.array_equal(*journals):
        assert found is None, "this BLAS gives the same for one and for two threads"
        return
    assert found is not None
    assert found.node is not None, found.why
    assert found.part in ("forward", "backward", "update")
    assert found.otherwise == ("OPENBLAS_NUM_THREADS 1 and 2",)
    assert gc.compare_runs(runs[1], runs[1]) is None
