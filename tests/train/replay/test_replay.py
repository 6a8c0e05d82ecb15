"""A replayed step has the bytes of a run that was never recorded, and every value of it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.reference import evaluate
from graphc.train.record import journal, recorder
from graphc.train.record.folder import RunFolder
from tests.train.nets import BATCH, bits, classes, executor, table

X, Y = table(45)
EPOCHS = 4
STEPS = 6
BACKENDS = pytest.mark.parametrize("backend", ["numpy", None])
OPTIMIZERS = {
    "adam": gc.Adam(lr=0.01),
    "clipped": gc.AdamW(lr=0.01, clip_norm=0.5),
    "accumulated": gc.SGD(lr=0.05, momentum=0.9, accumulate=4),
}


class Watched(gc.Executor):
    """Keeps the loss, and the bytes before and after each step; independent of any record."""

    def __init__(self, plan: gc.Plan) -> None:
        super().__init__(plan)
        self.seen: list[tuple[float, dict[str, bytes], dict[str, bytes], dict[str, bytes]]] = []

    def step(self, feeds: Any = None, /, **by_name: Any) -> float:
        before = bits(self)
        loss = super().step(feeds, **by_name)
        self.seen.append((loss, before, bits(self), {k: a.tobytes() for k, a in feeds.items()}))
        return loss


def seen(plan: gc.Plan, data: Any = (X, Y), **options: Any) -> Watched:
    ex = Watched(plan)
    gc.fit(ex, data, **{"epochs": EPOCHS, "seed": 3, **options})
    return ex


def recorded(plan: gc.Plan, run: Path, data: Any = (X, Y), **options: Any) -> gc.Executor:
    ex = gc.Executor(plan)
    gc.fit(ex, data, record=run, **{"epochs": EPOCHS, "seed": 3, **options})
    return ex


def check(run: Path, wanted: Watched, step: int, data: Any = None) -> gc.Replay:
    found = gc.replay(run, step=step, data=data)
    loss, before, after, feeds = wanted.seen[step - 1]
    assert found.unlike is None
    assert found.loss == loss
    assert {name: array.tobytes() for name, array in found.before.items()} == before
    assert {name: array.tobytes() for name, array in found.feeds.items()} == feeds
    assert bits(found.ex) == after
    return found


@pytest.mark.one_in(7)
@BACKENDS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_any_step(tmp_path: Path, optimizer: str, backend: str | None) -> None:
    plan = executor(optimizer=OPTIMIZERS[optimizer], backend=backend).plan
    wanted = seen(plan)
    assert bits(recorded(plan, tmp_path)) == bits(wanted), "recording changes nothing"
    for step in (1, 4, 5, 6, 7, 8, 18, 24):
        found = check(tmp_path, wanted, step)
        assert (found.epoch, found.batch) == ((step - 1) // STEPS + 1, (step - 1) % STEPS + 1)
        assert found.rows == (BATCH if step % STEPS else 45 % BATCH)
        assert np.array_equal(X[found.data_rows], found.feeds["x"])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("optimizer", [gc.Adam(lr=0.01), gc.SGD(lr=0.1, accumulate=2)])
def test_a_batch_cut_into_shards(tmp_path: Path, optimizer: Any) -> None:
    plan = executor(classes(weighted=True), optimizer=optimizer, shards=2).plan
    data = (X, Y, np.linspace(0.5, 2.0, len(X)))
    wanted = seen(plan, data)
    recorded(plan, tmp_path, data)
    found = check(tmp_path, wanted, 7)
    by_hand = found.feeds["x"] @ found.before["hidden.weight"] + found.before["hidden.bias"]
    np.testing.assert_allclose(found.value("hidden"), by_hand, rtol=1e-5)
    assert not found.exact("hidden")
    assert found.part("d_hidden.weight") == "backward"
    assert gc.compare_runs(tmp_path, tmp_path) is None


def test_from_the_nearest_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """States are written on the way and thinned out; replays begin at the newest before a step."""
    monkeypatch.setattr(recorder, "SECONDS", 0.0)
    monkeypatch.setattr(recorder, "KEPT", 3)
    plan = executor().plan
    monkeypatch.setattr(journal, "WHOLE", 100)
    monkeypatch.setattr(recorder, "WHOLE", 100)
    epochs = 500 // STEPS
    wanted = seen(plan, epochs=epochs)
    recorded(plan, tmp_path, epochs=epochs)
    last = epochs * STEPS
    assert list(RunFolder(tmp_path).states()) == [0, 200, 400, last]
    taken: list[int] = []
    step_of = gc.Executor.step

    def counted(self: gc.Executor, *args: Any, **by_name: Any) -> float:
        taken.append(1)
        return step_of(self, *args, **by_name)

    monkeypatch.setattr(gc.Executor, "step", counted)
    for step, before in ((1, 0), (200, 0), (201, 200), (last, 400)):
        taken.clear()
        check(tmp_path, wanted, step)
        assert len(taken) == step - 1 - before


def part_files(folder: Path) -> Path:
    folder.mkdir()
    for number, rows in enumerate((slice(0, 11), slice(11, 40), slice(40, 45))):
        np.savez(folder / f"{number}.npz", x=X[rows], y=Y[rows])
    return folder


def made(epoch: int) -> Any:
    order = np.random.default_rng(epoch).permutation(45)
    for start in range(0, 45, 8):
        yield X[order[start : start + 8]], Y[order[start : start + 8]]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", ["part files", "function", "mapped"])
def test_other_kinds_of_data(tmp_path: Path, kind: str) -> None:
    data: Any = made
    if kind == "part files":
        data = part_files(tmp_path / "part files")
    if kind == "mapped":
        np.save(tmp_path / "x.npy", X)
        data = (np.load(tmp_path / "x.npy", mmap_mode="r"), Y)
    plan = executor().plan
    wanted = seen(plan, data)
    recorded(plan, tmp_path / "run", data)
    for step in (1, 8, 24):
        check(tmp_path / "run", wanted, step, data)


def test_weights_of_rows_and_classes(tmp_path: Path) -> None:
    plan = executor(classes(weighted=True)).plan
    options = {"sample_weight": np.linspace(0.1, 2, 45), "class_weight": {0: 1.0, 2: 3.5}}
    wanted = seen(plan, **options)
    recorded(plan, tmp_path, **options)
    check(tmp_path, wanted, 17)


def test_what_callbacks_change(tmp_path: Path) -> None:
    def slower(epoch: gc.Epoch) -> None:
        epoch.ex.hyper["lr"] *= 0.5

    plan = executor().plan
    wanted = seen(plan, callbacks=[slower])
    recorded(plan, tmp_path, callbacks=[slower])
    assert list(RunFolder(tmp_path).changes()) == [1, 2, 3, 4]
    for step in (6, 7, 13, 24):
        check(tmp_path, wanted, step)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("stop", [1, 5, 6, 7, 20])
def test_a_run_that_was_stopped_and_resumed(tmp_path: Path, stop: int) -> None:
    class StopAt(gc.Executor):
        left = stop

        def step(self, feeds: Any = None, /, **by_name: Any) -> float:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
            return super().step(feeds, **by_name)

    plan = executor().plan
    wanted = seen(plan)
    options = {"epochs": EPOCHS, "seed": 3, "checkpoint": tmp_path / "c", "record": tmp_path / "r"}
    with pytest.raises(KeyboardInterrupt):
        gc.fit(StopAt(plan), (X, Y), **options)
    check(tmp_path / "r", wanted, stop)
    gc.fit(gc.Executor(plan), (X, Y), resume=True, **options)
    for step in (1, stop, min(stop + 1, 24), 24):
        check(tmp_path / "r", wanted, step)


def test_a_run_recorded_from_where_it_was_resumed_on(tmp_path: Path) -> None:
    plan = executor().plan
    wanted = seen(plan)
    gc.fit(gc.Executor(plan), (X, Y), epochs=2, seed=3, checkpoint=tmp_path / "c")
    options = {"epochs": 4, "seed": 3, "checkpoint": tmp_path / "c", "record": tmp_path / "r"}
    gc.fit(gc.Executor(plan), (X, Y), resume=True, **options)
    check(tmp_path / "r", wanted, 2 * STEPS + 1)
    with pytest.raises(gc.GraphError, match=r"has no step 12: it has 13 to 24"):
        gc.replay(tmp_path / "r", step=2 * STEPS)


@pytest.mark.one_in(2)
@BACKENDS
def test_the_values_of_nodes(tmp_path: Path, backend: str | None) -> None:
    """Each beside the reference rules; updates, losses and gradients beside the executor."""
    plan = executor(optimizer=gc.SGD(lr=0.1), backend=backend).plan
    recorded(plan, tmp_path)
    found = gc.replay(tmp_path, step=9)
    graph = plan.programs["step"].graph
    assert [node.name for node in found.nodes] == [node.name for node in graph]
    wanted = evaluate(graph, found.feeds, found.before, found.rows)
    for node in found.nodes:
        close = np.allclose(found.value(node.name), wanted[node.name], rtol=1e-4, atol=1e-6)
        assert close, node.name
    for name in plan.parameter_names:
        value = found.value(f"{name}.next")
        assert value.tobytes() == found.ex.parameters[name].tobytes()
        assert found.exact(f"{name}.next")
        assert found.part(f"{name}.next") == "update"
    assert float(found.value("softmax_loss_1")) == found.loss
    ex = gc.Executor(plan)
    ex.state = dict(found.before)
    ex.forward(found.feeds, train=True)
    for name, gradient in ex.backward().items():
        assert np.allclose(found.value(f"d_{name}"), gradient, rtol=1e-5, atol=1e-7)
        assert found.exact(f"d_{name}")
        assert found.part(f"d_{name}") == "backward"
    parts = [found.part(name) for name in ("x", "hidden.weight", "hidden", "d_scores")]
    assert parts == ["data", "state", "forward", "backward"]


@pytest.mark.slow
def test_a_node_that_was_fused(tmp_path: Path) -> None:
    net = gc.Net("fused")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 8, name="hidden"), name="active")
    net.loss("loss", gc.softmax_loss(gc.affine(h, 3, name="scores"), y))
    recorded(executor(net).plan, tmp_path)
    found = gc.replay(tmp_path, step=2)
    assert "hidden" not in {node.name for node in found.nodes}
    assert not found.exact("hidden")
    assert found.part("hidden") == "forward"
    assert np.array_equal(np.maximum(found.value("hidden"), 0) > 0, found.value("active") > 0)
    with pytest.raises(gc.GraphError, match="did you mean hidden"):
        found.value("hiddn.weight")


def test_own_ops_are_handed_over(tmp_path: Path) -> None:
    net = gc.Net("own")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(gc.apply(Twice(), x), 3), y))
    plan = executor(net).plan
    wanted = seen(plan)
    recorded(plan, tmp_path)
    with pytest.raises(gc.ModelFileError, match="Twice"):
        gc.replay(tmp_path, step=1)
    assert gc.replay(tmp_path, step=5, ops=[Twice]).loss == wanted.seen[4][0]


class Twice(gc.Op):
    name = "twice"

    def infer(self, ins: Any) -> Any:
        return ins[0]

    def reference(self, ins: Any) -> Any:
        return 2 * ins[0]

    def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
        return (2 * dout,)


def test_another_machine_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of an op has changed since: the first step that is not as recorded is reported."""
    from graphc.backends.numpy import functions, kernels

    plan = executor(backend="numpy").plan
    recorded(plan, tmp_path)
    clip = functions.clip

    def other(out: Any, x: Any, low: float, high: float) -> Any:
        calls = clip(out, x, low, high)
        return (*calls, lambda: np.multiply(out, np.float32(1.001), out=out))

    monkeypatch.setattr(functions, "clip", other)
    monkeypatch.setattr(
        kernels, "known_plan", kernels.known_plan.__wrapped__
    )  # plans hold functions
    assert gc.replay(tmp_path, step=4).unlike == 1
    text = RunFolder(tmp_path).about_path.read_text()
    RunFolder(tmp_path).about_path.write_text(text.replace('"numpy": "', '"numpy": "0'))
    (shown,) = gc.replay(tmp_path, step=4).made_otherwise
    assert shown == f"numpy 0{np.__version__} and {np.__version__}"
