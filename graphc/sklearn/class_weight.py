"""Weights of classes, as scikit-learn defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight


def class_factors(
    given: Mapping[Any, float] | str,
    classes: NDArray[Any],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the factor of each class (K,), for rows of these codes and weights (N,).

    A mapping gives factors by label, 1 for those that it omits.  "balanced" gives every class the
    same total weight: the factor is N / (K * count) if all rows weigh 1.  Raise ValueError for
    anything else, and for a mapping with other labels or with weights below 0.
    """
    if isinstance(given, str) and given == "balanced":
        sums = np.bincount(codes, weight, len(classes))
        return np.asarray(sums.sum() / (len(classes) * sums))
    if not isinstance(given, Mapping):
        raise ValueError(
            f"class_weight is {given!r}, it must be None, 'balanced', or a mapping from class to "
            "weight"
        )
    strange = [label for label in given if label not in classes.tolist()]
    if strange:
        raise ValueError(
            f"class_weight names {strange[0]!r}, which is not among the classes {classes.tolist()}"
        )
    factors = np.asarray(compute_class_weight(given, classes=classes, y=classes), np.float64)
    if not (np.isfinite(factors).all() and (factors >= 0).all()):
        raise ValueError(f"class_weight is {given!r}, weights are numbers of 0 or more")
    return factors
