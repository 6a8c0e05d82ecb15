"""The compiler of plans: passes, schedule, kernels, memory.  It needs graphc's own `passes`."""

from __future__ import annotations

from graphc.base.own_passes import own_passes

own_passes()
