"""ELF objects are read as LLVM reads them, and damage anywhere is told."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.backends.elf import Elf, ElfError, undefined
from graphc.backends.native.cross import compiled, target_of
from graphc.backends.native.llvm import LLVM, bindings
from tests.extras import needs

needs("LLVM")

TEXT = """
@table = constant [3 x i32] [i32 5, i32 6, i32 7]
@sum = global i32 0
declare void @elsewhere(i32)
define i32 @looked_up(i32 %i) nounwind {
  %place = getelementptr i32, ptr @table, i32 %i
  %x = load i32, ptr %place
  store i32 %x, ptr @sum
  call void @elsewhere(i32 %x)
  ret i32 %x
}
"""
TRIPLES = ("x86_64-linux", "aarch64-linux", "riscv64-linux", "riscv32", "thumbv7em-none-eabi")


def object_of(triple: str) -> bytes:
    return LLVM(compiled, TEXT, target_of(triple, None))


@pytest.mark.parametrize("triple", TRIPLES)
def test_sections_are_those_that_llvm_reads(triple: str) -> None:
    made = object_of(triple)
    elf = Elf(made)
    seen = bindings().ObjectFileRef.from_data(made).sections()
    sizes = [section.size() for section in seen]
    assert [section.size for section in elf.sections[-len(sizes) :]] == sizes
    assert elf.kind == 1
    assert elf.bits == (64 if "64" in triple else 32)


@pytest.mark.parametrize("triple", TRIPLES)
def test_symbols_lie_in_their_sections(triple: str) -> None:
    made = object_of(triple)
    elf = Elf(made)
    symbols = {symbol.name: symbol for symbol in elf.symbols}
    assert undefined(made) == ["elsewhere"]
    assert symbols["elsewhere"].section == 0
    table = symbols["table"]
    content = elf.content_of(elf.sections[table.section])
    assert content[table.value :][:12] == bytes([5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0])


def test_other_files_have_no_undefined_names() -> None:
    assert undefined(b"") == undefined(b"MZ" + bytes(100)) == []


@pytest.mark.parametrize("triple", TRIPLES[:4:3])
def test_an_object_that_is_cut_off(triple: str) -> None:
    made = object_of(triple)
    for length in range(0, len(made), 7):
        with pytest.raises(ElfError):
            read(made[:length])


@given(st.data())
def test_objects_with_any_bytes_changed(data: st.DataObject) -> None:
    made = bytearray(object_of(data.draw(st.sampled_from(TRIPLES))))
    for _ in range(data.draw(st.integers(1, 8))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ElfError):
        read(bytes(made))


def read(content: bytes) -> None:
    elf = Elf(content)
    assert elf.symbols
    for section in elf.sections:
        if section.kind != 8:  # zeros have no place in the file
            assert len(elf.content_of(section)) == section.size
