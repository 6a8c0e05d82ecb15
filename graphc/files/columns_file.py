"""The names of a table's columns, kept in a model file beside the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from graphc.errors import ModelFileError
from graphc.files.container import read_whole, single, unpack
from graphc.files.model_file import HINT
from graphc.files.paths import reason, shown
from graphc.loc import caller_loc

KEY = "columns"
"""Where the names are in a file's metadata; a file without them is read as ever."""

MOST, LONGEST = 100_000, 1_000
"""How many names of a kind there may be, and how long they may be."""


@dataclass(frozen=True)
class Columns:
    """The features in the order that the net takes, the label, and the words that labels are.

    `label` is "" where the net takes none; `classes` has the word of each class by its number, and
    is empty where labels are numbers.  ValueError for names that stand twice, or that are too long
    or too many.
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
                raise ValueError(f"{twice!r} stands twice")

    def metadata(self) -> dict[str, str]:
        """What a model file holds of them."""
        return {KEY: json.dumps(asdict(self))}


def read_columns(path: str | Path) -> Columns | None:
    """The names that a model file holds; None where it has none.  Raises ModelFileError."""
    try:
        text = unpack(read_whole(path))[0].get(KEY)
        return None if text is None else _columns(text)
    except OSError as error:
        raise ModelFileError(
            f"cannot read {shown(path)}: {reason(error)}", loc=caller_loc()
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} has no names of columns that can be read: {error}",
            loc=caller_loc(),
            hint=HINT,
        ) from None


def _columns(text: str) -> Columns:
    said = json.loads(text, object_pairs_hook=single)
    if not isinstance(said, dict) or said.keys() != {"features", "label", "classes"}:
        raise ValueError("they are written in another way than graphc's")
    lists = said["features"], said["classes"], [said["label"]]
    if not all(isinstance(names, list) for names in lists):
        raise ValueError("they are no lists")
    if not all(isinstance(name, str) for names in lists for name in names):
        raise ValueError("they are no text")
    return Columns(tuple(said["features"]), said["label"], tuple(said["classes"]))
