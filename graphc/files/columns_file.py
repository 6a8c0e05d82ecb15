"""The names of a table's columns, kept in a model file beside the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from graphc.files.container import single

KEY = "columns"
"""The key of the names in a file's metadata; a file without them can be read, too."""

MOST, LONGEST = 100_000, 1_000
"""The largest number of names of each kind, and their largest length."""


@dataclass(frozen=True)
class Columns:
    """The features in the order that the net takes, the label, and the words for the classes.

    `label` is "" if the net takes none; `classes` has the word of each class by its number, and is
    empty if labels are numbers.  Raise ValueError for duplicate names, and for names that are too
    long or too many.
    """

    features: tuple[str, ...]
    label: str = ""
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for names in (self.features, self.classes, (self.label,)):
            if len(names) > MOST:
                raise ValueError(f"there are {len(names):,} names, at most {MOST:,} can be kept")
            long = next((name for name in names if len(name) > LONGEST), None)
            if long is not None:
                raise ValueError(f"{long[:40]!r}... has {len(long):,} characters")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"{twice!r} appears twice")

    def metadata(self) -> dict[str, str]:
        """Return the entry for a model file's metadata."""
        return {KEY: json.dumps(asdict(self))}


def columns_of(text: str) -> Columns:
    """Return the names in a model file; raise ValueError or RecursionError for other text."""
    said = json.loads(text, object_pairs_hook=single)
    if not isinstance(said, dict) or said.keys() != {"features", "label", "classes"}:
        raise ValueError("they are not written as graphc writes them")
    lists = said["features"], said["classes"], [said["label"]]
    if not all(isinstance(names, list) for names in lists):
        raise ValueError("they are not lists")
    if not all(isinstance(name, str) for names in lists for name in names):
        raise ValueError("they are not text")
    return Columns(tuple(said["features"]), said["label"], tuple(said["classes"]))
