"""Models as code that runs without Python: C files and objects."""
