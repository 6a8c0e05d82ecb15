"""Checks that users run on what they wrote: gradients, layers, ops."""
