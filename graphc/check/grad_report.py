"""The findings of grad_check, and their text."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.base.loc import Loc
from graphc.check.differences import Entry
from graphc.check.op_gradient import WrongEntry
from graphc.ir.graph import Node


@dataclass(frozen=True)
class Checked:
    """The findings about one parameter or input."""

    name: str
    kind: str
    loc: Loc | None
    size: int
    entries: tuple[Entry, ...]

    @property
    def worst(self) -> Entry:
        """The entry with the largest error."""
        return max(self.entries, key=lambda entry: entry.error)

    @property
    def sampled(self) -> bool:
        """Return whether some entries were left out."""
        return len(self.entries) < self.size


@dataclass(frozen=True)
class Suspect:
    """An op whose gradient rule differences do not confirm."""

    node: Node
    wrong: WrongEntry

    def __str__(self) -> str:
        loc = self.node.locs[0] if self.node.locs else None
        return (
            f"the gradient rule of {self.node.op.name} {self.node.name!r} is wrong: "
            f"{self.wrong}{_declared(loc)}"
        )


@dataclass(frozen=True)
class GradReport:
    """The result of `grad_check`; `str(report)` is for reading."""

    net: str
    checked: tuple[Checked, ...]
    unreached: tuple[str, ...]
    h: float
    tolerance: float
    suspect: Suspect | None = None
    """If gradients disagree, the first op whose own rule is wrong for its operands' values."""

    @property
    def ok(self) -> bool:
        """Return whether every entry agrees within the tolerance."""
        return all(item.worst.error <= self.tolerance for item in self.checked)

    @property
    def worst(self) -> Checked:
        """The parameter or input with the largest error."""
        return max(self.checked, key=lambda item: item.worst.error)

    def __str__(self) -> str:
        lines = [self._headline()]
        width = max(len(item.name) for item in self.checked)
        for item in self.checked:
            mark = " " if item.worst.error <= self.tolerance else "x"
            count = f"{len(item.entries)} of {item.size} entries" if item.sampled else "all entries"
            error = f"error {item.worst.error:.1e}" if item.worst.error else "within rounding"
            lines.append(f"{mark} {item.name:<{width}}  {error:<15}  {count}")
        if self.unreached:
            lines.append(f"  no loss depends on {', '.join(self.unreached)}")
        return "\n".join(lines)

    def _headline(self) -> str:
        how = f"central differences in float64, h = {self.h:g}"
        if self.ok:
            return f"grad_check {self.net!r}: ok, {len(self.checked)} gradients agree with {how}"
        bad = sum(item.worst.error > self.tolerance for item in self.checked)
        item, entry = self.worst, self.worst.worst
        text = (
            f"grad_check {self.net!r}: {bad} of {len(self.checked)} gradients disagree with {how}\n"
            f"worst: {item.kind} {item.name!r} at {list(entry.index)}: {entry.ours:.10g} by the "
            f"rules, {entry.numeric:.10g} by differences (error {entry.error:.1e}, "
            f"at most {self.tolerance:.0e}){_declared(item.loc)}"
        )
        return text if self.suspect is None else f"{text}\n{self.suspect}"


def _declared(loc: Loc | None) -> str:
    if loc is None:
        return ""
    return f"\n  declared at {loc}{': ' if loc.text else ''}{loc.text}"
