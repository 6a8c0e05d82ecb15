"""The machine that native code is made for: its instructions and vectors, and LLVM's lock."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any, NamedTuple, TypeVar

from graphc.base.errors import GraphError
from graphc.base.scoped_lock import ScopedLock
from graphc.kernels.kernel import LANES

OLDEST_LLVMLITE = (0, 45)
WIDTHS = (512, 256, 128)


class Words(NamedTuple):
    """The factors of int8 in a word of 32 bits, and the instruction for two words, if any.

    It adds the products of their factors to a sum of 32 bits.
    """

    factors: int
    instruction: str = ""
    shift: int = 0
    """The number that is added to the left factors, which the instruction takes as unsigned."""


PAIRS = Words(2)
VNNI = Words(4, "x86.avx512.vpdpbusd", 128)
SDOT = Words(4, "aarch64.neon.sdot")


@dataclass(frozen=True, slots=True)
class Target:
    """A machine to generate code for; equal targets share compiled objects."""

    triple: str
    cpu: str
    features: str
    """Every feature that LLVM knows of, switched on or off: "+avx,-avx512f,..."."""
    bits: int
    """The width of a vector register: 512, 256 or 128."""
    pointer: int = 64
    """The bits of an address."""
    abi: str = ""
    """The name of the calling convention, where an architecture has several."""
    lanes: int = LANES
    """The lanes of vectors in loops; see `ir.Module`."""

    @property
    def arm(self) -> bool:
        """True if this is a 64-bit ARM; otherwise it is an x86-64."""
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def words(self) -> Words:
        """The words in which int8 is multiplied."""
        on = set(self.features.split(","))
        if self.arm:
            return SDOT if "+dotprod" in on else PAIRS
        wide = {"+avx512f", "+avx512vl", "+avx512vnni"} <= on
        return VNNI if wide or {"+avx2", "+avxvnni"} <= on else PAIRS

    @property
    def wasm(self) -> bool:
        """True if this is WebAssembly."""
        return self.triple.startswith("wasm")

    @property
    def apple(self) -> bool:
        """True if the system is macOS; otherwise it is Linux."""
        return "apple" in self.triple


def missing_llvm() -> str | None:
    """Return why there is no LLVM, or None."""
    try:
        bindings()
    except (ImportError, OSError, RuntimeError):
        return "llvmlite is missing"
    if _llvmlite_version() < OLDEST_LLVMLITE:
        return "llvmlite is older than " + ".".join(map(str, OLDEST_LLVMLITE))
    return None


def available() -> str | None:
    """Return None if native code can be made, else the reason why not, in a few words."""
    reason = missing_llvm()
    if reason is not None:
        return reason
    if sys.platform not in ("linux", "darwin"):
        return f"no native code on {platform.system() or sys.platform} yet"
    if sys.maxsize < 2**32:
        return "Python is not a 64-bit program"
    triple, features, _ = LLVM(_host_facts)
    return _lacking(triple, features)


def _lacking(triple: str, features: Mapping[str, bool]) -> str | None:
    """Return why no code can be made for a processor, or None if it can."""
    machine = triple.split("-")[0]
    if machine in ("aarch64", "arm64"):
        return None
    if machine not in ("x86_64", "amd64"):
        return f"no native code for {machine} yet"
    if not (features.get("fma") and features.get("avx")):
        # Each product of a matrix product would be a call of libm's fma: slower than NumPy.
        return "the processor has no fused multiply-add"
    return None


def host() -> Target:
    """Return this machine, with vectors no wider than GRAPHC_VECTOR_BITS if that is set.

    Call it only if `available()` is None.  Raise GraphError for a width that this machine lacks.
    """
    return _host(os.environ.get("GRAPHC_VECTOR_BITS") or None)


@lru_cache
def _host(requested: str | None) -> Target:
    triple, features, cpu = LLVM(_host_facts)
    bits = _narrowed(requested, _width(triple, features))
    return Target(triple, cpu, _feature_list(_without_wider(bits, features)), bits)


def _host_facts() -> tuple[str, dict[str, bool], str]:
    """Return the triple of this process, the features of this processor, and its name."""
    llvm = bindings()
    features = dict(llvm.get_host_cpu_features())
    return llvm.get_process_triple(), features, llvm.get_host_cpu_name() or "generic"


def _width(triple: str, features: Mapping[str, bool]) -> int:
    """Return the bits of the widest vectors of a processor that has these features."""
    if triple.startswith(("aarch64", "arm64")):
        return 128
    if features.get("avx512f") and features.get("avx512vl"):
        return 512
    return 256 if features.get("avx2") else 128


def _narrowed(requested: str | None, widest: int) -> int:
    if requested is None:
        return widest
    widths = [str(bits) for bits in WIDTHS if bits <= widest]
    if requested.strip() not in widths:
        raise GraphError(
            f"GRAPHC_VECTOR_BITS is {requested!r}, which is not a vector width of this processor.",
            hint=f"set it to {' or '.join(widths)}, or unset it",
        )
    return int(requested)


def _without_wider(bits: int, features: Mapping[str, bool]) -> dict[str, bool]:
    """Return the features with those of wider vectors switched off.

    At 128 bits AVX itself stays: without it there is no fused multiply-add.
    """
    wider = [name for name, width in (("avx512f", 512), ("avx2", 256)) if bits < width]
    return {name: on and name not in wider for name, on in features.items()}


def _feature_list(features: Mapping[str, bool]) -> str:
    """Join the features, those switched off last: each switches off all that builds on it."""
    order = sorted(features.items(), key=lambda item: (not item[1], item[0]))
    return ",".join(f"{'+' if on else '-'}{name}" for name, on in order)


@lru_cache(maxsize=1)
def bindings() -> Any:
    """Return llvmlite's bindings, ready to make code for this process.

    Raise ImportError, OSError or RuntimeError if they are missing or broken.
    """
    return LLVM(_bindings)


def _bindings() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # inline assembly without it ends the whole process
    return llvm


def _llvmlite_version() -> tuple[int, ...]:
    import llvmlite

    return tuple(map(int, re.findall(r"\d+", llvmlite.__version__)[:2]))


@lru_cache
def machine(target: Target) -> Any:
    """Return LLVM's target machine, one a target; to be used by one thread at a time."""
    return (
        bindings()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=target.features, jit=True, **CODEGEN)
    )


CODEGEN = {"opt": 2, "reloc": "pic", "codemodel": "small"}
"""The options of code generation: opt=1 gives code 5 % slower, opt=3 the same as 2."""


def compiler_version() -> str:
    """Return the versions of llvmlite and LLVM: other ones may generate other code."""
    import llvmlite

    return f"llvmlite {llvmlite.__version__}, LLVM {bindings().llvm_version_info}"


T = TypeVar("T")


class LLVMLock(ScopedLock):
    """A scoped lock that only the forking thread may hold while the process forks.

    A child of fork must not find LLVM halfway through another thread's work.
    """

    __slots__ = ("_forking",)

    def __init__(self) -> None:
        super().__init__()
        self._forking = 0
        """The identifier of the thread that forks, or 0."""
        if hasattr(os, "register_at_fork"):
            after = self._after
            os.register_at_fork(before=self._before, after_in_parent=after, after_in_child=after)

    def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Wait until no other thread holds the lock or forks, then call `work` under the lock."""
        made: list[T] = []
        while not made:
            super().__call__(self._unless_forking, made, work, args)
        return made[0]

    def _unless_forking(self, made: list[T], work: Callable[..., T], args: tuple[Any, ...]) -> None:
        if self._forking in (0, get_ident()):
            made.append(work(*args))
        else:
            # This call leaves the lock again, so that the forking thread can take it.
            time.sleep(0.001)

    def _before(self) -> None:
        self._forking = get_ident()
        super().__call__(bool)  # waits for the thread inside

    def _after(self) -> None:
        self._forking = 0


LLVM = LLVMLock()
