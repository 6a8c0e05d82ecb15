"""The machine that native code is made for: its instructions and vectors."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from graphc.backends.native.llvm import bindings
from graphc.backends.native.this_machine import Facts, MissingError, facts, feature_list
from graphc.backends.native.tile_permission import permitted
from graphc.base.errors import GraphError
from graphc.kernels.kernel import LANES

WIDTHS = (512, 256, 128)
FAST_DOTS = ("znver",)
"""The first letters of processors whose products of pairs of bfloat16 take the time of one
multiply-add each; those of Intel take four times as long, more than two multiply-adds."""


class Words(NamedTuple):
    """The narrow factors in a packed word of 32 bits, and the instruction for two words, if any.

    It adds the products of their factors to a sum of 32 bits.
    """

    factors: int
    instruction: str = ""
    shift: int = 0
    """The number that is added to the left factors, which the instruction takes as unsigned."""


PAIRS = Words(2)
VNNI = Words(4, "x86.avx512.vpdpbusd", 128)
SDOT = Words(4, "aarch64.neon.sdot")
WIDENED = Words(1)
"""A factor of bfloat16 as float32."""
DOTS = Words(2, "x86.avx512bf16.dpbf16ps")
"""Factors of bfloat16; the instruction adds the product of the upper ones first."""
TILES = Words(2, "x86.tdpbf16ps")
"""Factors of bfloat16; the instruction multiplies tiles of 16 rows of 16 words."""
WORDS: Mapping[str, Words] = {"int8": PAIRS, "pairs": WIDENED, "blocks": WIDENED}
"""The words that any processor multiplies: of int8, and of bfloat16 in each order of terms."""


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
    def words(self) -> Mapping[str, Words]:
        """The words in which int8, and bfloat16 in each order of terms, is multiplied."""
        return _words(self)

    @property
    def wasm(self) -> bool:
        """True if this is WebAssembly."""
        return self.triple.startswith("wasm")

    @property
    def apple(self) -> bool:
        """True if the system is macOS; otherwise it is Linux."""
        return "apple" in self.triple


@lru_cache
def _words(target: Target) -> Mapping[str, Words]:
    dots = target.cpu.startswith(FAST_DOTS) and has_dots(target.features)
    tiles = target.bits == max(WIDTHS) and has_tiles(target.features)
    return {
        "int8": _int8_words(set(target.features.split(",")), target.arm),
        "pairs": DOTS if dots else WIDENED,
        "blocks": TILES if tiles else WIDENED,
    }


def _int8_words(on: Set[str], arm: bool) -> Words:
    if arm:
        return SDOT if "+dotprod" in on else PAIRS
    wide = {"+avx512f", "+avx512vl", "+avx512vnni"} <= on
    return VNNI if wide or {"+avx2", "+avxvnni"} <= on else PAIRS


def has_dots(features: str) -> bool:
    """Return whether a processor adds products of pairs of bfloat16, if not that it is fast."""
    return {"+avx512f", "+avx512vl", "+avx512bf16"} <= set(features.split(","))


def has_tiles(features: str) -> bool:
    """Return whether a processor multiplies tiles of bfloat16."""
    return {"+amx-tile", "+amx-bf16"} <= set(features.split(","))


def available() -> str | None:
    """Return None if native code can be made, else the reason why not, in a few words."""
    if sys.platform not in ("linux", "darwin"):
        return f"no native code on {platform.system() or sys.platform} yet"
    if sys.maxsize < 2**32:
        return "Python is not a 64-bit program"
    try:
        return _lacking(facts())
    except MissingError as missing:
        return str(missing)


def _lacking(facts: Facts) -> str | None:
    """Return why no code can be made for a processor, or None if it can."""
    machine, features = facts.triple.split("-")[0], facts.known
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
    found = facts()
    bits = _narrowed(requested, _width(found.triple, found.known))
    features = feature_list(_without_wider(bits, found.known))
    target = Target(found.triple, found.cpu, features, bits)
    return target if target.words["blocks"] != TILES or permitted() else without_tiles(target)


def without_tiles(target: Target) -> Target:
    """Return a target without tiles, for code whose process may not ask the system for them."""
    return replace(target, features=target.features.replace("+amx-", "-amx-"))


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


@lru_cache
def machine(target: Target) -> Any:
    """Return LLVM's target machine, one a target; to be used by one thread at a time."""
    return new_machine(target)


def new_machine(target: Target) -> Any:
    """Return a target machine of LLVM for one thread."""
    return (
        bindings()
        .Target.from_triple(target.triple)
        .create_target_machine(cpu=target.cpu, features=target.features, jit=True, **CODEGEN)
    )


CODEGEN = {"opt": 2, "reloc": "pic", "codemodel": "small"}
"""The options of code generation: opt=1 gives code 5 % slower, opt=3 the same as 2."""
