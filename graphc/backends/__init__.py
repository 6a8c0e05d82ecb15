"""What turns the instructions of a plan into calls: one package a backend."""
