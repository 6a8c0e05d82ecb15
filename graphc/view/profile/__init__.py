"""The time of a program: costs, the machine's limits, and times of instructions."""
