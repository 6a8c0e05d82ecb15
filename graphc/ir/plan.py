"""The parts of a plan: instructions, buffers, programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from graphc.compiler.memory import Arena, LiveRange, align
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType
from graphc.kernels.kernel import Kernel

if TYPE_CHECKING:
    from pathlib import Path

    from graphc.check.verify import ProgramProof, Report
    from graphc.compiler.recipe import Recipe
    from graphc.declare.optim import Optimizer
    from graphc.view.memory_report import MemoryReport
    from passes.pipeline import PassRecord

Space = Literal["arena", "state", "feed", "constant", "gradient"]
"""The memory of a buffer: only arena and gradient buffers have offsets."""


class Instr(NamedTuple):
    """One step of a program: a kernel, its operands, the buffers that it alone writes.

    `kernel` runs the fused kernel `body`, which computes `nodes`; `call` runs the op's reference
    rule and copies its result; `barrier` lets the threads wait for each other.  `send` starts the
    exchange of a bucket, and `receive` waits for the sum over all shards.
    """

    kind: Literal["kernel", "call", "barrier", "send", "receive"]
    kernel: str
    """The kind of kernel, or the op's name."""
    op: Op | None
    ins: tuple[str, ...]
    outs: tuple[str, ...]
    node: str
    body: Kernel | None = None
    nodes: tuple[str, ...] = ()


class Buffer(NamedTuple):
    """A typed place in memory.

    `first` and `last` are the epochs of its live range.
    """

    name: str
    type: TensorType
    space: Space
    key: str
    """The state, feed, constant, gradient or storage that it is a view of."""
    offset: int
    first: int
    last: int
    shift: int = 0
    """The elements by which it starts later: the first of its columns."""
    pitch: int = 0
    """The elements between its rows if it is only some columns of a matrix."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A part of the arena that buffers use one after another, or lie side by side in.

    `parts` are the types that it must hold one after the other; a part that several buffers
    share in turn is listed once.
    """

    key: str
    parts: tuple[TensorType, ...]
    first: int
    last: int

    def range_at(self, n: int) -> LiveRange:
        """Return the live range that the planner places, for a batch of `n` rows."""
        return LiveRange(self.key, sum(t.nbytes(n) for t in self.parts), self.first, self.last)


@dataclass(frozen=True)
class Program:
    """One entry of a plan: instructions in order over one arena.

    Instructions before `boundary` are the forward pass.  `outputs` and `gradients` map public
    names to buffers; `index_bounds` maps an integer feed to the number of entries it may index,
    `aliases` a buffer without bytes of its own to the one whose bytes it shares.
    """

    name: str
    graph: Graph
    capacity: int
    instrs: tuple[Instr, ...]
    buffers: Mapping[str, Buffer]
    storages: tuple[Storage, ...]
    arena: Arena
    boundary: int
    outputs: Mapping[str, str]
    gradients: Mapping[str, str]
    index_bounds: Mapping[str, int]
    aliases: Mapping[str, str]
    backend: str = "numpy"

    @cached_property
    def feeds(self) -> Mapping[str, TensorType]:
        """The inputs that the program reads, in declared order."""
        return {
            b.name: b.type for b in self.buffers.values() if b.space == "feed" and b.name == b.key
        }

    @cached_property
    def constants(self) -> Mapping[str, Buffer]:
        """The constants of the program by name."""
        found = (b for b in self.buffers.values() if b.space == "constant")
        return {b.name: b for b in found if b.name == b.key}

    @cached_property
    def gradient_bytes(self) -> int:
        """The bytes of the block that holds the gradients asked for."""
        ends = [
            b.offset + align(b.type.nbytes(self.capacity))
            for b in self.buffers.values()
            if b.space == "gradient"
        ]
        return max(ends, default=0)

    def verify(self) -> ProgramProof:
        """Prove that no step reads or overwrites what it must not; see `graphc.check.verify`."""
        from graphc.check.certificate.export import certify_program
        from graphc.check.verify import verify_program

        return verify_program(certify_program(self))

    def __str__(self) -> str:
        from graphc.kernels.program_text import program_text

        return program_text(self)


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
        return tuple(node.name for node in self.declared if node.op.is_input)

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """The declared parameters in order."""
        return tuple(node.name for node in self.declared if node.op.is_parameter)

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
        from graphc.runtime.state import state_nodes

        graphs = [self.declared, *(program.graph for program in self.programs.values())]
        return state_nodes(graphs)

    @cached_property
    def memory(self) -> MemoryReport:
        """The exact memory that the plan needs, before anything runs."""
        from graphc.view.memory_report import MemoryReport

        return MemoryReport(self, self.batch)

    def cotangent_program(self, outputs: tuple[str, ...]) -> Program:
        """Compile the program that differentiates outputs by cotangents that are fed."""
        return self.recipe.cotangent_program(outputs)

    def render(self, path: str | Path, *, fold: bool = True) -> Path:
        """Draw forward and backward side by side, in the suffix's format: svg, png, pdf, dot, html.

        With `fold` a block of layers that is repeated is drawn once.  A page has both pictures.
        """
        from graphc.view.render import render_plan

        return render_plan(self, path, fold=fold)

    def verify(self) -> Report:
        """Prove, from the plan's own description, that every program is sound on its memory.

        The report's `ok` is whether it is, its `counterexample` why not, its text says both.  It
        covers the programs of the plan; those of `cotangent_program` verify themselves.
        """
        from graphc.check.certificate.export import certify
        from graphc.check.verify import verify

        return verify(certify(self))

    def report(self) -> str:
        """Return what was compiled: programs, what is not native and why, what is not trained."""
        from graphc.view.reports import plan_report

        return plan_report(self)

    def __reduce__(self) -> tuple[Any, ...]:
        from graphc.files.serialize import pickled

        return pickled(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self  # immutable, and shared wherever it is used

    def __str__(self) -> str:
        return "\n".join(str(program) for program in self.programs.values())

    def __repr__(self) -> str:
        return f"<Plan of {self.declared.name!r}, batch {self.batch}: {', '.join(self.programs)}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the picture for a notebook, or the text alone if nothing here can draw it."""
        from graphc.view.render import notebook_bundle

        return notebook_bundle(self, str(self))
