"""From a graph to programs: options, lowering, schedule, memory, recomputation, freezing."""
