"""Packages that extras bring: a test that needs one is skipped without it, and names the extra."""

from __future__ import annotations

from typing import Any

import pytest

EXTRAS = {
    "IPython": "notebook",
    "ipykernel": "notebook",
    "matplotlib": "plot",
    "nbclient": "notebook",
    "nbformat": "notebook",
    "onnx": "onnx",
    "onnxruntime": "test",
    "playwright": "browser",
    "safetensors": "test",
    "sklearn": "sklearn",
    "tensorboard": "test",
    "tensorboardX": "tensorboard",
}


def needs(module: str) -> Any:
    """Return the imported module, or skip the test or the file that asks for it."""
    package = module.partition(".")[0]
    reason = f"{package} is missing: pip install 'graphc-nn[{EXTRAS[package]}]'"
    return pytest.importorskip(module, reason=reason)
