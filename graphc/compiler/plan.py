"""The plan: the compiled programs of a net, and all else that an executor needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphc.base.docstrings import with_shared
from graphc.base.door import higher, optional
from graphc.compiler.sizes import MemorySizes, state_nodes
from graphc.declare.net import Net
from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.rule import UpdateRule
from graphc.ir.graph import Graph, Node
from graphc.kernels.program import PREPARE, Program
from graphc.ops.source import Input, Parameter
from passes.pipeline import PassRecord

if TYPE_CHECKING:
    from graphc.base.protocols import Proof
    from graphc.compiler.memory_report import MemoryReport
    from graphc.compiler.options import CompileOptions
    from passes.set_precision import Precision


@dataclass(frozen=True)
class Plan:
    """The compiled programs of a net, and all else that an executor needs; immutable.

    Parameters
    ----------
    declared
        The graph of the user's layers, restricted to the chosen losses and outputs.
    batch
        The largest number of rows of a run, of one shard if a step cuts its batch into shards.
    rules
        The updates of a step in order; none if the plan does not train.
    programs
        The program `infer`; with losses `grad`; with an optimizer `step` and `apply`, or with
        accumulation `accumulate` and `apply`.
    graphs
        For each program the graph after every pass.
    wrt
        The names that gradients are computed of.
    options
        The compile options.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> y = net.output("y", gc.relu(net.input("x", (gc.N, 3))))
    >>> plan = gc.compile(net, batch=8, backend="numpy")
    >>> plan
    <Plan of 'net', batch 8: infer>
    """

    declared: Graph
    batch: int
    rules: tuple[UpdateRule, ...]
    programs: Mapping[str, Program]
    graphs: Mapping[str, tuple[PassRecord, ...]]
    wrt: tuple[str, ...]
    options: CompileOptions

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The declared inputs in order."""
        return tuple(node.name for node in self.declared if isinstance(node.op, Input))

    @cached_property
    def data_names(self) -> tuple[str, ...]:
        """The declared inputs in order, without lengths, which are fed by what they are of."""
        named = ((name, self.declared[name].op.role.kind) for name in self.input_names)
        return tuple(name for name, kind in named if kind != "lengths")

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """The declared parameters in order."""
        return tuple(node.name for node in self.declared if isinstance(node.op, Parameter))

    @property
    def backend(self) -> str:
        """The backend that runs the programs: "native" or "numpy"."""
        return self.options.backend

    @property
    def precision(self) -> dict[str, Precision]:
        """The precision of layers, by patterns: another plan compiled with it has the same bits."""
        return dict(self.options.precision)

    @property
    def rows(self) -> int:
        """The most rows of a step: `batch`, or those of all shards together."""
        return self.options.step_rows

    @property
    def shards(self) -> int | None:
        """The number of shards that a step cuts its batch into; None if it does not."""
        return None if self.options.sharding is None else self.options.sharding.shards

    @property
    def ranks(self) -> int:
        """The number of processes that share the shards."""
        return 1 if self.options.sharding is None else self.options.sharding.ranks

    @property
    def lanes(self) -> int:
        """The number of shards of each rank."""
        return 1 if self.options.sharding is None else self.options.sharding.lanes

    @property
    def losses(self) -> tuple[str, ...]:
        """The outputs that training minimises."""
        return self.declared.losses

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; None if the plan does not train, or has several update rules."""
        return self.rules[0].optimizer if len(self.rules) == 1 else None

    @property
    def accumulate(self) -> int:
        """The number of steps whose gradients make one update."""
        return self.rules[0].optimizer.accumulate if self.rules else 1

    @property
    def step_counter(self) -> str:
        """The state that counts accumulated steps."""
        return self.rules[0].optimizer.state("accumulated") if self.rules else "accumulated"

    @cached_property
    def state_nodes(self) -> Mapping[str, Node]:
        """The parameters and states that the plan needs."""
        graphs = [self.declared, *(program.graph for program in self.programs.values())]
        return state_nodes(graphs)

    @cached_property
    def without_kept(self) -> Plan:
        """The same plan with less memory: inference keeps nothing of the state it ran on.

        States that take turns in one memory have such a plan.
        """
        program = self.programs["infer"]
        if not program.kept:
            return self
        options = replace(self.options, keeps=False)
        kept = {name: made for name, made in self.programs.items() if name != PREPARE}
        programs = {**kept, "infer": options.program("infer", program.graph)}
        return replace(self, programs=programs, options=options)

    @cached_property
    def memory(self) -> MemoryReport:
        """The exact memory that the plan needs, before anything runs."""
        report = optional("memory report") or cast("type[MemoryReport]", MemorySizes)
        made: MemoryReport = report(self)
        return made

    def cotangent_program(self, outputs: tuple[str, ...]) -> Program:
        """Compile the program that differentiates outputs by cotangents that are fed.

        Parameters
        ----------
        outputs
            The names of the outputs.

        Returns
        -------
        Program
            The program; its feeds include a cotangent for each output.
        """
        return self.options.cotangent_program(outputs)

    @with_shared(Net.render.__doc__)
    def render(self, path: str | Path, *, fold: bool = True) -> Path:
        """Draw forward and backward side by side.

        Examples
        --------
        >>> net = gc.Net("net")
        >>> y = net.output("y", gc.relu(net.input("x", (gc.N, 3))))
        >>> gc.compile(net, batch=8).render("net.svg")  # doctest: +SKIP
        """
        drawn: Path = higher("Plan.render")(self, path, fold=fold)
        return drawn

    def verify(self) -> Proof:
        """Prove, from the plan's own description, that every program is sound on its memory.

        It covers the programs of the plan, and those of a population of it; those of
        `cotangent_program` verify themselves.

        Returns
        -------
        Proof
            Its `ok` is whether the plan is sound, its `counterexample` why not; its text says both.
        """
        proof: Proof = higher("verify_plan")(self)
        return proof

    def report(self) -> str:
        """Describe what was compiled.

        Returns
        -------
        str
            The programs, what is not native and why, and what is not trained.
        """
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
