"""Where a number that is not finite comes from: noticed, run again, traced to a node."""
