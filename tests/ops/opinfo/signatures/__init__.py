"""Functions that are called as PyTorch's are, and do the same with graphc's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.ops.opinfo.signatures import (
    elementwise,
    images,
    indexing,
    losses,
    matrices,
    reductions,
    shapes,
)

OURS: Mapping[str, Callable[..., Any]] = {
    **elementwise.OURS,
    **reductions.OURS,
    **matrices.OURS,
    **shapes.OURS,
    **indexing.OURS,
    **images.OURS,
    **losses.OURS,
}
"""By the names of PyTorch's OpInfos, with the variant after a slash."""
