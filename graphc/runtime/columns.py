"""The names of a table's columns and classes, which a state and its model files keep."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

COLUMNS_KEY = "columns"
"""The metadata key of the columns in a model file, which need not have it."""
MOST_NAMES, LONGEST_NAME = 100_000, 1_000
"""The largest number of names of each kind, and their largest length."""

PREPARED = ("words", "gaps")
"""The entries that only nets have which prepare their features."""


@dataclass(frozen=True)
class Columns:
    """The features in the order that the net takes, the label, and the words for the classes.

    `label` is "" if the net takes none; `classes` has the word of each class by its number, and is
    empty if labels are numbers.  `words` has those of each feature in the same way, and is empty if
    all features are numbers.  Features may be missing, as NaN, if the net takes `gaps`.  Raise
    ValueError for duplicate names, and for names that are too long or too many.
    """

    features: tuple[str, ...]
    label: str = ""
    classes: tuple[str, ...] = ()
    words: tuple[tuple[str, ...], ...] = ()
    gaps: bool = False

    def __post_init__(self) -> None:
        if self.words and self.features and len(self.words) != len(self.features):
            raise ValueError(f"{len(self.words)} features have words, there are more or fewer")
        for names in (self.features, self.classes, (self.label,), *self.words):
            if len(names) > MOST_NAMES:
                raise ValueError(
                    f"there are {len(names):,} names, at most {MOST_NAMES:,} can be kept"
                )
            long = next((name for name in names if len(name) > LONGEST_NAME), None)
            if long is not None:
                raise ValueError(f"{long[:40]!r}... has {len(long):,} characters")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{twice!r} appears twice")

    def metadata(self) -> dict[str, str]:
        """Return the entry for a model file's metadata, without what was not prepared."""
        found = asdict(self)
        kept = {name: found[name] for name in found if found[name] or name not in PREPARED}
        return {COLUMNS_KEY: json.dumps(kept)}
