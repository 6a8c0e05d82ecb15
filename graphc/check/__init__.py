"""The tests of rules, gradients, passes and plans: checks, validation, proofs."""
