"""Modules become functions: compiled once, shared, kept, and freed."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graphc.backends.native import cache, cache_keys, libraries
from graphc.backends.native.cpuid import identity
from graphc.backends.native.objects import objects_of
from graphc.backends.native.target import Target, host

pytestmark = pytest.mark.needs("native")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def folder(cache_folder: Path) -> Path:
    return cache_folder


def adding(k: int) -> str:
    """A module that adds k, and twice k."""
    return f"""
define i64 @once(i64 %x) {{
  %y = add i64 %x, {k}
  ret i64 %y
}}
define i64 @twice(i64 %x) {{
  %y = call i64 @once(i64 %x)
  %z = call i64 @once(i64 %y)
  ret i64 %z
}}
"""


def called(library: libraries.Library, symbol: str, x: int) -> int:
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address(symbol))
    return int(function(x))


def load(k: int) -> libraries.Library:
    return libraries.load(adding(k), ("once", "twice"), host())


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that LLVM had to compile."""
    compiled: list[str] = []
    original = libraries.objects_of

    def counting(texts: Sequence[str], target: Target) -> list[bytes]:
        compiled.extend(texts)
        return original(texts, target)

    monkeypatch.setattr(libraries, "objects_of", counting)
    return compiled


def test_functions_can_be_called() -> None:
    library = load(5)
    assert called(library, "once", 10) == 15
    assert called(library, "twice", 10) == 20
    with pytest.raises(KeyError):
        library.address("thrice")


def test_equal_modules_share_a_library_while_it_lives(compilations: list[str]) -> None:
    first = load(6)
    assert load(6) is first
    assert libraries.load(adding(6), ("once",), host()) is not first
    assert len(compilations) == 1


def test_an_object_on_disk_is_not_compiled_again(compilations: list[str], folder: Path) -> None:
    for _ in range(2):
        assert called(load(7), "once", 1) == 8
        gc.collect()
    assert len(compilations) == 1
    assert len(list(folder.iterdir())) == 1


def broken(folder: Path, data: bytes) -> None:
    (path,) = folder.iterdir()
    path.write_bytes(data)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"graphc object 1\n", os.urandom(5000)])
def test_a_broken_entry_costs_a_compilation(
    compilations: list[str], folder: Path, data: bytes
) -> None:
    load(8)
    broken(folder, data)
    gc.collect()
    assert called(load(8), "twice", 1) == 17
    assert len(compilations) == 2
    gc.collect()
    assert called(load(8), "twice", 1) == 17
    assert len(compilations) == 2


@pytest.mark.parametrize("object", [b"", b"no object at all", b"\x7fELF" + bytes(500)])
def test_a_whole_entry_that_cannot_be_linked(compilations: list[str], object: bytes) -> None:
    cache.store(cache_keys.object_key(adding(9), host()), object)
    assert called(load(9), "once", 1) == 10
    assert len(compilations) == 1


def test_an_object_without_the_functions_asked_for(compilations: list[str]) -> None:
    cache.store(cache_keys.object_key(adding(10), host()), *objects_of([""], host()))
    assert called(load(10), "once", 1) == 11


def test_without_any_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", "/dev/null")
    assert called(load(11), "once", 1) == 12


@pytest.mark.parametrize("text", ["define", "define void @f() { ret i32 0 }"])
def test_text_that_is_no_module(text: str, folder: Path) -> None:
    with pytest.raises(RuntimeError):
        libraries.load(text, ("f",), host())
    assert not folder.exists() or not list(folder.iterdir())


def test_a_module_that_needs_what_there_is_not() -> None:
    text = "declare void @nobody_has_this()\n" + (
        "define void @f() {\n  call void @nobody_has_this()\n  ret void\n}"
    )
    with pytest.raises(RuntimeError):
        libraries.load(text, ("f",), host())


def test_many_threads_load_at_once(compilations: list[str]) -> None:
    with ThreadPoolExecutor(24) as executor:
        libraries = list(executor.map(load, [100 + i % 6 for i in range(48)]))
    assert [called(library, "once", 0) for library in libraries] == [100 + i % 6 for i in range(48)]
    assert len(set(map(id, libraries))) == 6
    assert len(compilations) == 6


@pytest.mark.needs("Linux")
def test_the_memory_of_a_library_is_freed_with_it() -> None:
    def executable() -> int:
        """The bytes that can be executed and are of no file; neighbours count as one range."""
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        ranges = [line[0].split("-") for line in lines if "x" in line[1] and len(line) == 5]
        return sum(int(end, 16) - int(start, 16) for start, end in ranges)

    library = load(200)
    gone = weakref.ref(library)
    before = executable()
    several = [load(201 + i) for i in range(20)]
    assert executable() > before
    del several, library
    gc.collect()
    assert gone() is None
    assert executable() < before


@pytest.mark.slow
def test_sixteen_processes_on_an_empty_cache(folder: Path) -> None:
    text = (
        "import os\n"
        "from tests.backends.native.test_libraries import called, load\n"
        "reader, writer = os.pipe()\n"
        "children = []\n"
        "for _ in range(16):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.close(writer)\n"
        "        os.read(reader, 1)\n"  # until the parent closes its end: all start at once
        "        libraries = [load(k) for k in range(8)]\n"
        "        os._exit([called(f, 'twice', 1) for f in libraries] != [*range(1, 17, 2)])\n"
        "    children.append(child)\n"
        "os.close(writer)\n"
        "assert [os.waitpid(child, 0)[1] for child in children] == [0] * 16\n"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    said = identity() is not None  # what LLVM says of this machine is kept beside the objects
    assert len(list(folder.iterdir())) == 8 + said


def test_a_fork_while_another_thread_compiles() -> None:
    text = (
        "import os, threading\n"
        "from tests.backends.native.test_libraries import called, load\n"
        "busy = threading.Thread(target=lambda: [load(k) for k in range(300, 360)])\n"
        "busy.start()\n"
        "for _ in range(10):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os._exit(called(load(1), 'once', 1) != 2)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "busy.join()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_without_kernels_is_kept_and_not_stale() -> None:
    empty = "a program without kernels", lambda: (), (), host()
    for _ in range(2):
        libraries.load_by_key(*empty)
    for emits in (False, True):
        assert libraries.stale(*empty[:2], host(), emits) is None
