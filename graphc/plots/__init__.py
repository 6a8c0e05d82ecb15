"""Pictures of training, drawn by matplotlib: curves, confusion matrix, histograms."""

from __future__ import annotations

from graphc.plots.confusion import confusion_counts, confusion_matrix
from graphc.plots.histograms import histograms
from graphc.plots.learning_curve import learning_curve
from graphc.plots.memory_curve import memory_curve

__all__ = ["confusion_counts", "confusion_matrix", "histograms", "learning_curve", "memory_curve"]
