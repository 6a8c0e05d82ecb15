"""Facts about this machine that LLVM knows, kept for processes that do not load it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from graphc.backends.native.cache import cached, store
from graphc.backends.native.cpuid import identity
from graphc.backends.native.llvm import LLVM, bindings, compiler_version, missing_llvm


class MissingError(Exception):
    """The reason why there is no LLVM."""


class Facts(NamedTuple):
    """The words of LLVM about this machine, and the versions of it and llvmlite."""

    triple: str
    cpu: str
    features: str
    """Every feature that LLVM knows of, switched on or off: "+avx,-avx512f,..."."""
    compiler: str

    @property
    def known(self) -> dict[str, bool]:
        """The features by name: true if the processor has it."""
        return {name[1:]: name[0] == "+" for name in self.features.split(",") if name}


@lru_cache(maxsize=1)
def facts() -> Facts:
    """Return what LLVM says of this machine; raise MissingError if there is no LLVM.

    LLVM is not loaded if the cache holds what it said when all that it looks at was the same.
    """
    about = identity()
    if about is None:
        return _asked()
    key = hashlib.sha256(f"facts 1 {about}".encode()).hexdigest()
    kept = cached(key)
    if kept is not None:
        return Facts(*kept.decode().split("\n"))
    found = _asked()
    store(key, "\n".join(found).encode())
    return found


def _asked() -> Facts:
    if reason := missing_llvm():
        raise MissingError(reason)
    return LLVM(_facts)


def _facts() -> Facts:
    llvm = bindings()
    features, cpu = feature_list(llvm.get_host_cpu_features()), llvm.get_host_cpu_name()
    return Facts(llvm.get_process_triple(), cpu or "generic", features, compiler_version())


def feature_list(features: Mapping[str, bool]) -> str:
    """Join the features, those switched off last: each switches off all that builds on it."""
    order = sorted(features.items(), key=lambda item: (not item[1], item[0]))
    return ",".join(f"{'+' if on else '-'}{name}" for name, on in order)
