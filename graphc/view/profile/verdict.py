"""The limit that an instruction is bound by: its arithmetic, its bytes, or overhead."""

from __future__ import annotations

from typing import Literal

from graphc.view.profile.cost import Cost
from graphc.view.profile.peak import Peak

Verdict = Literal["compute", "memory", "overhead"]
EXPLAINED = 0.25
"""The share of an instruction's time that a limit must account for, to be the one it is bound by.
"""
RULE = (
    "compute: its operations at the machine's peak take at least a quarter of its time, and longer "
    "than its bytes; memory: its bytes at the memory's bandwidth do; overhead: neither does, the "
    "rest is calls, waking threads, waiting for caches, and functions such as exp that count as "
    "one operation"
)
"""The rule in words, for legends."""


def verdict(seconds: float, work: Cost, peak: Peak) -> Verdict:
    """Return the limit that explains the time of an instruction that does this work."""
    compute, memory = work.flops / peak.flops, work.bytes / peak.bytes
    if max(compute, memory) < EXPLAINED * seconds:
        return "overhead"
    return "compute" if compute >= memory else "memory"
