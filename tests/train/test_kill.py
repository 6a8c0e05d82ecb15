"""Runs that are killed or meet a full disk: no file is broken, and nothing is lost for long."""

from __future__ import annotations

import builtins
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphc as gc
from graphc.files.container import unpack
from tests.train.nets import bits, executor, table

X, Y = table(45)
EPOCHS, EVERY = 60, 2

TRAIN = """
import hashlib, sys
import graphc as gc
from tests.train.nets import bits, executor, table

run = gc.Checkpoints(sys.argv[1], every=int(sys.argv[2]))
callbacks = [gc.EarlyStopping(1000), gc.CsvLog(sys.argv[1] + ".csv")]
record = sys.argv[1] + ".record" if sys.argv[4:] else None
ex = executor(threads=1)
print("begun", flush=True)
try:
    history = gc.fit(ex, table(45), validation=table(20, seed=1), epochs=int(sys.argv[3]),
                     checkpoint=run, resume=True, callbacks=callbacks, record=record,
                     progress=False)
except gc.GraphError as error:
    print(error.sentence)
    sys.exit(3)
digest = hashlib.sha256()
for name, data in sorted(bits(ex).items()):
    digest.update(name.encode() + data)
print(digest.hexdigest(), history.loss, history.val_loss, history.metrics)
"""


def started(run: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAIN, str(run), str(EVERY), str(EPOCHS), *more]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)


def ended(process: subprocess.Popen[str]) -> str | None:
    """The digest and the history; None where it was killed."""
    out, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL)
    return out.splitlines()[-1] if process.returncode == 0 else None


def check_files(run: Path) -> None:
    """Every checkpoint and model is whole."""
    for path in run.glob("*.gc"):
        unpack(path.read_bytes())
    assert len(list(run.glob("step-*.gc"))) <= 3  # two, and one just written


def campaign(folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill runs at random moments until enough were; how many, and how many runs that took."""
    rng = random.Random(seed)
    before = time.monotonic()
    first = started(folder / "straight")
    assert first.stdout is not None
    first.stdout.readline()
    begun = time.monotonic() - before
    straight = ended(first)
    lasts = time.monotonic() - before - begun
    killed = runs = 0
    while killed < kills:
        run = folder / f"run-{runs}"
        runs += 1
        while True:
            process = started(run)
            assert process.stdout is not None
            process.stdout.readline()  # compiled, and about to train
            time.sleep(rng.uniform(0, lasts))
            process.send_signal(signal.SIGKILL)
            result = ended(process)
            check_files(run)
            if result is not None:
                break
            killed += 1
            if killed >= kills or rng.random() < 0.3:
                result = ended(started(run))
                break
        assert result == straight
        assert not list(run.glob(".*.tmp"))
        assert len(list(run.glob("step-*.gc"))) == 2
        lines = Path(f"{run}.csv").read_text().splitlines()
        assert [line.partition(",")[0] for line in lines[1:]] == [str(e + 1) for e in range(EPOCHS)]
    return killed, runs


@pytest.mark.slow
@pytest.mark.needs("POSIX")
def test_some_runs_killed_at_random_moments(tmp_path: Path) -> None:
    assert campaign(tmp_path, kills=2, seed=0)[0] == 2


@pytest.mark.campaign
@pytest.mark.needs("POSIX")
def test_two_hundred_runs_killed_at_random_moments(tmp_path: Path) -> None:
    killed, _ = campaign(tmp_path, kills=200, seed=1)
    assert killed == 200


# ---------------------------------------------------------------------- two runs in one folder


def two_runs(folder: Path, trials: int, seed: int) -> tuple[int, int]:
    """Start two runs in one folder, kill some of them, and let another end what is left.

    How many were killed, and how many refused.
    """
    rng = random.Random(seed)
    before = time.monotonic()
    straight = ended(started(folder / "straight", "record"))
    lasts = time.monotonic() - before
    killed = refused = 0
    for trial in range(trials):
        run = folder / f"run-{trial}"
        both = [started(run, "record") for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(rng.uniform(0, lasts / 2))
        for process in both:
            if rng.random() < 0.5:
                process.send_signal(signal.SIGKILL)
        for process in both:
            out, _ = process.communicate()
            if process.returncode == 3:
                assert " is in use by process " in out
                refused += 1
            elif process.returncode == 0:
                assert out.splitlines()[-1] == straight
            else:
                assert process.returncode == -signal.SIGKILL
                killed += 1
        check_files(run)
        assert ended(started(run, "record")) == straight
        record = Path(f"{run}.record")
        for where in (run, record):
            assert not list(where.glob(".*"))
        assert gc.compare_runs(record, folder / "straight.record") is None
    return killed, refused


@pytest.mark.slow
@pytest.mark.needs("POSIX")
def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    two_runs(tmp_path, trials=4, seed=0)


@pytest.mark.campaign
@pytest.mark.needs("POSIX")
def test_two_runs_in_one_folder_a_hundred_times(tmp_path: Path) -> None:
    killed, refused = two_runs(tmp_path, trials=100, seed=1)
    assert (killed > 50, refused > 20) == (True, True), (killed, refused)


# ---------------------------------------------------------------------- a full disk


def line() -> gc.Net:
    net = gc.Net("line")
    x, y = net.input("x", (gc.N, 4)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(x, 3, name="scores"), y))
    return net


class Disk:
    """Fails at one of the writes to temporary files, half of which may have been done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.fails_at = 0, -1
        real_open, self._fsync, self._replace = builtins.open, os.fsync, os.replace

        def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            file = real_open(path, mode, *args, **options)
            return Opened(self, file) if mode == "xb" else file

        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(os, "fsync", self.counted(self._fsync))
        monkeypatch.setattr(os, "replace", self.counted(self._replace))

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            self.use()
            return call(*args, **options)

        return run

    def use(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Opened:
    def __init__(self, disk: Disk, file: Any) -> None:
        self._disk, self._file = disk, file

    def write(self, data: Any) -> int:
        try:
            self._disk.use()
        except OSError:
            self._file.write(memoryview(data)[: len(data) // 2])
            raise
        return int(self._file.write(data))

    def flush(self) -> None:
        self._disk.use()
        self._file.flush()

    def fileno(self) -> int:
        return int(self._file.fileno())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = executor(line(), optimizer=gc.SGD(0.1)).plan
    options = {"validation": (X, Y), "epochs": 2}
    gc.fit(gc.Executor(plan), (X, Y), **options)  # what is compiled is written now
    disk = Disk(monkeypatch)
    straight = gc.Executor(plan)
    gc.fit(straight, (X, Y), checkpoint=tmp_path / "straight", **options)
    writes = disk.calls
    assert writes > 30
    for fails_at in range(writes):
        disk.calls, disk.fails_at = 0, fails_at
        run, ex = gc.Checkpoints(tmp_path / str(fails_at)), gc.Executor(plan)
        before: dict[int, dict[str, bytes]] = {}

        def keep(epoch: gc.Epoch, before: dict[int, dict[str, bytes]] = before) -> None:
            before[epoch.steps] = bits(epoch.ex)

        try:
            gc.fit(ex, (X, Y), checkpoint=run, callbacks=[keep], **options)
        except gc.ModelFileError as error:
            assert error.sentence.endswith("No space left on device")
        else:  # folders are synced as far as the system can
            assert bits(ex) == bits(straight)
        assert not list(run.folder.glob(".*.tmp"))
        if run.last is not None:
            steps = int(run.last.stem.removeprefix("step-"))
            assert bits(gc.load(run.last)) == before[steps]
        disk.fails_at = -1
        resumed = gc.Executor(plan)
        gc.fit(resumed, (X, Y), checkpoint=run, resume=True, **options)
        assert bits(resumed) == bits(straight)


@pytest.mark.needs("/dev/full")
def test_a_log_on_a_full_disk() -> None:
    log = gc.CsvLog("/dev/full")
    log._whole = True
    epoch = gc.Epoch(executor(), gc.History([1, 2], [0.5, 0.25], seconds=[1.0, 1.0]), 2)
    with pytest.raises(gc.DataError, match="cannot write /dev/full: No space left on device"):
        log(epoch)
