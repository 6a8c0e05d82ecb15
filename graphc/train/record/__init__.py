"""The record of a run, written while it is trained: enough to run any of its steps again."""
