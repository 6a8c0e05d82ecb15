"""What PyTorch 2.13 gives in float64 for attention and recurrent layers: values and gradients.

`by_torch.json` holds, for each case, the result `y`, and the gradients of sum(y * c), where c is
`wave(*y.shape, a=0.9)`; of recurrent layers also the last states, each with `wave(..., a=0.2)`.
All numbers that go in are waves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TORCH: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text())
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}


def wave(*shape: int, a: float) -> Array:
    """Numbers between -1 and 1, in three digits."""
    numbers = np.sin(a * np.arange(np.prod(shape)) + 0.61 * len(shape))
    return np.round(numbers, 3).reshape(shape)
