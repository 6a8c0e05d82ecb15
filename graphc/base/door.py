"""Late imports: the table of functions that implement methods of classes in lower packages.

A package of graphc imports only packages below its own.  A method such as `plan.render` needs one
above: it gets the function here by name, and its package is imported at the first call.
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
    "floor_div": "arithmetic.floor_div",
    "greater": "select.greater",
    "greater_equal": "select.greater_equal",
    "less": "select.less",
    "less_equal": "select.less_equal",
    "matmul": "linalg.matmul",
    "mod": "arithmetic.mod",
    "mul": "elementwise.mul",
    "neg": "elementwise.neg",
    "not": "logic.logical_not",
    "not_equal": "select.not_equal",
    "or": "logic.logical_or",
    "power": "arithmetic.power",
    "slice": "slicing.slice_",
    "sub": "elementwise.sub",
    "xor": "logic.logical_xor",
}
"""The functions of graphc.ops that implement Python's operators on values."""

HIGHER = {
    **{f"Value.{name}": f"graphc.ops.{path}" for name, path in OPERATORS.items()},
    "names": "graphc.__all__",
    "ops": "graphc.ops.FUNCTIONS",
    "unbroadcast": "graphc.ops.sums.unbroadcast",
    "Net.render": "graphc.view.render.render_net",
    "Net.summary": "graphc.view.reports.summary",
    "Plan.render": "graphc.view.render.render_plan",
    "Plan.report": "graphc.view.reports.plan_report",
    "certificate_text": "graphc.check.certificate.text.certificate_text",
    "certify_model": "graphc.check.certificate.export.certify_model",
    "certify_program": "graphc.check.certificate.export.certify_program",
    "verify_plan": "graphc.check.plan_proof.verify_plan",
    "verify_program": "graphc.check.verify.verify_program",
    "Curve.plot": "graphc.view.plots.memory_curve",
    "MemoryReport.pictures": "graphc.view.render.memory_view.arena_steps",
    "MemoryReport.render": "graphc.view.render.memory_view.render_arena",
    "Executor.profile": "graphc.view.profile.profile",
    "Executor.evaluate": "graphc.train.user_data.part_file_batches",
    "History.plot": "graphc.view.plots.learning_curve",
    "compile.validate": "graphc.check.validation.validate.Watch",
    "compile.run": "graphc.check.validation.plans.validate_plan",
    "compile.limit": "graphc.check.validation.bisect.from_environment",
    "notebook": "graphc.view.render.notebook_bundle",
    "pickled": "graphc.files.serialize.pickled",
}
"""The path of the object behind each name."""


def higher(name: str) -> Any:
    """Import and return the object with this name in the table."""
    module, _, member = HIGHER[name].rpartition(".")
    return getattr(import_module(module), member)


class Proof(Protocol):
    """The verification of a program or of a plan; its text says what was counted or is wrong."""

    ok: bool
    counterexample: object | None


class Timed(Protocol):
    """An instruction of a profile: see `graphc.view.profile.Timed`."""

    seconds: float
    cost: Any
    roof: float
    verdict: str
    line: str
    kernel: str
    nodes: tuple[str, ...]


class Profile(Protocol):
    """The times of a program's instructions: see `graphc.view.profile.Profile`."""

    name: str
    n: int
    rounds: int
    seconds: tuple[float, ...]
    total: float
    timed: Sequence[Timed]
    by_node: Mapping[str, Timed]
    peak: Any

    def render(self, path: str | Path) -> Path:
        """Draw the times: .svg has bars of the instructions, .html the plan's page with them."""

    def chrome_trace(self, path: str | Path) -> Path:
        """Write a trace for Perfetto or chrome://tracing: one event for each instruction."""
