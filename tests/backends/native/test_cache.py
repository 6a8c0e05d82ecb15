"""Objects on disk: what comes back is what was kept, or nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from graphc.backends.native import cache, cache_keys
from graphc.backends.native.target import Target
from graphc.backends.native.this_machine import Facts

pytestmark = pytest.mark.needs("native")

HERE = Target("x86_64-unknown-linux-gnu", "generic", "+avx", 256)
KEY, OTHER = "0" * 64, "1" * 64
OBJECT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def folder(cache_folder: Path) -> Path:
    return cache_folder


def entry(folder: Path, key: str = KEY) -> Path:
    (found,) = folder.glob(f"{key}*")
    return found


def test_what_is_kept_comes_back(folder: Path) -> None:
    assert cache.cached(KEY) is None
    cache.store(KEY, OBJECT)
    cache.store(OTHER, b"")
    assert cache.cached(KEY) == OBJECT
    assert cache.cached(OTHER) == b""
    cache.store(KEY, OBJECT[:5])
    assert cache.cached(KEY) == OBJECT[:5]
    assert len(list(folder.iterdir())) == 2


def test_only_the_owner_may_look(folder: Path) -> None:
    before = os.umask(0)
    try:
        cache.store(KEY, OBJECT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(folder).stat().st_mode) == 0o600


@pytest.mark.parametrize("length", [0, 1, 15, 16, 30, 47, 48, 49, 5000, len(OBJECT) + 47])
def test_a_truncated_entry_is_none(folder: Path, length: int) -> None:
    cache.store(KEY, OBJECT)
    path = entry(folder)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.cached(KEY) is None
    cache.store(KEY, OBJECT)
    assert cache.cached(KEY) == OBJECT


@pytest.mark.parametrize("at", [0, 10, 16, 47, 48, 1000, -1])
def test_a_changed_byte_is_found(folder: Path, at: int) -> None:
    cache.store(KEY, OBJECT)
    path = entry(folder)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert cache.cached(KEY) is None


def test_more_bytes_are_found(folder: Path) -> None:
    cache.store(KEY, OBJECT)
    with entry(folder).open("ab") as file:
        file.write(b"\0")
    assert cache.cached(KEY) is None


def test_the_entry_of_another_key_is_none(folder: Path) -> None:
    cache.store(KEY, OBJECT)
    entry(folder).rename(Path(str(entry(folder)).replace(KEY, OTHER)))
    assert cache.cached(OTHER) is None


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    cache.store(KEY, OBJECT)
    path = entry(folder)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.cached(KEY) is None
    cache.store(KEY, OBJECT)
    assert cache.cached(KEY) == OBJECT
    assert not path.is_symlink()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_none(folder: Path, kind: str) -> None:
    cache.store(KEY, OBJECT)
    path = entry(folder)
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path, 0o600)
    assert cache.cached(KEY) is None
    cache.store(KEY, OBJECT)  # over a pipe it can be kept, over a folder it cannot
    assert cache.cached(KEY) == (None if kind == "folder" else OBJECT)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o722, 0o702, 0o777])
def test_a_folder_that_others_may_write_is_not_used(folder: Path, mode: int) -> None:
    cache.store(KEY, OBJECT)
    folder.chmod(mode)
    assert cache.cached(KEY) is None
    cache.store(OTHER, OBJECT)
    assert len(list(folder.iterdir())) == 1


def test_a_file_that_others_may_write_is_not_used(folder: Path) -> None:
    cache.store(KEY, OBJECT)
    entry(folder).chmod(0o666)
    assert cache.cached(KEY) is None


def test_what_belongs_to_somebody_else_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(KEY, OBJECT)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert cache.cached(KEY) is None


def test_a_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("/dev/null", "/dev/null/cache", "/proc/cache", "/proc"):
        monkeypatch.setenv("GRAPHC_CACHE", place)
        cache.store(KEY, OBJECT)
        assert cache.cached(KEY) is None


def test_a_folder_that_can_only_be_read(folder: Path) -> None:
    cache.store(KEY, OBJECT)
    folder.chmod(0o500)  # the administrator writes all the same
    cache.store(OTHER, OBJECT)
    assert cache.cached(KEY) == OBJECT
    folder.chmod(0o700)


@pytest.mark.parametrize("failing", ["open", "replace", "utime", "scandir"])
@pytest.mark.parametrize("reason", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_system_that_refuses(
    failing: str, reason: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(KEY, OBJECT)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, failing, refuse)
    cache.store(OTHER, OBJECT)
    found = cache.cached(KEY)
    monkeypatch.undo()
    assert found == (None if failing == "open" else OBJECT)
    assert not list(folder.glob("*.part"))


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    monkeypatch.setenv("GRAPHC_CACHE", "/own")
    assert cache.cache_path() == Path("/own")
    monkeypatch.delenv("GRAPHC_CACHE")
    assert cache.cache_path() == Path("/var/cache/graphc")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_path() == Path("/somebody/.cache/graphc")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "GRAPHC_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert cache.cache_path() is None
    cache.store(KEY, OBJECT)
    assert cache.cached(KEY) is None


def test_what_was_used_longest_ago_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LIMIT", 3 * (len(OBJECT) + 48))
    keys = [str(i) * 64 for i in range(3)]
    for age, key in enumerate(keys):
        cache.store(key, OBJECT)
        os.utime(entry(folder, key), (1000 - age, 1000 - age))
    assert cache.cached(keys[2]) == OBJECT  # and now it is the youngest
    cache.store("9" * 64, OBJECT)
    assert cache.cached(keys[1]) == OBJECT  # the next write that looks drops it
    os.utime(entry(folder, keys[1]), (999, 999))
    cache.store(keys[0], OBJECT)
    assert cache.cached(keys[1]) is None
    assert [cache.cached(key) for key in (keys[0], keys[2], "9" * 64)] == [OBJECT] * 3


def test_files_that_nobody_finished_go(folder: Path) -> None:
    cache.store(KEY, OBJECT)
    old, new, foreign = folder / "a.part", folder / "b.part", folder / "notes.txt"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    os.utime(foreign, (1000, 1000))
    cache.store(KEY, OBJECT)
    assert not old.exists()
    assert new.exists()
    assert foreign.exists()


def test_a_key_tells_all_that_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        cache_keys.object_key("text", HERE),
        cache_keys.object_key("texts", HERE),
        cache_keys.object_key("text", Target("aarch64-unknown-linux-gnu", "generic", "+avx", 256)),
        cache_keys.object_key("text", Target(HERE.triple, "znver9", "+avx", 256)),
        cache_keys.object_key("text", Target(HERE.triple, "generic", "-avx", 256)),
    ]
    monkeypatch.setattr(cache_keys, "facts", lambda: Facts("", "", "", "llvmlite 9"))
    made.append(cache_keys.object_key("text", HERE))
    monkeypatch.setattr(cache_keys, "CODEGEN", {"opt": 3})
    made.append(cache_keys.object_key("text", HERE))
    assert len(set(made)) == len(made)
    assert made[-1] == cache_keys.object_key("text", HERE)
