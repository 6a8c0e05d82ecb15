"""The plan: all that an executor needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.door import Proof, higher
from graphc.compiler.memory_report import MemoryReport
from graphc.compiler.sizes import state_nodes
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph, Node
from graphc.kernels.program import Program
from graphc.ops.source import Input, Parameter
from passes.pipeline import PassRecord

if TYPE_CHECKING:
    from graphc.compiler.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """All that an executor needs; immutable, and shared by threads.

    `declared` is the graph of the user's layers, restricted to the chosen losses and outputs.
    `programs`: `infer`; with losses `grad`; with an optimizer `step` and `apply`, or with
    accumulation `accumulate` and `apply`.  `graphs` has the graph after every pass.
    """

    declared: Graph
    batch: int
    optimizer: Optimizer | None
    programs: Mapping[str, Program]
    graphs: Mapping[str, tuple[PassRecord, ...]]
    wrt: tuple[str, ...]
    recipe: Recipe

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The declared inputs in order."""
        return tuple(node.name for node in self.declared if isinstance(node.op, Input))

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """The declared parameters in order."""
        return tuple(node.name for node in self.declared if isinstance(node.op, Parameter))

    @property
    def backend(self) -> str:
        """The backend that runs the programs: "native" or "numpy"."""
        return self.recipe.backend

    @property
    def rows(self) -> int:
        """The most rows of a step: `batch`, or those of all shards together."""
        return self.recipe.rows or self.batch

    @property
    def shards(self) -> int | None:
        """The number of shards that a step cuts its batch into; None if it does not."""
        return None if self.recipe.sharding is None else self.recipe.sharding.shards

    @property
    def ranks(self) -> int:
        """The number of processes that share the shards."""
        return 1 if self.recipe.sharding is None else self.recipe.sharding.ranks

    @property
    def lanes(self) -> int:
        """The number of shards of each rank."""
        return 1 if self.recipe.sharding is None else self.recipe.sharding.lanes

    @property
    def losses(self) -> tuple[str, ...]:
        """The outputs that training minimises."""
        return self.declared.losses

    @property
    def accumulate(self) -> int:
        """The number of steps whose gradients make one update."""
        return self.optimizer.accumulate if self.optimizer is not None else 1

    @property
    def step_counter(self) -> str:
        """The state that counts accumulated steps."""
        return "accumulated" if self.optimizer is None else self.optimizer.state("accumulated")

    @cached_property
    def state_nodes(self) -> Mapping[str, Node]:
        """The parameters and states that the plan needs."""
        graphs = [self.declared, *(program.graph for program in self.programs.values())]
        return state_nodes(graphs)

    @cached_property
    def memory(self) -> MemoryReport:
        """The exact memory that the plan needs, before anything runs."""
        return MemoryReport(self)

    def cotangent_program(self, outputs: tuple[str, ...]) -> Program:
        """Compile the program that differentiates outputs by cotangents that are fed."""
        return self.recipe.cotangent_program(outputs)

    def render(self, path: str | Path, *, fold: bool = True) -> Path:
        """Draw forward and backward side by side, in the suffix's format: svg, png, pdf, dot, html.

        With `fold` a block of layers that is repeated is drawn once.  A page has both pictures.
        """
        drawn: Path = higher("Plan.render")(self, path, fold=fold)
        return drawn

    def verify(self) -> Proof:
        """Prove, from the plan's own description, that every program is sound on its memory.

        The report's `ok` is whether it is, its `counterexample` why not, its text says both.  It
        covers the programs of the plan; those of `cotangent_program` verify themselves.
        """
        proof: Proof = higher("verify")(higher("certify")(self))
        return proof

    def report(self) -> str:
        """Return what was compiled: programs, what is not native and why, what is not trained."""
        text: str = higher("Plan.report")(self)
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        pickled: tuple[Any, ...] = higher("pickled")(self)
        return pickled

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self  # immutable, and shared wherever it is used

    def __str__(self) -> str:
        return "\n".join(str(program) for program in self.programs.values())

    def __repr__(self) -> str:
        return f"<Plan of {self.declared.name!r}, batch {self.batch}: {', '.join(self.programs)}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the picture for a notebook, or the text alone if nothing here can draw it."""
        bundle: dict[str, str] = higher("notebook")(self, str(self))
        return bundle


def program_name(plan: Plan) -> str:
    """Return the name of the program of a step or, without an optimizer, of inference."""
    return next(name for name in ("step", "accumulate", "infer") if name in plan.programs)
