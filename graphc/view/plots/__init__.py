"""Pictures of training, drawn by matplotlib: curves, confusion matrix, histograms."""

from __future__ import annotations

from graphc.view.plots.confusion import confusion_counts, confusion_matrix
from graphc.view.plots.histograms import histograms
from graphc.view.plots.learning_curve import learning_curve
from graphc.view.plots.memory_curve import memory_curve

__all__ = ["confusion_counts", "confusion_matrix", "histograms", "learning_curve", "memory_curve"]
