"""The verifier of plans: what it proves, and what it refuses."""
