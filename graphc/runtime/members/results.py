"""The results of the members of a population: stacked, and combined."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.op import Array

Combine = Literal["mean", "vote"]


def stacked(found: Collection[Mapping[str, Any]]) -> dict[str, Array]:
    """Return the arrays of all members, or their numbers, by name."""
    names = next(iter(found), {})
    return {name: np.stack([np.asarray(one[name]) for one in found]) for name in names}


def combined(array: Array, combine: Combine | None, name: str) -> Array:
    """Return the outputs of members as one; see `Population.predict`."""
    if combine is None:
        return array
    if combine == "mean":
        return np.asarray(array.mean(axis=0))
    if array.ndim != 3:
        raise GraphError(
            f"predict: {name} has shape {array.shape[1:]}, not scores of classes",
            hint='combine="vote" takes an output (rows, classes)',
        )
    votes = np.zeros(array.shape[1:], np.int64)
    for classes in array.argmax(axis=-1):
        votes[np.arange(len(votes)), classes] += 1
    return np.asarray(votes.argmax(axis=-1))
