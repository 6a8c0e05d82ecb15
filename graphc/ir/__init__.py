"""The intermediate representation: types, contracts of ops, nodes, builders, forms, text."""
