"""The backends, one package each: they turn the instructions of a plan into calls."""
