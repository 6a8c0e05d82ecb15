"""The sides of the comparison: one file a framework, each imported in its own process only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from tests.tools.benchmarks.peers.sides.side import Side


@dataclass(frozen=True)
class Entry:
    """Where a side is, and the package without which it is skipped."""

    module: str
    kind: str
    package: str


SIDES: Mapping[str, Entry] = {
    "graphc": Entry("graphc_side", "Native", "graphc"),
    "unfrozen-graphc": Entry("graphc_side", "Unfrozen", "graphc"),
    "graphc-numpy": Entry("graphc_side", "OnNumPy", "graphc"),
    "numpy": Entry("numpy_side", "Buffers", "numpy"),
    "numpy-layers": Entry("by_hand_side", "Layers", "numpy"),
    "numpy-hand": Entry("by_hand_side", "HandBuffers", "numpy"),
    "numba": Entry("numba_side", "Numba", "numba"),
    "torch-foreach": Entry("torch_side", "Foreach", "torch"),
    "torch-fused": Entry("torch_side", "FusedOptimizer", "torch"),
    "torch-compile": Entry("torch_compile_side", "Compiled", "torch"),
    "torch-compile-cpp": Entry("torch_compile_side", "CppWrapper", "torch"),
    "torch-compile-max": Entry("torch_compile_side", "Autotuned", "torch"),
    "jax": Entry("jax_side", "Jax", "jax"),
    "jax-rbg": Entry("jax_side", "FastRandom", "jax"),
    "pytensor": Entry("pytensor_side", "PyTensor", "pytensor"),
    "onnxruntime": Entry("onnx_side", "OnnxRuntime", "onnxruntime"),
    "openvino": Entry("openvino_side", "OpenVino", "openvino"),
    "bf16-graphc": Entry("graphc_side", "Bfloat16", "graphc"),
    "bf16-graphc-blocks": Entry("graphc_side", "Blocks", "graphc"),
    "bf16-torch": Entry("torch_side", "Autocast", "torch"),
    "bf16-torch-medium": Entry("torch_side", "Medium", "torch"),
    "bf16-torch-cast": Entry("torch_side", "Cast", "torch"),
    "bf16-torch-compile": Entry("torch_compile_side", "Autocast", "torch"),
    "bf16-torch-compile-cast": Entry("torch_compile_side", "Cast", "torch"),
    "bf16-torch-compile-max": Entry("torch_compile_side", "AutotunedAutocast", "torch"),
    "bf16-openvino": Entry("openvino_side", "Bfloat16", "openvino"),
    "bound": Entry("bound_side", "Bound", "numpy"),
}
"""`bound` is no peer: the time that the matrix products take at the measured peak.  Sides whose
name begins with bf16 round the factors of products to bfloat16."""


def side(name: str, threads: int) -> Side:
    """A side, in the process that runs it."""
    entry = SIDES[name]
    module = importlib.import_module(f"{__name__}.{entry.module}")
    return cast(Side, getattr(module, entry.kind)(threads))


def chosen(only: str | None) -> list[str]:
    """The names that a list such as "torch,-torch-compile" stands for.

    A name covers those it begins, and one after a minus leaves them out.  Without a list it is all
    sides in float32.
    """
    if only is None:
        return [name for name in SIDES if not name.startswith("bf16-")]
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    return [
        name
        for name in SIDES
        if any(_covers(w, name) for w in wanted)
        and not any(_covers(w[1:], name) for w in wanted if w.startswith("-"))
    ]


def _covers(wanted: str, name: str) -> bool:
    return name == wanted or name.startswith(f"{wanted}-")
