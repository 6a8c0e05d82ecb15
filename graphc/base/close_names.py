"""Names that may be meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable


def close_names(name: str, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return at most `n` of the known names that may be meant by a name, the closest first."""
    from difflib import get_close_matches  # mistakes alone need it

    return get_close_matches(name, list(known), n=n, cutoff=cutoff)
