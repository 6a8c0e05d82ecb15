"""Files are written whole or not at all, into what is there, and nothing is left behind."""

from __future__ import annotations

import os
import stat
import sys
import threading
from dis import opname
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from graphc.base.errors import DataError, GraphError, ModelFileError
from graphc.files import disk
from graphc.files.disk import new_file, remove_temporaries, write_atomically, write_file
from tests.extras import lacks

OLD, NEW = b"old", [b"new ", b"bytes"]
posix = pytest.mark.needs("POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


@posix
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o604, 0o755])
def test_an_old_file_keeps_its_mode(target: Path, bits: int) -> None:
    target.chmod(bits)
    write_atomically(target, NEW)
    assert mode(target) == bits
    assert target.read_bytes() == b"new bytes"


@posix
def test_a_new_file_has_the_mode_that_the_process_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", NEW)
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o640


@posix
def test_no_one_else_reads_a_secret_while_it_is_written(target: Path) -> None:
    target.chmod(0o600)
    with new_file(target) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


@pytest.mark.needs("root")
def test_an_old_file_keeps_its_owner(target: Path) -> None:
    os.chown(target, 12345, 54321)
    target.chmod(0o640)
    write_atomically(target, NEW)
    found = target.stat()
    assert (found.st_uid, found.st_gid, mode(target)) == (12345, 54321, 0o640)


def test_a_file_that_is_write_protected_stays(target: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(ModelFileError, match="Permission denied"):
        write_file(target, NEW)
    assert target.read_bytes() == OLD


@posix
def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, NEW)
        assert os.read(reader, 100) == b"new bytes"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@posix
def test_a_pipe_takes_more_than_it_holds(tmp_path: Path) -> None:
    pipe, data, found = tmp_path / "pipe", os.urandom(1 << 20), []
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with open(reader, "rb") as file:
        thread = threading.Thread(target=lambda: found.append(file.read()))
        with new_file(pipe) as written:
            thread.start()  # not sooner: it would find the pipe at its end
            written.write(data)
        thread.join()
    assert found == [data]


@posix
def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GraphError, match="it is a pipe that nobody reads"):
        write_file(tmp_path / "pipe", NEW, GraphError)
    assert (tmp_path / "pipe").is_fifo()


@posix
def test_a_device_stays_one(tmp_path: Path) -> None:
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        null.open("wb").close()
    except OSError:
        lacks("no devices may be made here")
    write_file(null, NEW)
    with pytest.raises(DataError, match=r"cannot write .*full: No space left on device"):
        write_file(full, NEW, DataError)
    assert null.is_char_device()
    assert full.is_char_device()
    assert sorted(tmp_path.iterdir()) == [full, null]


@posix
def test_links_are_followed_to_any_depth(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(OLD)
    (tmp_path / "near").symlink_to("real")
    (tmp_path / "far").symlink_to("near")
    (tmp_path / "loop").symlink_to("loop")
    write_file(tmp_path / "far", NEW)
    assert (tmp_path / "far").is_symlink()
    assert (tmp_path / "near").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new bytes"
    with pytest.raises(ModelFileError, match="cannot write"):
        write_file(tmp_path / "loop", NEW)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot write .*: Is a directory"):
        write_file(tmp_path, NEW)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- what is left behind


def stale(target: Path, mark: str = "0123456789abcdef") -> Path:
    path = target.with_name(f".{target.name}.{mark}.tmp")
    path.write_bytes(b"half")
    return path


def test_what_a_killed_writer_left_goes_with_the_next_of_the_same_file(target: Path) -> None:
    mine, others = stale(target), stale(target.with_name("other"))
    write_atomically(target, NEW)
    assert not mine.exists()
    assert others.exists()


@posix
def test_what_is_being_written_stays(target: Path) -> None:
    with new_file(target) as file:
        write_atomically(target, [b"between"])
        remove_temporaries(target.parent, lambda name: True)
        assert target.read_bytes() == b"between"
        file.write(b"last")
    assert target.read_bytes() == b"last"
    assert list(target.parent.iterdir()) == [target]


@posix
def test_other_kinds_of_files_with_such_a_name_stay(target: Path) -> None:
    pipe = target.with_name(".file.0123456789abcdef.tmp")
    os.mkfifo(pipe)
    write_atomically(target, NEW)
    assert pipe.is_fifo()


def test_a_file_that_was_taken_for_abandoned_is_begun_again(target: Path, monkeypatch) -> None:
    real, taken = disk.try_lock, []

    def swept(file: Any) -> bool:
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        return real(file)

    monkeypatch.setattr(disk, "try_lock", swept)
    write_atomically(target, NEW)
    assert target.read_bytes() == b"new bytes"
    assert list(target.parent.iterdir()) == [target]


def test_two_threads_write_one_file(target: Path) -> None:
    contents = [bytes([65 + i]) * 5000 for i in range(4)]
    failures = []

    def write(data: bytes) -> None:
        try:
            for _ in range(25):
                write_atomically(target, [data])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert target.read_bytes() in contents
    assert list(target.parent.iterdir()) == [target]


def interrupted_at(count: int, target: Path) -> bool:
    """Write, with an interrupt before one instruction of the writer; whether it was reached."""
    left = count

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != disk.__file__:
            return None
        frame.f_trace_opcodes = True
        # Python 3.14 marks a branch not taken by an instruction that no handler covers; as it
        # calls nothing, no signal arrives there.
        if event == "opcode" and opname[frame.f_code.co_code[frame.f_lasti]] != "NOT_TAKEN":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write_atomically(target, NEW)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_instruction_leaves_one_whole_file(target: Path) -> None:
    count = 1
    while interrupted_at(count, target):
        assert target.read_bytes() in (OLD, b"new bytes")
        assert list(target.parent.iterdir()) == [target]
        target.write_bytes(OLD)
        count += 1
    assert count > 200
    assert target.read_bytes() == b"new bytes"
