"""Activations beyond relu, tanh and sigmoid, one family a file."""
