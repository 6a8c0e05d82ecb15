"""A folder belongs to one run at a time, for as long as that run lives."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from graphc.base.errors import GraphError
from graphc.files import disk
from graphc.files.disk import FolderLock

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.needs("POSIX")


def test_the_second_is_refused_and_learns_who_has_it(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "run"):
        with pytest.raises(GraphError) as caught:
            FolderLock(tmp_path, "run").take()
        FolderLock(tmp_path, "other").take()
    words = f"{tmp_path} is in use by process {os.getpid()} on {platform.node()} since 20"
    assert words in str(caught.value)
    assert "hint: wait for that run" in str(caught.value)
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__


def test_nothing_is_left_and_it_is_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with FolderLock(tmp_path, "run") as held:
            held.take()  # it has it already
            assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]
        held.release()
        assert not list(tmp_path.iterdir())


def test_an_abandoned_file_does_not_block(tmp_path: Path) -> None:
    owner = f"process {os.getpid()} on {platform.node()} since 2020-01-01 00:00:00"
    (tmp_path / ".run.lock").write_text(owner)
    with FolderLock(tmp_path, "run"):
        assert (tmp_path / ".run.lock").read_text() != owner


def test_one_who_did_not_get_it_takes_nothing_away(tmp_path: Path) -> None:
    other = FolderLock(tmp_path, "run")
    with FolderLock(tmp_path, "run"):
        with pytest.raises(GraphError):
            other.take()
        other.release()
        with pytest.raises(GraphError):
            other.take()


@posix
def test_a_lock_file_may_be_removed_by_hand(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path, "run"), FolderLock(tmp_path, "run")
    first.take()
    first.path.unlink()
    second.take()
    first.release()
    assert second.path.exists()
    with pytest.raises(GraphError):
        FolderLock(tmp_path, "run").take()
    second.release()


def test_many_at_once(tmp_path: Path) -> None:
    inside, most, refused = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, refused
        left = 50
        while left:
            held = FolderLock(tmp_path, "run")
            try:
                held.take()
            except GraphError:
                refused += 1
                continue
            with guard:
                inside += 1
                most = max(most, inside)
            with guard:
                inside -= 1
            held.release()
            left -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"cannot write .*\.run\.lock: No such file"):
        FolderLock(tmp_path / "nowhere", "run").take()


def test_where_there_are_no_locks_a_run_is_warned(tmp_path: Path, monkeypatch, caplog) -> None:
    def missing(file: object) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(disk, "try_lock", missing)
    with FolderLock(tmp_path, "run"):
        assert "cannot be locked against other runs" in caplog.text


TAKE = """
import os, sys, time
from pathlib import Path
from graphc.files.disk import FolderLock

held = FolderLock(Path(sys.argv[1]), "run")
held.take()
child = os.fork() if sys.argv[2] == "fork" else -1
if child <= 0:
    print(os.getpid() if child == 0 else -1, flush=True)  # a child has let go by now
time.sleep(600)
"""


@posix
@pytest.mark.parametrize("how", ["alone", "fork"])
def test_it_ends_with_a_process_that_was_killed(tmp_path: Path, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(tmp_path), how],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        with pytest.raises(GraphError, match=f"in use by process {process.pid} on"):
            FolderLock(tmp_path, "run").take()
        process.send_signal(signal.SIGKILL)
        process.wait()
        FolderLock(tmp_path, "run").take()
    finally:
        if child > 0:
            os.kill(child, signal.SIGKILL)
        process.stdout.close()
