"""Checks that users run on their own code: gradients, layers, ops."""
