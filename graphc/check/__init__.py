"""Whether rules, gradients, passes and plans are right: checks, validation, proofs."""
