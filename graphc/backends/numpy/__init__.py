"""The numpy backend: each kernel is a flat list of calls of NumPy with out=."""
