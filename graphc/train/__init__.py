"""Training by epochs: `fit`, its callbacks and checkpoints, and the history that it returns."""

from __future__ import annotations

from graphc.train.callbacks import Callback, Epoch
from graphc.train.checkpoints import Checkpoints
from graphc.train.csv_log import CsvLog
from graphc.train.early_stopping import EarlyStopping
from graphc.train.fit import fit
from graphc.train.history import History
from graphc.train.standards import fit_standardize
from graphc.train.tensorboard_log import TensorBoardLog

__all__ = [
    "Callback",
    "Checkpoints",
    "CsvLog",
    "EarlyStopping",
    "Epoch",
    "History",
    "TensorBoardLog",
    "fit",
    "fit_standardize",
]
