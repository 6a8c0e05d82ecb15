"""Ranks: processes that train one model together, each on its part of every batch."""
