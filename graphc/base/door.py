"""Late imports: methods of classes in lower rooms that higher rooms implement.

A room imports only rooms below its own.  A method such as `plan.render` needs one above: it asks
for the function here, by a name of this table, and the room is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

OPERATORS = {
    "abs": "functions.abs_",
    "add": "elementwise.add",
    "and": "logic.logical_and",
    "div": "elementwise.div",
    "equal": "select.equal",
    "floor_div": "rounding.floor_div",
    "greater": "select.greater",
    "greater_equal": "select.greater_equal",
    "less": "select.less",
    "less_equal": "select.less_equal",
    "matmul": "linalg.matmul",
    "mod": "rounding.mod",
    "mul": "elementwise.mul",
    "neg": "elementwise.neg",
    "not": "logic.logical_not",
    "not_equal": "select.not_equal",
    "or": "logic.logical_or",
    "power": "pow.power",
    "slice": "slicing.slice_",
    "sub": "elementwise.sub",
    "xor": "logic.logical_xor",
}
"""The functions of graphc.ops that implement Python's operators on values."""

HIGHER = {
    **{f"Value.{name}": f"graphc.ops.{path}" for name, path in OPERATORS.items()},
    "names": "graphc.__all__",
    "Net.summary": "graphc.view.reports.summary",
    "Plan.render": "graphc.view.render.render_plan",
    "Plan.report": "graphc.view.reports.plan_report",
    "certify": "graphc.check.certificate.export.certify",
    "certify_program": "graphc.check.certificate.export.certify_program",
    "verify": "graphc.check.verify.verify",
    "verify_program": "graphc.check.verify.verify_program",
    "Curve.plot": "graphc.view.plots.memory_curve",
    "MemoryReport.pictures": "graphc.view.render.memory_view.arena_steps",
    "MemoryReport.render": "graphc.view.render.memory_view.render_arena",
    "Executor.profile": "graphc.view.profile.profile",
    "Executor.evaluate": "graphc.train.user_data.part_file_batches",
    "History.plot": "graphc.view.plots.learning_curve",
    "compile.validate": "graphc.check.validation.validate.Watch",
    "compile.limit": "graphc.check.validation.bisect.from_environment",
    "notebook": "graphc.view.render.notebook_bundle",
    "pickled": "graphc.files.serialize.pickled",
}
"""For each name that lower rooms ask for, the object that implements it."""


def higher(name: str) -> Any:
    """Import and return the object of a higher room that a name of the table means."""
    module, _, member = HIGHER[name].rpartition(".")
    return getattr(import_module(module), member)


class Proof(Protocol):
    """The verification of a program or of a plan; its text says what was counted or is wrong."""

    @property
    def ok(self) -> bool:
        """True if everything holds."""

    @property
    def counterexample(self) -> object | None:
        """The first counterexample, or None."""


class Timed(Protocol):
    """An instruction of a profile, with the cost and the limit that it is bound by."""

    @property
    def seconds(self) -> float:
        """The median of its times."""

    @property
    def cost(self) -> Any:
        """The work of the instruction: `flops` and `bytes`."""

    @property
    def roof(self) -> float:
        """The share of its time that the machine's nearer limit needs at least."""

    @property
    def verdict(self) -> str:
        """The limit that it is bound by: compute, memory or overhead."""

    @property
    def line(self) -> str:
        """The user's line."""

    @property
    def kernel(self) -> str:
        """The kernel's name, with the number of nodes that it computes at once."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that it computes."""


class Profile(Protocol):
    """The times of a program's instructions; its text is their table."""

    @property
    def name(self) -> str:
        """The name of the program."""

    @property
    def n(self) -> int:
        """The number of rows."""

    @property
    def rounds(self) -> int:
        """The number of times that each instruction was called."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """The median seconds of each instruction."""

    @property
    def total(self) -> float:
        """The sum of the seconds of all instructions."""

    @property
    def timed(self) -> Sequence[Timed]:
        """Every instruction but barriers, in order."""

    @property
    def by_node(self) -> Mapping[str, Timed]:
        """For each node, the instruction that computes it, alone or with others."""

    @property
    def peak(self) -> Any:
        """The limits of this machine: `threads`, `flops` and `bytes` a second."""

    def render(self, path: str | Path) -> Path:
        """Draw the times: .svg has bars of the instructions, .html the plan's page with them."""

    def chrome_trace(self, path: str | Path) -> Path:
        """Write a trace for Perfetto or chrome://tracing: one event for each instruction."""
