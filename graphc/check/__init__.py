"""Checks of ops, layers, gradients, passes and plans."""
