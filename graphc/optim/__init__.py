"""Optimizers, one family a file; `Optimizer` is what they have in common."""

from __future__ import annotations

from graphc.optim.adagrad import Adadelta, Adagrad
from graphc.optim.adam import Adam, AdamW
from graphc.optim.adamax import Adamax
from graphc.optim.group import Group
from graphc.optim.lion import Lion
from graphc.optim.nadam import NAdam
from graphc.optim.optimizer import Optimizer
from graphc.optim.rmsprop import RMSprop
from graphc.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Group",
    "Lion",
    "NAdam",
    "Optimizer",
    "RMSprop",
]
