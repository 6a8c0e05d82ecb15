"""Losses; `row_loss` has their common base."""
