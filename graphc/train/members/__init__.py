"""The training of populations: the rows, the steps and the checkpoints of their members."""
