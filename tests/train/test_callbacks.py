"""Callbacks, early stopping, and the logs they write."""

from __future__ import annotations

import builtins
import csv
import logging
import os
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.train.history import Best
from graphc.train.nonfinite import Guard
from tests.extras import needs
from tests.train.nets import bits, executor, table

NAN = float("nan")
X, Y = table(45)
HELD = table(20, seed=1)


def test_a_function_is_called_after_each_epoch_and_may_change_the_rate() -> None:
    seen = []

    def halve(epoch: gc.Epoch) -> None:
        seen.append((epoch.number, epoch.steps, epoch.numbers["loss"]))
        epoch.ex.hyper["lr"] *= 0.5

    ex = executor()
    history = gc.fit(ex, (X, Y), epochs=3, callbacks=[halve])
    assert seen == [(1, 6, history.loss[0]), (2, 12, history.loss[1]), (3, 18, history.loss[2])]
    assert ex.hyper["lr"] == pytest.approx(0.01 / 8)


def test_a_callback_may_stop() -> None:
    history = gc.fit(
        executor(),
        (X, Y),
        epochs=5,
        callbacks=[lambda epoch: epoch.stop("enough") if epoch.number == 2 else None],
    )
    assert history.epochs == [1, 2]
    assert history.stopped == "enough"


@pytest.mark.parametrize(
    ("values", "options", "best", "waited"),
    [
        ([3.0, 1.0, 1.0, 2.0], {}, [1, 1, 0, 0], [0, 0, 1, 2]),
        ([3.0, 1.0, 3.0, 4.0], {"largest": True}, [1, 0, 0, 1], [0, 1, 2, 0]),
        ([NAN, 2.0, NAN, 1.0], {}, [0, 1, 0, 1], [1, 0, 1, 0]),
        ([NAN, NAN], {"largest": True}, [0, 0], [1, 2]),
        # The best is the smallest of all, by however little; only what is gained ends the wait.
        ([1.0, 0.95, 0.91, 0.8], {"least": 0.1}, [1, 1, 1, 1], [0, 1, 2, 0]),
        ([1.0, 0.95, 0.9, 0.85], {"least": 0.1}, [1, 1, 1, 1], [0, 1, 2, 3]),
    ],
)
def test_the_best_is_the_first_of_equals_and_no_nan(values, options, best, waited) -> None:
    numbers = Best(**options)
    found = [(numbers.add(value), numbers.waited) for value in values]
    assert found == list(zip(map(bool, best), waited, strict=True))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_stop_is_that_of_scikit_learn(patience: int) -> None:
    """Its rule, from `MLPClassifier._update_no_improvement_count`, on the losses of a run."""
    options = {"optimizer": gc.SGD(lr=0.3, momentum=0.9)}
    losses = gc.fit(executor(**options), (X, Y), epochs=40).loss
    least, best, counts = 0.01, float("inf"), [0]
    for loss in losses:
        counts.append(counts[-1] + 1 if loss > best - least else 0)
        best = min(best, loss)
    epochs = counts.index(patience)
    stopping = gc.EarlyStopping(patience, watch="loss", least=least, restore=False)
    history = gc.fit(executor(**options), (X, Y), epochs=40, callbacks=[stopping])
    assert patience < len(history.epochs) == epochs < 40


def test_a_callback_serves_several_runs() -> None:
    stopping = gc.EarlyStopping(2, watch="loss", least=1e9)
    for _ in range(2):
        assert gc.fit(executor(), (X, Y), epochs=9, callbacks=[stopping]).epochs == [1, 2, 3]


def test_what_only_reads_numbers_needs_no_copy_of_the_state(monkeypatch, tmp_path) -> None:
    marks = []
    monkeypatch.setattr(Guard, "copy_state", lambda guard, at: marks.append(at.epoch))
    watching = [gc.EarlyStopping(9, watch="loss", restore=False), gc.CsvLog(tmp_path / "log.csv")]
    gc.fit(executor(), (X, Y), epochs=3, callbacks=watching)
    assert marks == []
    gc.fit(executor(), (X, Y), epochs=3, callbacks=[*watching, lambda epoch: None])
    assert marks == [2, 3, 4]


@pytest.mark.parametrize(("watch", "largest"), [("val_loss", False), ("accuracy", True)])
def test_early_stopping_leaves_the_state_of_the_best_epoch(watch: str, largest: bool) -> None:
    states = []
    stopping = gc.EarlyStopping(3, watch=watch, largest=largest)
    ex = executor(optimizer=gc.SGD(lr=0.8, momentum=0.9))
    history = gc.fit(
        ex,
        (X, Y),
        validation=HELD,
        epochs=60,
        callbacks=[lambda epoch: states.append(bits(epoch.ex)), stopping],
    )
    values = history.column(watch)
    best = int(np.argmax(values) if largest else np.argmin(values))
    assert len(values) == best + 1 + 3
    assert bits(ex) == states[best]
    assert history.stopped == f"{watch} has not improved since epoch {best + 1}"


def test_early_stopping_without_a_stop_and_without_restoring() -> None:
    states: list[dict[str, bytes]] = []

    def keep(epoch: gc.Epoch) -> None:
        states.append(bits(epoch.ex))

    ex = executor(optimizer=gc.SGD(lr=0.8, momentum=0.9))
    history = gc.fit(ex, (X, Y), validation=HELD, epochs=5, callbacks=[keep, gc.EarlyStopping(50)])
    assert history.stopped == ""
    assert bits(ex) == states[int(np.argmin(history.val_loss))]
    ex = executor(optimizer=gc.SGD(lr=0.8, momentum=0.9))
    stopping = gc.EarlyStopping(1, watch="loss", restore=False)
    gc.fit(ex, (X, Y), epochs=60, callbacks=[keep, stopping])
    assert bits(ex) == states[-1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gc.EarlyStopping(0), "patience is 0"),
        (lambda: gc.EarlyStopping(1, least=-1), "least is -1"),
        (lambda: fit(callbacks=[3]), "callbacks holds 3, which cannot be called"),
        (lambda: fit(callbacks=[gc.EarlyStopping(1)]), "there will be no 'val_loss' to watch"),
        (
            lambda: fit(callbacks=[gc.EarlyStopping(1, watch="acc")], validation=HELD),
            "there are: loss, val_loss, accuracy",
        ),
    ],
)
def test_mistakes(make, words: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        make()
    assert words in str(caught.value)
    assert "test_callbacks.py" in str(caught.value)


def fit(**options) -> gc.History:
    return gc.fit(executor(), (X, Y), **options)


# ---------------------------------------------------------------------- logs


def table_of(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_the_csv_log_is_the_history(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    seen = []
    log = gc.CsvLog(path)
    history = gc.fit(
        executor(),
        (X, Y),
        validation=HELD,
        epochs=3,
        callbacks=[log, lambda epoch: seen.append(len(table_of(path)))],
    )
    head, *rows = table_of(path)
    assert head == ["epoch", "loss", "val_loss", "accuracy", "seconds"]
    assert [float(row[1]) for row in rows] == history.loss
    assert [float(row[3]) for row in rows] == history.metrics["accuracy"]
    assert seen == [2, 3, 4]
    gc.fit(executor(), (X, Y), callbacks=[log])
    assert [row[0] for row in table_of(path)] == ["epoch", "1"]


def test_a_resumed_run_writes_no_line_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    gc.fit(executor(), (X, Y), epochs=2, checkpoint=tmp_path / "run", callbacks=[gc.CsvLog(path)])
    with open(path, "a") as file:
        file.write("3,0.1")  # the run was killed here
    stale = tmp_path / ".log.csv.0123456789abcdef.tmp"
    stale.write_text("half")
    gc.fit(
        executor(),
        (X, Y),
        epochs=4,
        checkpoint=tmp_path / "run",
        resume=True,
        callbacks=[gc.CsvLog(path)],
    )
    assert [row[0] for row in table_of(path)] == ["epoch", "1", "2", "3", "4"]
    assert not stale.exists()


def test_a_csv_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(gc.DataError, match=r"cannot write .*log\.csv: No such file"):
        fit(callbacks=[gc.CsvLog(tmp_path / "nowhere" / "log.csv")])


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    accumulator = needs("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_its_log(tmp_path: Path) -> None:
    needs("tensorboardX")
    history = gc.fit(
        executor(), (X, Y), validation=HELD, epochs=3, callbacks=[gc.TensorBoardLog(tmp_path)]
    )
    found = events(tmp_path)
    assert found.keys() == {"loss", "val_loss", "accuracy"}
    assert [step for step, _ in found["loss"]] == [1, 2, 3]
    np.testing.assert_allclose([value for _, value in found["val_loss"]], history.val_loss, 1e-6)


def test_tensorboard_shows_an_epoch_that_was_made_again_once(tmp_path: Path) -> None:
    needs("tensorboardX")

    def killed(epoch: gc.Epoch) -> None:
        if epoch.number == 3:
            raise RuntimeError("killed")

    run, log = tmp_path / "run", tmp_path / "log"
    with pytest.raises(RuntimeError):
        gc.fit(
            executor(),
            (X, Y),
            epochs=4,
            checkpoint=run,
            callbacks=[gc.TensorBoardLog(log), killed],
        )
    history = gc.fit(
        executor(),
        (X, Y),
        epochs=4,
        checkpoint=run,
        resume=True,
        callbacks=[gc.TensorBoardLog(log)],
    )
    assert len(os.listdir(log)) == 2
    found = events(log)["loss"]
    assert [step for step, _ in found] == [1, 2, 3, 4]
    np.testing.assert_allclose([value for _, value in found], history.loss, 1e-6)


@pytest.mark.needs("/dev/full")
def test_tensorboard_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record_writer = needs("tensorboardX.record_writer")
    monkeypatch.setattr(record_writer, "open_file", lambda path: open("/dev/full", "ab"))  # noqa: SIM115
    with pytest.raises(gc.DataError, match=r"cannot write .*log: No space left on device"):
        gc.fit(executor(), (X, Y), callbacks=[gc.TensorBoardLog(tmp_path / "log")])


def test_tensorboard_in_a_folder_that_cannot_be(tmp_path: Path) -> None:
    needs("tensorboardX")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "log", tmp_path / "a\0b"):
        with pytest.raises(gc.DataError, match="cannot make the folder"):
            gc.fit(executor(), (X, Y), callbacks=[gc.TensorBoardLog(folder)])


def test_without_tensorboardx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("tensorboardX"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(gc.GraphError, match=r"pip install 'graphc-nn\[tensorboard\]'"):
        gc.TensorBoardLog(tmp_path)
