"""The interface of an executor's model: its plans are compiled again for the language of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graphc.backends.backend import chosen_backend
from graphc.backends.interface import Entry, Interface
from graphc.backends.names import model_word
from graphc.backends.writers import ModelWriter
from graphc.base.arguments import check_choice, checked_whole, plain
from graphc.base.errors import BudgetError, GraphError, counted
from graphc.base.loc import caller_loc
from graphc.compiler.freeze import frozen_graph
from graphc.compiler.options import CompileOptions
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import LARGEST
from graphc.kernels.program import Program
from graphc.ops.loops.lengths import within_lengths
from graphc.runtime.executor import Executor
from graphc.runtime.parameters import Parameters

NAMES = {"infer": "infer", "step": "train_step", "grad": "backward"}
"""The function of each program that can be exported."""


@dataclass(frozen=True)
class Options:
    """The options of exported files, as `export_c` takes them."""

    infer_only: bool = False
    backward: bool = False
    batch: int | None = None
    budget: int | None = None
    weights: str = "in"
    name: str | None = None
    self_test: bool = False

    def __post_init__(self) -> None:
        for field in ("batch", "budget"):
            object.__setattr__(self, field, plain(getattr(self, field)))

    @property
    def separate(self) -> bool:
        """True if the weights have a file of their own."""
        return self.weights == "file"

    @property
    def constant(self) -> bool:
        """True if the weights are constants."""
        return self.infer_only and not self.separate

    def check(self) -> None:
        """Raise GraphError if an option makes no sense."""
        check_choice("weights", self.weights, ("in", "file"))
        for what, number in (("batch", self.batch), ("budget", self.budget)):
            if number is not None:
                checked_whole(what, number)
        if self.self_test and self.separate:
            raise GraphError("a self-test needs the weights in the file", loc=caller_loc())


def interface(
    ex: Executor, writer: ModelWriter, chosen: Options
) -> tuple[Interface, Callable[[], Expected]]:
    """Return the interface of an executor's model in the language of a writer.

    The second result compiles the same plans for the preferred backend.  Raise BudgetError if it
    needs more bytes than the budget, GraphError if it has no such form.
    """
    budget = chosen.budget
    options = replace(
        ex.plan.options,
        graph=within_lengths(ex.plan.declared),
        batch=chosen.batch or ex.plan.batch,
        rows=0,
        backend=writer.backend,
        threads=1,
        budget=None,
        blocks=False,
        keeps=False,
    )
    wanted = Wanted(ex, model_word(chosen.name or ex.plan.declared.name), writer, chosen)
    made = wanted.interface(options)
    if made.nbytes > LARGEST:
        raise GraphError(
            f"the model would need {counted(made.nbytes, 'byte')}, which no machine has",
            loc=caller_loc(),
            hint="give a smaller batch",
        )
    if budget is None or made.nbytes <= budget:
        return made, partial(wanted.expected, options)
    # The budget of a plan counts feeds and gradients, too, which are the caller's here.
    within = budget - made.nbytes + wanted.main(options).plan().memory.total
    if within > 0:
        options = replace(options, budget=within)
        made = wanted.interface(options)
    if made.nbytes > budget:
        raise BudgetError(
            f"the model needs {made.nbytes:,} bytes, {made.nbytes - budget:,} more than the budget "
            f"of {budget:,}: {made.state_bytes:,} of state and {made.work_bytes:,} of work",
            loc=caller_loc(),
            hint="give a smaller batch",
        )
    return made, partial(wanted.expected, options)


@dataclass(frozen=True)
class Wanted:
    """The parts of an executor's model that are to be exported."""

    ex: Executor
    prefix: str
    writer: ModelWriter
    chosen: Options

    def interface(self, options: CompileOptions) -> Interface:
        """Return the interface of the programs that these options give."""
        programs = self._programs(options)
        if not programs:
            raise GraphError(
                "there is nothing to export: the net has no output but losses",
                loc=caller_loc(),
                hint='declare one: net.output("scores", scores), or compile with an optimizer',
            )
        for program in programs.values():
            _check(program)
        used = {b.key for p in programs.values() for b in p.buffers.values() if b.space == "state"}
        state = {k: np.asarray(v) for k, v in self.ex.state.items() if k in used}
        scratch = max(max(self.writer.scratch(program), default=0) for program in programs.values())
        return Interface(self.prefix, programs, state, scratch)

    def expected(self, options: CompileOptions) -> Expected:
        """Return the results of the programs that these options give, computed here."""
        return Expected(self.ex, self._inference(options), self.main(options))

    def main(self, options: CompileOptions) -> CompileOptions:
        """Return the options of the plan that needs the most memory."""
        return self._inference(options) if self.chosen.infer_only else options

    def _inference(self, options: CompileOptions) -> CompileOptions:
        """Return the options of a plan without losses."""
        declared = options.graph
        if self.chosen.constant:
            names = [node.name for node in declared if node.op.persistent]
            graph = frozen_graph(declared, self.ex.state.read(names))
        else:
            outputs = {k: v for k, v in declared.outputs.items() if k not in declared.losses}
            graph = Graph(declared.name, declared, outputs=outputs)
        return replace(options, graph=graph, wrt=(), required=(), rules=(), sharding=None)

    def _programs(self, options: CompileOptions) -> dict[str, Program]:
        """Return the programs by the names of their functions."""
        found: dict[str, Program] = {}
        declared = self.ex.plan.declared
        if set(declared.outputs) - set(declared.losses):
            found[NAMES["infer"]] = self._inference(options).plan().programs["infer"]
        wanted = ["step"] * bool(options.rules) + ["grad"] * self.chosen.backward
        if self.chosen.infer_only or not wanted:
            return found
        if options.sharding is not None:
            raise GraphError(
                "a training step of shards has no form outside Python",
                loc=caller_loc(),
                hint="compile the plan without shards=, or export it with infer_only",
            )
        programs = options.plan().programs
        if "accumulate" in programs:
            raise GraphError(
                "a training step that accumulates gradients has no form outside Python yet",
                loc=caller_loc(),
                hint="leave accumulate out of the optimizer, or export it with infer_only",
            )
        for kind in wanted:
            if kind not in programs:
                raise GraphError("there is nothing to differentiate: the net has no loss")
            found[NAMES[kind]] = programs[kind]
        return found


class Expected:
    """The results of a model's functions, computed by plans of the preferred backend."""

    def __init__(self, ex: Executor, infer: CompileOptions, main: CompileOptions) -> None:
        name = chosen_backend(None)
        self._main = Executor(replace(main, backend=name).plan())
        self._main.state = {key: ex.state[key] for key in self._main.state}
        self._infer = Executor(replace(infer, backend=name).plan(), state=self._main.state)

    def __call__(self, entry: Entry, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run a function of the model; return what it writes, by declared names."""
        program = entry.program.name
        if program == "infer":
            return self._infer.forward(feeds)
        if program == "grad":
            found = self._main.forward(feeds, train=True)
            return found | {f"d_{k}": v for k, v in self._main.backward().items()}
        self._main.step(feeds)
        return self._main.values

    @property
    def state(self) -> Mapping[str, Array]:
        """The state after all runs."""
        return self._main.state

    @property
    def parameters(self) -> Parameters:
        """The parameters, which may be set."""
        return self._main.parameters


def _check(program: Program) -> None:
    """Raise GraphError for the first node that only Python computes."""
    for instr in program.instrs:
        if instr.inside is not None:
            _check(instr.inside.program)
        if instr.kind == "call":
            node = program.graph[instr.node]
            raise GraphError(
                f"{instr.kernel} has no form outside Python yet",
                operands=[node.described("node")],
                loc=node.loc,
                hint="leave it out of the exported outputs, or write it with other ops",
            )
