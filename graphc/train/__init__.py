"""Training by epochs: `fit`, its callbacks and checkpoints, and the history that it returns."""

from __future__ import annotations

from graphc.train.callbacks import Callback, CsvLog, EarlyStopping, Epoch, TensorBoardLog
from graphc.train.checkpoints import Checkpoints
from graphc.train.fit import fit
from graphc.train.history import Histories, History
from graphc.train.standardize import fit_standardize

__all__ = [
    "Callback",
    "Checkpoints",
    "CsvLog",
    "EarlyStopping",
    "Epoch",
    "Histories",
    "History",
    "TensorBoardLog",
    "fit",
    "fit_standardize",
]
