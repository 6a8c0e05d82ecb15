"""A run written down while it is trained: enough to run any of its steps again."""
