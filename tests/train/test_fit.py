"""gc.fit against loops of steps written out here."""

from __future__ import annotations

import builtins
import gc as collector
import logging
import signal
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.train.run import StepBoundary
from graphc.train.source import ArraySource
from graphc.view import plots
from tests.extras import needs
from tests.plans import compiled

BATCH = 8


def declare() -> gc.Net:
    net = gc.Net("line", dtype="float64")
    x = net.input("x", (gc.N, 3))
    y = net.input("y", (gc.N,))
    guess = gc.reshape(gc.affine(x, 1, init="zeros", name="line"), (gc.N,))
    net.output("guess", guess)
    net.output("mean_gap", gc.mean(gc.abs(guess - y)))
    net.loss("loss", gc.mean((guess - y) ** 2))
    return net


def executor(**choices) -> gc.Executor:
    plan = compiled(declare, batch=BATCH, **{"optimizer": gc.SGD(lr=0.05), **choices})
    return gc.Executor(plan)


def table(rows: int = 21, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    return x, x @ [1.0, -2.0, 0.5] + 0.25


def test_without_shuffling_it_is_a_loop_over_slices():
    x, y = table(21)
    ex, by_hand = executor(), executor()
    history = gc.fit(ex, (x, y), epochs=3, shuffle=False)
    means = []
    for _ in range(3):
        total = 0.0
        for start in range(0, 21, BATCH):
            rows = slice(start, start + BATCH)
            total += len(x[rows]) * by_hand.step(x=x[rows], y=y[rows])
        means.append(total / 21)
    assert history.loss == pytest.approx(means, rel=1e-14)
    np.testing.assert_array_equal(ex.parameters.flat(), by_hand.parameters.flat())
    assert int(ex.state["updates"]) == 9


def test_every_row_is_used_once_an_epoch():
    seen: list[float] = []

    class Watching(gc.Executor):
        def step(self, feeds=None, /, **by_name):
            seen.extend(feeds["y"].tolist())
            np.testing.assert_array_equal(feeds["x"][:, 0], feeds["y"])
            return super().step(feeds, **by_name)

    rows = np.arange(21.0)
    ex = Watching(executor().plan)
    gc.fit(ex, {"y": rows, "x": np.repeat(rows[:, None], 3, 1)}, epochs=2, batch=5)
    first, second = seen[:21], seen[21:]
    assert sorted(first) == sorted(second) == rows.tolist()
    assert first != second
    assert first != rows.tolist()


def test_the_order_depends_on_seed_and_epoch_only():
    def weights(seed: int, noise: int = 0) -> bytes:
        np.random.seed(noise)  # noqa: NPY002 - global state must not matter
        ex = executor()
        gc.fit(ex, table(), epochs=2, seed=seed)
        return ex.parameters.flat().tobytes()

    assert weights(0) == weights(0, noise=3)
    assert weights(0) != weights(1)


def test_it_learns_a_line():
    ex = executor()
    history = gc.fit(ex, table(200), validation=table(50, seed=1), epochs=30)
    np.testing.assert_allclose(ex.parameters.flat(), [1.0, -2.0, 0.5, 0.25], atol=1e-6)
    assert history.loss[-1] < 1e-6 < history.loss[0]
    assert history.val_loss[-1] < 1e-6


def test_validation_is_evaluate():
    held = table(30, seed=1)
    ex = executor()
    history = gc.fit(ex, table(), validation=held, epochs=2)
    found = ex.evaluate(held)
    assert history.val_loss[-1] == found["loss"]
    assert history.metrics == {"mean_gap": [history.metrics["mean_gap"][0], found["mean_gap"]]}
    assert history.epochs == [1, 2]
    assert len(history.seconds) == 2


def test_validation_changes_nothing_in_training():
    a, b = executor(), executor()
    gc.fit(a, table(), epochs=2)
    gc.fit(b, table(), validation=table(9, seed=1), epochs=2)
    np.testing.assert_array_equal(a.parameters.flat(), b.parameters.flat())


def test_several_losses_add_up():
    net = declare()
    net.loss("small", 0.01 * gc.sum(net["line.weight"] ** 2))
    ex = gc.Executor(gc.compile(net, batch=BATCH, optimizer=gc.SGD(0.05)))
    held = table(16, seed=1)
    history = gc.fit(ex, table(), validation=held)
    found = ex.evaluate(held)
    assert history.val_loss == [found["loss"] + found["small"]]


def test_accumulation_goes_on_from_batch_to_batch():
    ex = executor(optimizer=gc.SGD(0.05, accumulate=2))
    gc.fit(ex, table(24), epochs=2)
    assert int(ex.state["updates"]) == 3


def test_inputs_by_row_groups_other_axes_and_scalars():
    net = gc.Net("odd", dtype="float64")
    pairs = net.input("pairs", (gc.N * 2, 3))
    across = net.input("across", (4, gc.N))
    scale = net.input("scale", ())
    w = net.parameter("w", (3,), init=1.0)
    net.loss("loss", scale * gc.mean(pairs * w) + gc.mean(across))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(0.1)))
    rng = np.random.default_rng(0)
    feeds = {
        "pairs": rng.normal(size=(20, 3))[:, ::-1],
        "across": np.asfortranarray(rng.normal(size=(4, 10))),
        "scale": np.float64(2.0),
    }
    types = {name: ex.plan.declared[name].type for name in feeds}
    got = list(_copied(ArraySource(feeds, types, 10, 4).batches(0)))
    assert [n for n, _ in got] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([f["pairs"] for _, f in got]), feeds["pairs"])
    np.testing.assert_array_equal(np.hstack([f["across"] for _, f in got]), feeds["across"])
    gc.fit(ex, feeds, epochs=2)


def _copied(batches):
    for n, feeds in batches:
        yield n, {name: array.copy() for name, array in feeds.items()}


def test_batches_make_no_arrays():
    x = np.zeros((4096, 64))
    types = {"x": gc.TensorType((gc.N, 64), "float64")}
    source = ArraySource({"x": x}, types, 4096, 1000, seed=0)

    def epoch(number: int) -> None:
        for _ in source.batches(number):
            pass

    epoch(0)
    collector.collect()
    tracemalloc.start()
    for number in range(1, 4):
        epoch(number)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000  # neither a batch of 512,000 bytes nor an order of 32,768


# ---------------------------------------------------------------------- mistakes

X, Y = table()


@pytest.mark.parametrize(
    ("kind", "data", "options", "words"),
    [
        (gc.FeedError, (X, Y[:5]), {}, "'x' has 21 rows, 'y' has 5"),
        (gc.FeedError, X, {}, "in the order of the inputs, and none for 'y'"),
        (gc.FeedError, {"x": X, "y": Y, "z": Y}, {}, "there is no input 'z'"),
        (gc.FeedError, (X, Y, Y), {}, "3 arrays were given, the net has 2 inputs"),
        (gc.FeedError, (X[:0], Y[:0]), {}, "0 rows"),
        (gc.FeedError, (X[:, :2], Y), {}, "input 'x' takes (N, 3)"),
        (gc.FeedError, (X.astype(str), Y), {}, "input 'x' takes float64"),
        (gc.FeedError, (X, Y), {"validation": X}, "validation: input 'y' is missing"),
        (gc.FeedError, (X, Y), {"validation": (X, Y[:2])}, "'y' has 2"),
        (gc.GraphError, (X, Y), {"epochs": 0}, "epochs is 0"),
        (gc.GraphError, (X, Y), {"epochs": 1.5}, "epochs is 1.5"),
        (gc.GraphError, (X, Y), {"batch": 9}, "the plan takes 1 to 8 rows"),
        (gc.GraphError, (X, Y), {"batch": 0}, "the plan takes 1 to 8 rows"),
        (gc.GraphError, (X, Y), {"seed": "a"}, "seed is 'a'"),
    ],
)
def test_mistakes_are_reported_before_anything_is_trained(kind, data, options, words):
    ex = executor()
    with pytest.raises(kind) as caught:
        gc.fit(ex, data, **options)
    assert words in str(caught.value)
    assert "test_fit.py" in str(caught.value)
    assert int(ex.state["updates"]) == 0
    assert not ex.parameters.flat().any()


def test_a_plan_without_optimizer():
    with pytest.raises(gc.StateError, match="no optimizer"):
        gc.fit(executor(optimizer=None), (X, Y))


def test_something_other_than_an_executor():
    with pytest.raises(gc.GraphError, match="fit trains an executor or a population, not Net"):
        gc.fit(declare(), (X, Y))


# ---------------------------------------------------------------------- interrupts


class Interrupted(gc.Executor):
    """Gets Ctrl-C in the middle of its second step."""

    def __init__(self, plan: gc.Plan) -> None:
        super().__init__(plan)
        self.begun = self.ended = 0

    def step(self, feeds=None, /, **by_name):
        self.begun += 1
        if self.begun == 2:
            signal.raise_signal(signal.SIGINT)
        loss = super().step(feeds, **by_name)
        self.ended += 1
        return loss


def test_an_interrupt_waits_for_the_end_of_the_step():
    before = signal.getsignal(signal.SIGINT)
    ex, by_hand = Interrupted(executor().plan), executor()
    with pytest.raises(KeyboardInterrupt):
        gc.fit(ex, (X, Y), shuffle=False)
    assert ex.begun == ex.ended == 2
    assert signal.getsignal(signal.SIGINT) is before
    for rows in (slice(0, 8), slice(8, 16)):
        by_hand.step(x=X[rows], y=Y[rows])
    np.testing.assert_array_equal(ex.parameters.flat(), by_hand.parameters.flat())
    gc.fit(ex, (X, Y))


def test_the_users_own_handler_is_called():
    called = []
    before = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    try:
        gc.fit(Interrupted(executor().plan), (X, Y))
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == [signal.SIGINT]


def test_other_threads_can_train():
    ex = executor()
    worker = threading.Thread(target=gc.fit, args=(ex, (X, Y)))
    worker.start()
    worker.join()
    assert int(ex.state["updates"]) == 3


def test_an_error_inside_is_not_hidden_by_an_interrupt():
    def fails():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        StepBoundary().run(fails)


def test_a_boundary_that_an_exception_left_installed_delays_nothing(monkeypatch):
    before, boundary = signal.getsignal(signal.SIGINT), StepBoundary()
    with monkeypatch.context() as context:
        context.setattr(signal, "signal", lambda *_: None)  # the handler is not exchanged again
        boundary.run(lambda: None)
    signal.signal(signal.SIGINT, boundary._hold)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# ---------------------------------------------------------------------- what is shown


class Stream:
    def __init__(self, terminal: bool) -> None:
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("progress", [None, True, False])
def test_bar_or_log(monkeypatch, caplog, terminal, progress):
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with caplog.at_level(logging.INFO, "graphc"):
        gc.fit(executor(), (X, Y), validation=(X, Y), epochs=2, progress=progress)
    if terminal if progress is None else progress:
        assert "epoch 2/2: 100%" in stream.text
        assert "val_loss" in stream.text
        assert not caplog.records
    else:
        assert not stream.text
        lines = [record.getMessage() for record in caplog.records]
        assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
        assert "mean_gap" in lines[0]


@pytest.mark.slow
def test_in_a_notebook_without_ipywidgets_the_bar_comes_without_a_warning():
    needs("ipykernel")
    nbclient, nbformat = needs("nbclient"), needs("nbformat")
    cell = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
sys.modules["ipywidgets"] = None
import graphc as gc
from tests.train.nets import executor, table
gc.fit(executor(), table(), epochs=2)"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, timeout=600).execute()
    shown = "".join(out.text for out in notebook.cells[0].outputs if out.output_type == "stream")
    assert "epoch 2/2: 100%" in shown
    assert "Warning" not in shown


def test_history_as_a_table():
    history = gc.History()
    history.add(1.25, 0.5, 2.0, {"accuracy": 0.5})
    history.add(0.125, 12.25, 0.00001, {"accuracy": float("nan")})
    assert str(history).splitlines() == [
        "epoch    loss   val_loss  accuracy  seconds",
        "    1  1.2500     2.0000    0.5000     0.50",
        "    2  0.1250  1.000e-05       nan    12.25",
    ]
    assert history.last()["loss"] == 0.125


@pytest.mark.parametrize("validation", [None, (X, Y)])
def test_the_learning_curve(tmp_path, validation):
    image = needs("matplotlib.image")
    history = gc.fit(executor(), (X, Y), validation=validation, epochs=3)
    assert history.plot(tmp_path / "curve.png") == tmp_path / "curve.png"
    pixels = image.imread(tmp_path / "curve.png")[..., :3]
    blue = np.abs(pixels - [0x1F / 255, 0x77 / 255, 0xB4 / 255]).sum(-1) < 0.02
    orange = np.abs(pixels - [1.0, 0x7F / 255, 0x0E / 255]).sum(-1) < 0.02
    assert blue.sum() > 200
    assert (orange.sum() > 200) == (validation is not None)


@pytest.mark.slow
def test_a_loss_that_falls_by_far_is_drawn_on_a_logarithmic_axis(monkeypatch, tmp_path):
    needs("matplotlib")
    made = []
    original = plots.new_figure

    def new_figure(*args):
        made.append(original(*args))
        return made[-1]

    monkeypatch.setattr(plots, "new_figure", new_figure)
    for last in (0.5, 1e-3, 0.0, float("nan"), -1.0):
        history = gc.History()
        history.add(1.0, 0.1, None, {"accuracy": 0.5})
        history.add(last, 0.1, None, {"accuracy": 0.6})
        history.plot(tmp_path / "curve.png")
    scales = [[axis.get_yscale() for axis in f.axes] for f in made]
    assert scales == [["linear"] * 2, ["log", "linear"], *([["linear"] * 2] * 3)]


def test_a_path_that_cannot_be_drawn_to(tmp_path):
    needs("matplotlib")
    history = gc.fit(executor(), (X, Y))
    for path in (tmp_path / "curve.odd", tmp_path / "nowhere" / "curve.png"):
        with pytest.raises(gc.GraphError, match=r"cannot (draw|write) .*curve"):
            history.plot(path)


def test_without_matplotlib(monkeypatch, tmp_path):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    history = gc.fit(executor(), (X, Y))
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(gc.GraphError, match=r"pip install 'graphc-nn\[plot\]'"):
        history.plot(tmp_path / "curve.png")
