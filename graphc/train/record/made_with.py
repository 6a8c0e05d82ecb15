"""The versions and settings that a run was made with, on which bits may depend."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata

import numpy as np

from graphc.base.version import __version__

VARIABLES = (
    "GRAPHC_VECTOR_BITS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""The variables that have to be set before a process begins, and may change bits."""


@dataclass(frozen=True)
class MadeWith:
    """The versions, the processor, the cores, and the variables that are set."""

    graphc: str
    numpy: str
    llvmlite: str
    backend: str
    processor: str
    cores: int
    variables: dict[str, str]

    def __post_init__(self) -> None:
        texts = (self.graphc, self.numpy, self.llvmlite, self.backend, self.processor)
        if not isinstance(self.variables, dict) or type(self.cores) is not int:
            raise ValueError("what it was made with is not described as expected")
        if not self.variables.keys() <= set(VARIABLES):
            raise ValueError("it names variables that no run depends on")
        if not all(isinstance(text, str) for text in (*texts, *self.variables.values())):
            raise ValueError("what it was made with is not described as expected")

    def differences(self, other: MadeWith) -> list[str]:
        """Return texts about all settings that differ from the other's."""
        found = [
            f"{name} {mine} and {yours}"
            for name in ("graphc", "numpy", "llvmlite", "backend", "processor", "cores")
            if (mine := getattr(self, name)) != (yours := getattr(other, name))
        ]
        for name in VARIABLES:
            mine, yours = (one.variables.get(name, "unset") for one in (self, other))
            if mine != yours:
                found.append(f"{name} {mine} and {yours}")
        return found


def made_with(backend: str) -> MadeWith:
    """Return the versions and settings of this process."""
    return MadeWith(
        __version__,
        np.__version__,
        _llvmlite(),
        backend,
        _processor(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        variables(),
    )


def variables() -> dict[str, str]:
    """Return the values of those VARIABLES that are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _llvmlite() -> str:
    try:
        return metadata.version("llvmlite")
    except metadata.PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = (line.partition(":")[2].strip() for line in file if line.startswith("model n"))
            return next(names, platform.machine())
    except OSError:
        return platform.processor() or platform.machine()
