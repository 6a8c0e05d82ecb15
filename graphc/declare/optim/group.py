"""Groups: parameters for which an optimizer has other settings, or which it does not train."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.declare.optim.checks import Checked


@dataclass(frozen=True, repr=False)
class Group(Checked):
    """Settings for the parameters that name patterns match, in place of the optimizer's own.

    `lr` is their learning rate, `ex.hyper["lr." + patterns]`, which the schedule's factor
    multiplies as well.  `weight_decay` applies to each parameter of the group, those of rank 1 too.
    With `frozen` they are not trained: there are no slots for them, and no gradient is computed.

    Raises GraphError, at the user's line, for a field that makes no sense, or a group that changes
    nothing.
    """

    names: tuple[str, ...] | str
    lr: float | None = field(default=None, kw_only=True)
    weight_decay: float | None = field(default=None, kw_only=True)
    frozen: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._patterns("names", 'gc.Group("head.*", lr=1.0)')
        if not self.names:
            raise self._error("names", "there must be at least one", 'gc.Group("head.*", lr=1.0)')
        if self.lr is not None:
            hint = "frozen=True is for what is not to be trained"
            self._number("lr", hint=hint, usual="0.1")
        if self.weight_decay is not None:
            self._number("weight_decay", hint="0 means no decay", usual="0.01")
        given = self.lr is not None or self.weight_decay is not None
        if given == bool(self.frozen):
            said = "is frozen, but has numbers to train by" if given else "changes nothing"
            raise GraphError(
                f"Group: {self} {said}",
                loc=caller_loc(),
                hint='gc.Group("head.*", lr=1.0) or gc.Group("body.*", frozen=True)',
            )

    def holds(self, name: str) -> bool:
        """Return whether a parameter is in the group."""
        return any(fnmatchcase(name, pattern) for pattern in self.names)

    @property
    def title(self) -> str:
        """The patterns, joined by commas, as in the name of the hyper-parameter."""
        return ",".join(self.names)

    def __str__(self) -> str:
        return repr(self.title)
