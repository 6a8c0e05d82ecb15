"""Loops over steps, and sequences whose rows have lengths of their own."""

from __future__ import annotations

from graphc.base.own_passes import own_passes

own_passes()
