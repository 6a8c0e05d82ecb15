"""Training by epochs: `fit`, and the history that it gives back."""

from __future__ import annotations

from graphc.train.fit import fit
from graphc.train.history import History
from graphc.train.standards import fit_standardize

__all__ = ["History", "fit", "fit_standardize"]
