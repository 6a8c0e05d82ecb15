"""Values to keep in any case, for limits so low that the forward part has to be cut in pieces.

If a value after such a checkpoint is recomputed, the values before it need not be.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from graphc.compiler.remat.values import Value, Values


def checkpoints(values: Values, count: int) -> frozenset[Value]:
    """Return the values that the forward part still needs at each of `count` moments.

    The moments are those with the fewest such bytes near cuts into pieces of saved bytes that
    become smaller evenly: when a later piece is recomputed, more checkpoints are still in memory.
    """
    size = values.boundary + 2
    live, saved = np.zeros(size, np.int64), np.zeros(size, np.int64)
    forward = [value for value in values.all if value.time <= values.boundary]
    for value in forward:
        live[value.time] += value.nbytes
        live[value.last + 1] -= value.nbytes
        saved[value.time] += value.nbytes * value.saved
    live, share = np.cumsum(live), np.cumsum(saved) / max(saved.sum(), 1)
    ends = [1 - (1 - (j + 0.5) / (count + 1)) ** 2 for j in range(count + 1)]
    places = np.searchsorted(share, ends)
    found: set[Value] = set()
    for low, high in pairwise(places):
        if low < high:
            moment = low + int(np.argmin(live[low:high]))
            found.update(value for value in forward if value.time <= moment < value.last)
    return frozenset(found)
