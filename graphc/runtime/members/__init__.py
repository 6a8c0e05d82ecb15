"""Populations: many members of one plan, each with a state of its own, run by one call."""
