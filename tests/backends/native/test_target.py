"""Which code this machine gets, and when it gets none."""

from __future__ import annotations

import ctypes
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from graphc.backends.native import objects, target, this_machine, tile_permission
from graphc.backends.native.llvm import bindings
from graphc.base.errors import GraphError
from tests.backends.native.small_programs import small_programs
from tests.extras import needs

pytestmark = pytest.mark.needs("native")

X86 = "x86_64-unknown-linux-gnu"
AVX2 = {"avx": True, "fma": True, "avx2": True}
AVX512 = {**AVX2, "avx512f": True, "avx512vl": True}
VECTORS = """
define void @vectors(ptr %a, ptr %b) "prefer-vector-width"="512" {
  %x = load <16 x float>, ptr %a, align 4
  %y = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  store <16 x float> %y, ptr %b, align 4
  %i = load <16 x i32>, ptr %a, align 4
  %j = mul <16 x i32> %i, %i
  store <16 x i32> %j, ptr %b, align 4
  ret void
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GRAPHC_VECTOR_BITS", raising=False)
    monkeypatch.setattr(this_machine, "identity", lambda: None)  # LLVM is asked
    forget()
    yield
    forget()


def forget() -> None:
    this_machine.facts.cache_clear()
    target._host.cache_clear()


def test_this_machine() -> None:
    here = target.host()
    assert here is target.host()
    assert here.bits in target.WIDTHS
    assert here.triple == bindings().get_process_triple()


@pytest.mark.parametrize(
    ("triple", "features", "bits"),
    [
        (X86, AVX512, 512),
        (X86, {**AVX512, "avx512vl": False}, 256),
        (X86, AVX2, 256),
        (X86, {"avx": True, "fma": True}, 128),
        ("aarch64-unknown-linux-gnu", {"neon": True}, 128),
        ("arm64-apple-darwin23.1.0", {}, 128),
    ],
)
def test_the_width_follows_the_features(
    triple: str, features: dict[str, bool], bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine(monkeypatch, triple, features, "")
    assert found.bits == bits
    assert found.cpu == "generic"


def says(monkeypatch: pytest.MonkeyPatch, triple: str, features: dict[str, bool], cpu: str) -> None:
    """Have LLVM tell this of the machine."""
    forget()
    llvm = bindings()
    monkeypatch.setattr(llvm, "get_process_triple", lambda: triple)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: cpu)


def machine(
    monkeypatch: pytest.MonkeyPatch, triple: str, features: dict[str, bool], cpu: str
) -> target.Target:
    """The target of a machine that LLVM tells this of."""
    says(monkeypatch, triple, features, cpu)
    assert target.available() is None
    return target.host()


AMX = {**AVX512, "amx-tile": True, "amx-bf16": True}


@pytest.mark.parametrize("permits", [True, False])
def test_registers_of_tiles_are_used_if_the_system_permits_it(
    permits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "permitted", lambda: permits)
    found = machine(monkeypatch, X86, AMX, "")
    assert found.words["blocks"] == (target.TILES if permits else target.WIDENED)
    assert ("+amx" in found.features) == permits


def test_who_has_no_use_for_tiles_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "permitted", lambda: pytest.fail("the system was asked"))
    assert machine(monkeypatch, X86, AVX512, "").words["blocks"] == target.WIDENED
    monkeypatch.setenv("GRAPHC_VECTOR_BITS", "256")
    assert machine(monkeypatch, X86, AMX, "").words["blocks"] == target.WIDENED


@pytest.mark.parametrize(
    ("system", "architecture", "answer", "permits"),
    [
        ("linux", "x86_64", 0, True),
        ("linux", "x86_64", -1, False),
        ("linux", "aarch64", 0, False),
        ("darwin", "x86_64", 0, False),
    ],
)
def test_the_system_permits_tiles_by_its_answer(
    system: str, architecture: str, answer: int, permits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(syscall=lambda *arguments: answer)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert tile_permission.permitted.__wrapped__() is permits


@pytest.mark.parametrize(
    ("triple", "features", "reason"),
    [
        (X86, {"avx": True, "avx2": True}, "the processor has no fused multiply-add"),
        (X86, {}, "the processor has no fused multiply-add"),
        ("riscv64-unknown-linux-gnu", {}, "no native code for riscv64 yet"),
        ("i686-unknown-linux-gnu", AVX2, "no native code for i686 yet"),
    ],
)
def test_machines_without_native_code(
    triple: str, features: dict[str, bool], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, triple, features, "")
    assert target.available() == reason


def test_systems_without_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(target.platform, "system", lambda: "Windows")
    assert target.available() == "no native code on Windows yet"


def test_a_python_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert target.available() == "Python is not a 64-bit program"


def test_without_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings.cache_clear()
    forget()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    assert target.available() == "llvmlite is missing"


@pytest.mark.parametrize(
    ("version", "reason"),
    [("0.44.0", "llvmlite is older than 0.45"), ("0.45.1rc1", None), ("1.0.dev0", None)],
)
def test_versions_of_llvmlite(
    version: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llvmlite

    forget()
    monkeypatch.setattr(llvmlite, "__version__", version)
    assert target.available() == reason


def test_llvmlite_is_not_imported_with_the_backend() -> None:
    text = (
        "import sys, graphc, graphc.backends.native.pool, graphc.backends.native.target\n"
        "assert not any(name.startswith('llvmlite') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


@pytest.mark.parametrize("asked", ["512", "256", "128"])
def test_narrower_vectors_are_the_only_ones_in_the_code(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("x86-64", f"vectors of {asked} bits")
    monkeypatch.setenv("GRAPHC_VECTOR_BITS", asked)
    narrowed = target.host()
    assert narrowed.bits == int(asked)
    machine = target.new_machine(narrowed)
    code = str(machine.emit_assembly(objects.parsed(VECTORS, narrowed, machine)))
    assert "vfmadd" in code
    assert ("zmm" in code) == (asked == "512")
    integers = "\n".join(re.findall(r"vpmull.*", code))
    assert ("ymm" in integers) == (asked == "256")


@pytest.mark.parametrize("asked", ["1024", "64", "wide", "256.0", "-128"])
def test_widths_that_are_none(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_VECTOR_BITS", asked)
    with pytest.raises(GraphError, match=f"GRAPHC_VECTOR_BITS is '{asked}'"):
        target.host()


def test_wider_vectors_than_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_VECTOR_BITS", "512")
    with pytest.raises(GraphError, match="hint: set it to 256 or 128, or unset it"):
        machine(monkeypatch, X86, AVX2, "")


@pytest.mark.parametrize("cpu", ["", "generic", "a-processor-of-next-year"])
def test_a_processor_without_a_known_name(
    cpu: str, monkeypatch: pytest.MonkeyPatch, cache_folder: object
) -> None:
    llvm: Any = bindings()
    features, triple = llvm.get_host_cpu_features(), llvm.get_process_triple()
    unknown = machine(monkeypatch, triple, features, cpu)
    assert unknown.cpu == (cpu or "generic")
    assert small_programs().address("count")
