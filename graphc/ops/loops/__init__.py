"""Loops over the steps of sequences, and recurrent layers, which are such loops."""
