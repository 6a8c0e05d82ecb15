"""How a net is declared: nets, operators, optimizers and schedules, names of other libraries."""
