"""Model files: their container, the graph and the model in them, save and load."""
