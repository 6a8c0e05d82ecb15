"""The record of a run, written while it is trained: enough to repeat any of its steps."""
