"""Packages that extras bring: a test that needs one is skipped without it, and names the extra."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import pytest

import graphc as gc
from graphc.base.errors import RendererMissing
from graphc.view.render.renderer import find_renderer

EXTRAS = {
    "IPython": "notebook",
    "ipykernel": "notebook",
    "matplotlib": "plot",
    "nbclient": "notebook",
    "nbformat": "notebook",
    "numpydoc": "docs",
    "onnx": "onnx",
    "onnxruntime": "test",
    "playwright": "browser",
    "safetensors": "test",
    "sklearn": "sklearn",
    "tensorboard": "test",
    "tensorboardX": "tensorboard",
    "z3": "prove",
}


def needs(module: str) -> Any:
    """Return the imported module, or skip the test or the file that asks for it."""
    package = module.partition(".")[0]
    reason = f"{package} is missing: pip install 'graphc-nn[{EXTRAS[package]}]'"
    return pytest.importorskip(module, reason=reason)


def needs_renderer() -> None:
    """Skip the test where nothing draws graphs."""
    if find_renderer() is None:
        pytest.skip("no Graphviz here: pip install 'graphc-nn[dot]'")


@contextlib.contextmanager
def skipped_without_extras() -> Iterator[None]:
    """Skip the test where an error inside asks for an extra that is not installed."""
    try:
        yield
    except (gc.GraphError, ImportError) as error:
        missing = {EXTRAS[name] for name in EXTRAS if importlib.util.find_spec(name) is None}
        asked = re.search(r"pip install 'graphc-nn\[(\w+)\]'", str(error))
        if isinstance(error, RendererMissing):
            needs_renderer()
        if asked and asked[1] in missing:
            pytest.skip(f"{asked[1]} is missing: {asked[0]}")
        raise
