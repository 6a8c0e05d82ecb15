"""Model files: their format, save and load, weights of PyTorch."""
