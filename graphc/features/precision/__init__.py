"""Products of factors that are rounded to bfloat16."""

from __future__ import annotations

from graphc.base.own_passes import own_passes

own_passes()
