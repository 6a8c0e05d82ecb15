"""Model files: the container, a graph in it, a model in it, save and load."""
