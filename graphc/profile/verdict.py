"""What keeps an instruction from being faster: its arithmetic, its bytes, or all the rest."""

from __future__ import annotations

from typing import Literal

from graphc.profile.cost import Cost
from graphc.profile.peak import Peak

Verdict = Literal["compute", "memory", "overhead"]
EXPLAINED = 0.25
"""The share of its time that a limit of the machine must ask for to be what it is bound by."""
RULE = (
    "compute: its operations at the machine's peak take at least a quarter of its time, and longer "
    "than its bytes; memory: its bytes at the memory's bandwidth do; overhead: neither does, the "
    "rest is calls, waking threads, waiting for caches, and functions such as exp that count as "
    "one operation"
)
"""The rule in words, for legends."""


def verdict(seconds: float, work: Cost, peak: Peak) -> Verdict:
    """Which limit explains the time of an instruction that does this work."""
    compute, memory = work.flops / peak.flops, work.bytes / peak.bytes
    if max(compute, memory) < EXPLAINED * seconds:
        return "overhead"
    return "compute" if compute >= memory else "memory"
