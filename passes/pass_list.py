"""An order of passes, some of which are made only when their options are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.base.errors import GraphError
from passes.pipeline import Pass, name_of


@dataclass(frozen=True)
class PassList:
    """Passes in order; a string is a slot for the pass of that name, made with its options."""

    entries: tuple[Pass | str, ...]
    required: frozenset[str] = frozenset()
    """The names of passes that a plan needs."""

    def __iter__(self) -> Iterator[Pass | str]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order; a pass that runs twice is listed twice."""
        return tuple(map(_entry_name, self.entries))

    def without(self, *names: str) -> PassList:
        """Return the list without passes of these names; raise GraphError for a required one."""
        for name in names:
            self._check_known(name)
            if name in self.required:
                optional = dict.fromkeys(n for n in self.names if n not in self.required)
                raise GraphError(
                    f"pass {name!r} is required",
                    hint=f"these can be left out: {', '.join(optional)}",
                )
        kept = tuple(entry for entry in self.entries if _entry_name(entry) not in names)
        return PassList(kept, self.required)

    def after(self, name: str, step: Pass) -> PassList:
        """Return the list with a user's pass right after the first of that name."""
        return self._insert(self._position(name) + 1, step)

    def before(self, name: str, step: Pass) -> PassList:
        """Return the list with a user's pass right before the first of that name."""
        return self._insert(self._position(name), step)

    def fill(self, slots: Mapping[str, Pass | None]) -> tuple[Pass, ...]:
        """Return the passes, with each slot filled; a slot not given, or None, is left out."""
        filled = (slots.get(entry) if isinstance(entry, str) else entry for entry in self.entries)
        return tuple(step for step in filled if step is not None)

    def _insert(self, position: int, step: Pass) -> PassList:
        if not callable(step):
            raise GraphError(
                f"{step!r} is not a pass",
                hint="a pass is a function that takes and returns a Graph",
            )
        entries = (*self.entries[:position], step, *self.entries[position:])
        return PassList(entries, self.required)

    def _position(self, name: str) -> int:
        self._check_known(name)
        return self.names.index(name)

    def _check_known(self, name: str) -> None:
        if name not in self.names:
            known = ", ".join(dict.fromkeys(self.names))
            raise GraphError(f"there is no pass {name!r}", hint=f"the passes are {known}")


def _entry_name(entry: Pass | str) -> str:
    return entry if isinstance(entry, str) else name_of(entry)
