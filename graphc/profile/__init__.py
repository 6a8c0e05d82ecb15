"""Where the time of a program goes: costs, the machine's limits, and times of instructions."""
