"""Notices a number that is not finite, runs the steps again, and traces the node that made it."""
