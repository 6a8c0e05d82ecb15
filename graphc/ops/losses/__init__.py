"""Losses; `base` has their base classes."""
