"""Objects come to memory without LLVM as they do with it; what is damaged or unknown does not."""

from __future__ import annotations

import ctypes
import errno
import gc as collector
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.backends.elf import ElfError
from graphc.backends.native import cache, cache_keys, executable_memory, libraries, linker
from graphc.backends.native.cpuid import identity
from graphc.backends.native.cross import compiled, target_of
from graphc.backends.native.linker import JUMP, Image, UnsupportedError, image
from graphc.backends.native.llvm import LLVM
from graphc.backends.native.target import available, host
from tests.backends.native.nets import NETS, OPTIMIZERS, feeds_of
from tests.extras import needs

needs("LLVM")

ROOT = Path(__file__).resolve().parents[3]
LINKS = available() is None and identity() is not None
here = pytest.mark.needs("linked objects")

HEADER = 64
"""The bytes of a header of an object, and of that of a section."""

WHOLE = """
@weights = private constant [4 x i64] [i64 10, i64 200, i64 3000, i64 40000], align 64
declare void @Py_DecRef(ptr)
declare ptr @memset(ptr, i32, i64)
define i64 @weight(i64 %i) nounwind {
  %place = getelementptr i64, ptr @weights, i64 %i
  %x = load i64, ptr %place
  ret i64 %x
}
define void @clear(ptr %place, i64 %size) nounwind {
  %same = call ptr @memset(ptr %place, i32 0, i64 %size)
  ret void
}
define void @free(ptr %object) nounwind {
  call void @Py_DecRef(ptr %object)
  ret void
}
"""
FUNCTIONS = "weight", "clear", "free"

UNSUPPORTED = {
    "zeros": "@x = global i64 0\n",
    "variables": "@x = global i64 7\n",
    "variables of others": "@x = external global i64\n",
    "variables of threads": "@x = thread_local global i64 7\n",
    "other functions": "declare i64 @getpid()\n",
    "tables of addresses": "@t = constant [1 x ptr] [ptr @f]\n@x = alias i64, ptr @t\n",
}


def using(what: str) -> str:
    """A module whose function `f` reads the variable @x, or calls a function."""
    called = "call i64 @getpid()" if what == "other functions" else "load volatile i64, ptr @x"
    return f"{UNSUPPORTED[what]}define i64 @f() nounwind {{\n  %v = {called}\n  ret i64 %v\n}}\n"


def object_of(text: str, triple: str = "x86_64-linux") -> bytes:
    return LLVM(compiled, text, target_of(triple, None))


WHOLE_OBJECT = object_of(WHOLE)


def anywhere(name: str) -> int:
    return 0x123456789ABC0000 + len(name)


def linked(object: bytes, *symbols: str) -> Image:
    return image([object], symbols or FUNCTIONS, anywhere)


def test_code_comes_first_and_constants_begin_a_page() -> None:
    made = linked(WHOLE_OBJECT)
    assert made.executable % 4096 == 0
    assert all(0 <= place < made.executable for place in made.functions.values())
    weights = np.frombuffer(made.content, "<i8", 4, made.executable)
    assert weights.tolist() == [10, 200, 3000, 40000]


def test_calls_of_other_functions_go_through_stubs() -> None:
    made = linked(WHOLE_OBJECT)
    for name in ("memset", "Py_DecRef"):
        stub = JUMP + anywhere(name).to_bytes(8, "little")
        assert made.content.count(stub) == 1
        assert made.content.index(stub) < made.executable


@here
def test_functions_run() -> None:
    code = linker.LinkedCode([WHOLE_OBJECT], FUNCTIONS)
    weight = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code["weight"])
    assert [weight(i) for i in range(4)] == [10, 200, 3000, 40000]
    memory = ctypes.create_string_buffer(b"12345678", 8)
    clear = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code["clear"])
    clear(ctypes.addressof(memory), 5)
    assert memory.raw == b"\0\0\0\0\x00678"
    code.close()


def access(address: int) -> str:
    """What the system lets this process do at an address: "r-xp" and such."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return line.split()[1]
    return ""


@here
def test_nothing_is_both_written_and_executed() -> None:
    code = linker.LinkedCode([WHOLE_OBJECT], FUNCTIONS)
    start = executable_memory.address_of(code._memory)
    assert access(start) == access(code["free"]) == "r-xp"
    assert access(start + linked(WHOLE_OBJECT).executable) == "r--p"
    code.close()
    assert access(start) != "r-xp"


@here
@pytest.mark.one_in(28)
@pytest.mark.parametrize("name", NETS)
def test_nets_do_without_llvms_linker_and_have_its_bits(name: str, cache_folder: object) -> None:
    made = []
    for other in ("_linked_by_llvm", "LinkedCode"):
        collector.collect()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(libraries, other, never)
            made.append(trained(name))
    assert made[0] == made[1]


def never(*_: object) -> linker.LinkedCode:
    raise UnsupportedError("the test wants the other linker")


def trained(name: str) -> list[bytes]:
    """The losses and the state of two steps."""
    net = NETS[name]("float32")
    plan = gc.compile(net, batch=9, optimizer=OPTIMIZERS["adam"](), backend="native")
    ex = gc.Executor(plan, seed=3)
    losses = [np.float64(ex.step(feeds_of(net, 9, seed=step))).tobytes() for step in range(2)]
    return losses + [np.asarray(array).tobytes() for array in ex.snapshot().values()]


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_is_left_to_llvm(what: str) -> None:
    with pytest.raises(UnsupportedError):
        image([object_of(using(what))], ("f",), linker.external)


@here
@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        ("zeros", lambda address: 0),
        ("variables", lambda address: 7),
        ("other functions", lambda address: os.getpid()),
        ("tables of addresses", lambda address: address),
    ],
)
def test_llvm_links_what_is_left_to_it(
    what: str, wanted: Callable[[int], int], cache_folder: object
) -> None:
    library = libraries.load(using(what), ("f",), host())
    address = library.address("f")
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(address)() == wanted(address)


@pytest.mark.parametrize("triple", ["aarch64-linux", "riscv64-linux", "riscv32"])
def test_objects_of_other_machines_are_left_to_llvm(triple: str) -> None:
    text = "define void @f() {\n  ret void\n}\n"
    with pytest.raises(UnsupportedError):
        linked(object_of(text, triple), "f")


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(UnsupportedError):
        linked(WHOLE_OBJECT, "weight", "height")


@here
def test_a_system_that_lets_no_memory_be_executed(
    cache_folder: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLVM's linker may know a way; here it does."""

    def refused(*_: object) -> int:
        ctypes.set_errno(errno.EACCES)
        return -1

    monkeypatch.setattr(executable_memory, "process", lambda: SimpleNamespace(mprotect=refused))
    with pytest.raises(PermissionError):
        executable_memory.mapped(b"\xc3", 4096)
    library = libraries.load(WHOLE, ("weight",), host())
    weight = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("weight"))
    assert weight(2) == 3000
    assert identity() is None


EXTREMES = (0, 1, 0x7F, 0xFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def fields() -> Iterator[tuple[int, int]]:
    """The places and sizes of all fields of the headers, symbols and relocations of WHOLE."""
    elf = linker.Elf(WHOLE_OBJECT)
    sizes = (2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2)
    yield from ((16 + sum(sizes[:i]), size) for i, size in enumerate(sizes))
    start = len(WHOLE_OBJECT) - HEADER * len(elf.sections)
    tables = [(start, HEADER * len(elf.sections), (4, 4, 8, 8, 8, 8, 4, 4, 8, 8))]
    entries = {2: (4, 1, 1, 2, 8, 8), 4: (8, 4, 4, 8)}
    tables += [(s.start, s.size, entries[s.kind]) for s in elf.sections if s.kind in entries]
    for first, length, sizes in tables:
        for entry in range(first, first + length, sum(sizes)):
            yield from ((entry + sum(sizes[:i]), size) for i, size in enumerate(sizes))


def check(object: bytes) -> None:
    """Link an object that may be damaged: it is refused, or all of it lies in the image."""
    try:
        made = linked(object)
    except (ElfError, UnsupportedError):
        return
    assert len(made.content) <= 3 * 4096 + 2 * len(object)
    assert made.executable <= -(-len(made.content) // 4096) * 4096
    assert all(0 <= place <= made.executable for place in made.functions.values())


def test_damage_in_each_field() -> None:
    places = list(fields())
    assert len(places) > 100
    for place, size in places:
        for value in EXTREMES:
            if value < 256**size:
                damaged = bytearray(WHOLE_OBJECT)
                damaged[place : place + size] = value.to_bytes(size, "little")
                check(bytes(damaged))


@given(st.data())
def test_objects_with_any_bytes_changed(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE_OBJECT)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(damaged))


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_first(content: bytes) -> None:
    check(WHOLE_OBJECT[:20] + content)


@here
def test_a_damaged_object_of_the_cache_is_compiled_again(cache_folder: Path) -> None:
    """Its checksum is right, as if this user had written it."""
    key = cache_keys.object_key(WHOLE, host())
    cache.store(key, WHOLE_OBJECT[:-HEADER])
    library = libraries.load(WHOLE, ("weight",), host())
    weight = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address("weight"))
    assert weight(1) == 200
    kept = cache.cached(key)
    assert kept is not None
    assert linked(kept).functions


TRAINING = """
import sys
import numpy as np
import graphc as gc
net = gc.Net("small")
h = gc.relu(gc.affine(net.input("x", (gc.N, 3)), 2))
net.loss("loss", gc.mean(h * h))
plan = gc.compile(net, batch=9, optimizer=gc.SGD(lr=0.1), backend="native")
ex = gc.Executor(plan, seed=3)
print([ex.step(x=np.full((9, 3), step)) for step in range(3)], "llvmlite" in sys.modules)
"""


@here
def test_a_process_that_finds_its_code_does_not_load_llvm(cache_folder: Path) -> None:
    command = [sys.executable, "-c", TRAINING]
    said = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True) for _ in range(2)]
    assert [each.stderr for each in said] == ["", ""]
    first, second = (each.stdout.split("] ") for each in said)
    assert first == [second[0], "True\n"]
    assert second[1] == "False\n"
