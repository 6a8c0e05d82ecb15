"""What may be missing on a machine: a test that needs it is skipped there, and says its name.

A test or a file calls `needs("onnx")`, or has the mark `needs("native", "node")`.  A name is that
of a thing below, of a package, or else of a program.  What can be known only by trying calls
`lacks("devices that a test may make")`.  No test is skipped in another way: test_extras.py checks
that.  A test that ends since a backend, an extra or a renderer is missing is skipped, too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

import graphc as gc
from graphc.backends.backend import BACKENDS, backend
from graphc.backends.native import target
from graphc.backends.native.cpuid import identity
from graphc.backends.native.llvm import missing_llvm
from graphc.base.errors import RendererMissing
from graphc.view.render.renderer import find_renderer

EXTRAS = {
    "browser": ("playwright",),
    "docs": ("furo", "myst_nb", "numpydoc", "sphinx"),
    "mpi": ("mpi4py",),
    "notebook": ("IPython", "ipykernel", "jupytext", "nbclient", "nbformat"),
    "onnx": ("onnx",),
    "peers": ("gymnasium", "jax", "numba", "openvino", "pytensor", "torch"),
    "plot": ("matplotlib",),
    "prove": ("z3",),
    "sklearn": ("sklearn",),
    "tensorboard": ("tensorboardX",),
    "test": ("onnxruntime", "safetensors", "tensorboard"),
}
"""The packages of each extra that tests ask for."""
PACKAGES = {
    **{package: f"graphc-nn[{extra}]" for extra, names in EXTRAS.items() for package in names},
    **{name: name for name in ("aeon", "mlxtend", "setuptools", "torchvision")},
}
"""What brings each package."""
ASKED_FOR = ("renderer", *BACKENDS)
"""What graphc itself may ask for."""

Why = str | None
"""Why a thing is missing, or None if it is here."""


def program(name: str, path: str | None = None) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name, path=path)


def chromium() -> str | None:
    """Return the path of the browser, or None."""
    return program("chromium") or program("chromium-browser")


def _unless(there: Callable[[], object], what: str) -> Callable[[], Why]:
    return lambda: None if there() else f"no {what} here"


def _on_host(has: Callable[[target.Target], bool], what: str) -> Callable[[], Why]:
    return lambda: target.available() or (None if has(target.host()) else f"no {what} here")


def _renderer(full: bool) -> Why:
    with contextlib.suppress(RendererMissing):
        found = find_renderer()
        if found is not None:
            return "no full Graphviz here" if full and not found.full else None
    return "no Graphviz here: pip install 'graphc-nn[dot]'"


def _mpi() -> Why:
    from tests.runtime.distributed.launched import MPIEXEC

    return missing("mpi4py") or (None if MPIEXEC else "there is no mpiexec")


def _slurm() -> Why:
    from tests.runtime.distributed import slurm

    return slurm.missing()


THINGS: dict[str, Callable[[], Why]] = {
    **{name: backend(name).missing for name in BACKENDS},
    "LLVM": missing_llvm,
    "linked objects": lambda: target.available() or (None if identity() else "LLVM links here"),
    "VNNI": _on_host(lambda host: host.words["int8"] == target.VNNI, "instruction of VNNI"),
    "DOTS": _on_host(lambda host: target.has_dots(host.features), "dot product of bfloat16"),
    "TILES": _on_host(lambda host: host.words["blocks"] == target.TILES, "register of tiles"),
    "vectors of 512 bits": _on_host(lambda host: host.bits >= 512, "vector of 512 bits"),
    "vectors of 256 bits": _on_host(lambda host: host.bits >= 256, "vector of 256 bits"),
    "vectors of 128 bits": _on_host(lambda host: True, "vector"),
    "x86-64": _unless(lambda: platform.machine() == "x86_64", "x86-64"),
    "chromium": _unless(chromium, "chromium"),
    "renderer": lambda: _renderer(full=False),
    "full renderer": lambda: _renderer(full=True),
    "MPI": _mpi,
    "Slurm": _slurm,
    "Linux": _unless(lambda: sys.platform == "linux", "Linux"),
    "POSIX": _unless(lambda: os.name == "posix", "POSIX"),
    "root": _unless(lambda: os.name == "posix" and os.geteuid() == 0, "rights of root"),
    "/dev/full": _unless(Path("/dev/full").exists, "/dev/full"),
    "list of children": _unless(
        Path(f"/proc/self/task/{os.getpid()}/children").exists, "list of children in /proc"
    ),
}
"""Things that are neither packages nor programs."""


@cache
def missing(what: str) -> Why:
    """Return why a thing, a package or a program is missing here, or None."""
    package = what.partition(".")[0]
    if what in THINGS:
        return THINGS[what]()
    if package in PACKAGES:
        there = importlib.util.find_spec(package) is not None
        return None if there else f"{package} is missing: pip install '{PACKAGES[package]}'"
    return None if program(what) else f"there is no {what}"


def needs(*names: str) -> Any:
    """Skip the test or the file if something is missing; return the last one.

    That is the imported module of a package, and the path of a program.
    """
    for what in names:
        why = missing(what)
        if why is not None:
            lacks(why)
    what = names[-1]
    if what.partition(".")[0] in PACKAGES:
        return importlib.import_module(what)
    return chromium() if what == "chromium" else program(what)


def where(thing: str, case: str | None = None) -> Any:
    """Return a case of a parameter that is skipped where a thing is missing: it or `case`."""
    return pytest.param(case or thing, marks=pytest.mark.needs(thing))


EACH_BACKEND = ["numpy", *map(where, (name for name in BACKENDS if name != "numpy"))]
"""The cases of a parameter that is a backend."""


def lacks(why: str) -> NoReturn:
    """Skip the test or the file that found that something is missing."""
    pytest.skip(why, allow_module_level=True)


@contextlib.contextmanager
def skipped_where_missing() -> Iterator[None]:
    """Skip the test where an error inside asks for what is missing here."""
    try:
        yield
    except (gc.GraphError, ImportError) as error:
        text = str(error)
        if isinstance(error, RendererMissing):
            needs("renderer")
        for name in ASKED_FOR:
            if f"there is no {name} backend here" in text:
                needs(name)
        for extra in re.findall(r"pip install 'graphc-nn\[(\w+)\]'", text):
            for package in EXTRAS.get(extra, ()):
                needs(package)
        raise
