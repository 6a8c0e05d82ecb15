"""Tools that live beside the tests: generators of nets, campaigns, comparisons of speed."""
