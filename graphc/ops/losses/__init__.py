"""Losses; `row_loss` is what they have in common."""
