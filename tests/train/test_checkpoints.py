"""A run that was stopped anywhere and resumed ends with the bits of one that never stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.files.container import unpack
from tests.extras import needs
from tests.train.nets import bits, executor, table

X, Y = table(45)
HELD = table(20, seed=1)
EPOCHS = 3
STEPS = 6


class StopAt(gc.Executor):
    """Gets Ctrl-C in the step of this number."""

    def __init__(self, plan: gc.Plan, stop: int) -> None:
        super().__init__(plan)
        self._left = stop

    def step(self, feeds=None, /, **by_name):
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().step(feeds, **by_name)


def train(ex: gc.Executor, run: Path | gc.Checkpoints | None, **options) -> gc.History:
    options = {"validation": HELD, "epochs": EPOCHS, "seed": 3, **options}
    return gc.fit(ex, options.pop("data", (X, Y)), checkpoint=run, **options)


def numbers(history: gc.History) -> tuple:
    return history.epochs, history.loss, history.val_loss, history.metrics, history.stopped


@pytest.mark.one_in(5)
@pytest.mark.parametrize("optimizer", [gc.Adam(0.01), gc.SGD(0.05, momentum=0.9, accumulate=4)])
@pytest.mark.parametrize("backend", ["numpy", None])
def test_stopped_at_any_step(tmp_path: Path, optimizer, backend) -> None:
    plan = executor(optimizer=optimizer, backend=backend).plan
    straight = gc.Executor(plan)
    history = train(straight, None)
    for stop in range(1, EPOCHS * STEPS + 1):
        run = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train(StopAt(plan, stop), run)
        resumed = gc.Executor(plan, seed=5)
        again = train(resumed, run, resume=True)
        assert bits(resumed) == bits(straight)
        assert numbers(again) == numbers(history)


def test_stopped_at_each_step_of_one_run(tmp_path: Path) -> None:
    plan = executor().plan
    straight = gc.Executor(plan)
    history = train(straight, None)
    for _ in range(EPOCHS * STEPS):
        with pytest.raises(KeyboardInterrupt):
            train(StopAt(plan, 1), tmp_path, resume=True)
    resumed = gc.Executor(plan)
    assert numbers(train(resumed, tmp_path, resume=True)) == numbers(history)
    assert bits(resumed) == bits(straight)


def test_more_epochs_go_on_as_if_asked_for_at_once(tmp_path: Path) -> None:
    plan = executor().plan
    straight, resumed = gc.Executor(plan), gc.Executor(plan)
    stopping = [gc.EarlyStopping(50)]
    history = train(straight, None, epochs=5, callbacks=stopping)
    train(gc.Executor(plan), tmp_path, epochs=2, callbacks=[gc.EarlyStopping(50)])
    again = train(resumed, tmp_path, epochs=5, resume=True, callbacks=[gc.EarlyStopping(50)])
    assert numbers(again) == numbers(history)
    assert bits(resumed) == bits(straight)


def test_early_stopping_goes_on_with_the_best_state_from_before(tmp_path: Path) -> None:
    plan = executor(optimizer=gc.SGD(lr=0.8, momentum=0.9)).plan
    straight = gc.Executor(plan)
    history = train(straight, None, epochs=60, callbacks=[gc.EarlyStopping(4)])
    assert history.stopped
    steps = STEPS * len(history.epochs)
    for stop in (steps - 1, steps - 2 * STEPS - 3, steps):
        run = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train(StopAt(plan, stop), run, epochs=60, callbacks=[gc.EarlyStopping(4)])
        for _ in range(2):  # the second time there is nothing left to train
            resumed = gc.Executor(plan)
            options = {"resume": True, "callbacks": [gc.EarlyStopping(4)]}
            assert numbers(train(resumed, run, epochs=60, **options)) == numbers(history)
            assert bits(resumed) == bits(straight)


def part_files(folder: Path) -> Path:
    folder.mkdir()
    for number, rows in enumerate((slice(0, 11), slice(11, 40), slice(40, 45))):
        np.savez(folder / f"{number}.npz", x=X[rows], y=Y[rows])
    return folder


def made(epoch: int):
    order = np.random.default_rng(epoch).permutation(45)
    for start in range(0, 45, 8):
        rows = order[start : start + 8]
        yield X[rows], Y[rows]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("kind", ["part files", "function"])
def test_other_kinds_of_data(tmp_path: Path, kind: str) -> None:
    data = part_files(tmp_path / "part files") if kind == "part files" else made
    plan = executor().plan
    straight = gc.Executor(plan)
    history = train(straight, None, data=data)
    for stop in (1, 5, 6, 10, 17):
        run = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train(StopAt(plan, stop), run, data=data)
        resumed = gc.Executor(plan)
        assert numbers(train(resumed, run, data=data, resume=True)) == numbers(history)
        assert bits(resumed) == bits(straight)


def test_an_interrupt_in_validation_is_saved_too(tmp_path: Path) -> None:
    plan = executor().plan

    class Impatient(gc.Executor):
        def forward(self, *args, **options):
            raise KeyboardInterrupt

    straight, resumed = gc.Executor(plan), gc.Executor(plan)
    history = train(straight, None)
    with pytest.raises(KeyboardInterrupt):
        train(Impatient(plan), tmp_path)
    assert files(tmp_path) == ["step-000000006.gc"]
    assert numbers(train(resumed, tmp_path, resume=True)) == numbers(history)
    assert bits(resumed) == bits(straight)


@pytest.mark.parametrize("every", [None, 4])
def test_an_interrupt_in_a_callback_and_beside_a_step(tmp_path: Path, every: int | None) -> None:
    plan = executor().plan

    class Late(gc.Executor):
        def step(self, feeds=None, /, **by_name):
            loss = super().step(feeds, **by_name)
            if int(self.state["updates"]) == 9:
                raise KeyboardInterrupt
            return loss

    def interrupt(epoch: gc.Epoch) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt

    straight = gc.Executor(plan)
    history = train(straight, None)
    for ex, callbacks in ((gc.Executor(plan), [interrupt]), (Late(plan), [])):
        run = gc.Checkpoints(tmp_path / str(len(callbacks)), every=every)
        with pytest.raises(KeyboardInterrupt):
            train(ex, run, callbacks=callbacks)
        resumed = gc.Executor(plan)
        assert numbers(train(resumed, run, resume=True)) == numbers(history)
        assert bits(resumed) == bits(straight)


# ---------------------------------------------------------------------- files


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    states = []
    ex = executor(optimizer=gc.SGD(lr=0.8, momentum=0.9))
    checkpoints = gc.Checkpoints(tmp_path)
    history = train(
        ex, checkpoints, epochs=10, callbacks=[lambda epoch: states.append(bits(epoch.ex))]
    )
    assert files(tmp_path) == ["best.gc", "step-000000054.gc", "step-000000060.gc"]
    assert checkpoints.last == tmp_path / "step-000000060.gc"
    assert bits(gc.load(checkpoints.last)) == bits(ex)
    assert bits(gc.load(checkpoints.best)) == states[int(np.argmin(history.val_loss))]


@pytest.mark.parametrize("largest", [False, True])
def test_the_best_is_the_smallest_or_the_largest(largest: bool, tmp_path: Path) -> None:
    ex, history = executor(), gc.History()
    checkpoints, states = gc.Checkpoints(tmp_path, watch="accuracy", largest=largest), []
    values = [0.5, 0.25, 0.75, 0.625, 0.375]
    for value in values:
        ex.step(x=X[:8], y=Y[:8])
        states.append(bits(ex))
        history.add(1.0, 0.0, None, {"accuracy": value})
        checkpoints.write_best(ex, history, "accuracy")
    best = values.index((max if largest else min)(values))
    assert bits(gc.load(checkpoints.best)) == states[best]


def test_every_so_many_steps(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watching(gc.Executor):
        def step(self, feeds=None, /, **by_name):
            seen.extend(name for name in files(tmp_path) if name not in seen)
            return super().step(feeds, **by_name)

    run = gc.Checkpoints(tmp_path, every=4, watch="accuracy", largest=True)
    train(Watching(executor().plan), run)
    steps = [name for name in seen if name.startswith("step")]
    assert steps == [f"step-{n:09d}.gc" for n in (4, 8, 12, 16)]
    assert files(tmp_path) == ["best.gc", "step-000000016.gc", "step-000000018.gc"]


def test_stale_temporaries_go_and_other_files_stay(tmp_path: Path) -> None:
    stale = [".step-000000007.gc.0123456789abcdef.tmp", ".best.gc.00000000000000ff.tmp"]
    other = [".mine.0123456789abcdef.tmp", ".step-000000007.gc.tmp", "notes.txt", "step-x.gc"]
    for name in stale + other:
        (tmp_path / name).write_text("half")
    train(executor(), tmp_path, epochs=1)
    assert files(tmp_path) == sorted([*other, "best.gc", "step-000000006.gc"])


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, caplog) -> None:
    straight, resumed = executor(), executor()
    history = train(straight, tmp_path)
    newest = tmp_path / "step-000000018.gc"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(bytes(data))
    assert numbers(train(resumed, tmp_path, resume=True)) == numbers(history)
    assert bits(resumed) == bits(straight)
    assert "it is damaged: its checksum does not match; the checkpoint before it" in caplog.text
    for path in tmp_path.glob("step-*.gc"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(gc.ModelFileError, match="cannot be read as a checkpoint"):
        train(executor(), tmp_path, resume=True)


def test_a_checkpoint_is_a_safetensors_file(tmp_path: Path) -> None:
    safetensors = needs("safetensors.numpy")
    ex = executor()
    train(ex, tmp_path)
    found = safetensors.load_file(tmp_path / "step-000000018.gc")
    state = {name: array for name, array in found.items() if name.startswith("state/")}
    assert {k.removeprefix("state/"): a.tobytes() for k, a in state.items()} == bits(ex)
    metadata, _ = unpack((tmp_path / "step-000000018.gc").read_bytes())
    assert metadata["run"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 4}, "the run to resume had seed 3, now it is 4"),
        ({"shuffle": False}, "had shuffle True, now it is False"),
        ({"batch": 4}, "had batch 8, now it is 4"),
        ({"data": (X[:40], Y[:40])}, "had rows 45, now it is 40"),
        ({"resume": False}, "holds checkpoints of an earlier run"),
    ],
)
def test_a_run_is_resumed_as_it_began(tmp_path: Path, options, words: str) -> None:
    train(executor(), tmp_path, epochs=1)
    ex = executor()
    before = bits(ex)
    with pytest.raises(gc.GraphError, match=words):
        train(ex, tmp_path, **{"resume": True, **options})
    assert bits(ex) == before


def test_a_run_of_another_optimizer_or_net(tmp_path: Path) -> None:
    train(executor(), tmp_path, epochs=1)
    with pytest.raises(gc.GraphError, match="had the optimizer Adam, now it is SGD"):
        train(executor(optimizer=gc.SGD(0.1)), tmp_path, resume=True)


def test_a_run_of_another_precision(tmp_path: Path) -> None:
    train(executor(precision={"*": "bf16"}), tmp_path, epochs=1)
    with pytest.raises(gc.GraphError, match=r"had precision {'\*': 'bf16'}, now it is {}"):
        train(executor(), tmp_path, resume=True)
    train(executor(precision={"*": "bf16"}), tmp_path, epochs=2, resume=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"run": None, "resume": True}, "resume=True needs the folder of the run"),
        ({"run": 3}, "checkpoint is 3, not a folder"),
        ({"run": gc.Checkpoints("run", watch="f1")}, "there will be no 'f1' to watch"),
        ({"run": gc.Checkpoints("run"), "validation": table(3)[0]}, "input 'y' is missing"),
    ],
)
def test_mistakes(options, words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gc.GraphError) as caught:
        train(executor(), **options)
    assert words in str(caught.value)
    assert files(tmp_path) == []


def test_every_is_a_whole_number() -> None:
    with pytest.raises(gc.GraphError, match="every is 0, it must be a whole number from 1 up"):
        gc.Checkpoints("run", every=0)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(gc.ModelFileError, match="cannot make the folder"):
        train(executor(), tmp_path / "file" / "run")
