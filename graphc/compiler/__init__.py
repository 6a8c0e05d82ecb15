"""The compiler of plans: passes, schedule, kernels, memory.  It needs graphc's own `passes`."""

from __future__ import annotations

from graphc.base.import_paths import own_passes

own_passes()
