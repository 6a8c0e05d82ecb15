"""What LLVM says of the machine is kept for this processor and this LLVM, and for no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc.backends.native import cpuid, this_machine
from graphc.backends.native.target import available
from graphc.backends.native.this_machine import Facts

HERE = available() is None and cpuid.identity() is not None
pytestmark = pytest.mark.needs("linked objects")


@pytest.fixture(autouse=True)
def folder(cache_folder: Path) -> Iterator[Path]:
    this_machine.facts.cache_clear()
    yield cache_folder
    this_machine.facts.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """The answers of LLVM so far."""
    found: list[Facts] = []
    original = this_machine._asked

    def ask() -> Facts:
        found.append(original())
        return found[-1]

    monkeypatch.setattr(this_machine, "_asked", ask)
    return found


def another_process() -> Facts:
    this_machine.facts.cache_clear()
    return this_machine.facts()


def test_llvm_is_asked_once(asked: list[Facts]) -> None:
    assert this_machine.facts() is this_machine.facts()
    assert another_process() == asked[0]
    assert len(asked) == 1


def test_a_damaged_entry_is_not_used(asked: list[Facts], folder: Path) -> None:
    this_machine.facts()
    (entry,) = folder.iterdir()
    entry.write_bytes(entry.read_bytes().replace(b"+avx", b"-avx"))
    assert another_process() == asked[0] == asked[1]


@pytest.mark.parametrize("query", cpuid.QUERIES[1:4])
@pytest.mark.parametrize("register", range(3))
def test_another_processor_asks_again(
    query: tuple[int, int],
    register: int,
    asked: list[Facts],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    this_machine.facts()
    here = cpuid._processor()
    here[query][register] ^= 1 << 7
    monkeypatch.setattr(cpuid, "_processor", lambda: here)
    another_process()
    assert len(asked) == 2


@pytest.mark.parametrize("change", ["version", "library", "path"])
def test_another_llvmlite_asks_again(
    change: str, asked: list[Facts], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package, other = tmp_path / "llvmlite", tmp_path / "other"
    for place in (package, other):
        (place / "binding").mkdir(parents=True)
        (place / "_version.py").write_text("version_version = '1'")
        (place / "binding" / "libllvmlite.so").write_bytes(b"1")
    origin = [str(package / "__init__.py")]
    monkeypatch.setattr(cpuid, "find_spec", lambda _: Spec(origin[0]))
    this_machine.facts()
    another_process()
    assert len(asked) == 1
    if change == "version":
        (package / "_version.py").write_text("version_version = '2'")
    elif change == "library":
        (package / "binding" / "libllvmlite.so").write_bytes(b"2")
    else:
        origin[0] = str(other / "__init__.py")
    another_process()
    assert len(asked) == 2


class Spec:
    def __init__(self, origin: str | None) -> None:
        self.origin = origin


@pytest.mark.parametrize("spec", [None, Spec(None), Spec("/nowhere/llvmlite/__init__.py")])
def test_nothing_is_kept_where_llvmlite_is_not_found(
    spec: Spec | None, asked: list[Facts], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpuid, "find_spec", lambda _: spec)
    this_machine.facts()
    another_process()
    assert len(asked) == 2
    assert not folder.exists()


@pytest.mark.parametrize(("platform", "machine"), [("darwin", "x86_64"), ("linux", "aarch64")])
def test_nothing_is_kept_of_other_machines(
    platform: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpuid.sys, "platform", platform)
    monkeypatch.setattr(cpuid.platform, "machine", lambda: machine)
    assert cpuid.identity() is None


def test_all_cores_are_one_processor() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        found = set()
        for core in allowed:
            os.sched_setaffinity(0, {core})
            found.add(cpuid.identity())
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(found) == 1


def test_the_processor_is_the_one_that_the_system_knows() -> None:
    text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    fields = [line.partition(":") for line in text.splitlines()]
    known = {name.strip(): value.strip() for name, _, value in fields}
    found = cpuid._processor()
    _, b, c, d = found[0, 0]
    assert b"".join(x.to_bytes(4, "little") for x in (b, d, c)).decode() == known["vendor_id"]
    signature, features, _, *state = found[1, 0]
    assert signature & 15 == int(known["stepping"])
    model = (signature >> 4 & 15) + 16 * (signature >> 16 & 15)
    assert model == int(known["model"])
    flags = known["flags"].split()
    assert ("fma" in flags) == bool(features >> 12 & 1)
    assert ("avx2" in flags) == bool(found[7, 0][1] >> 5 & 1)
    assert ("avx" in flags) == (bool(state) and state[0] & 6 == 6)
