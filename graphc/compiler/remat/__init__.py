"""The choice of values to recompute, so that a plan fits its memory budget."""
