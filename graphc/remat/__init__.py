"""Which values to compute again, so that a plan fits its budget."""
