"""The language of graphs: types, contracts of ops, nodes, builders, derivatives, plans, text."""
