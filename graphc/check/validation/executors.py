"""The ways of an executor to run a plan, each compared with its programs run by themselves.

An executor must give the same bits: fed with and without a copy, by hand and in steps, with other
rates, from a model file.  A frozen net must give what the declared one means, also after `refresh`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np

from graphc.backends.backend import PORTABLE
from graphc.base.errors import FeedError, GraphError
from graphc.check.central_differences import in_float64
from graphc.check.validation.compare import Results
from graphc.check.validation.faults import Fault, Layer, Trial, Trials, Untried
from graphc.check.validation.judge import SINGLE
from graphc.check.validation.local import TINY, decides, undecided
from graphc.check.validation.members import member_trials
from graphc.check.validation.programs import Bench
from graphc.check.validation.quantized import quantized_trials
from graphc.check.validation.run import (
    EPS,
    ROUNDING,
    Draw,
    Noise,
    Outcome,
    draws_for,
    expanded,
    largest,
    results_of,
    source_arrays,
    values_of_arrays,
)
from graphc.check.validation.shards import Batch
from graphc.check.validation.training import fit_trials
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.compiler.index_bounds import ignored_labels
from graphc.compiler.plan import Plan, program_name
from graphc.features.loops.sequences import Sequences
from graphc.features.precision.option import known_layers
from graphc.files.graph_file import user_ops
from graphc.files.serialize import load_executor, save
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.step_graph import nested
from graphc.ir.tensor_type import dim_at
from graphc.ops.rounding import RoundBfloat16
from graphc.runtime.executor import Executor
from passes import DEFAULT

Arrays = dict[str, Array]
STEPS = 3
"""The number of steps in a row, with the same rates."""


def arrays_of(plan: Plan, graph: Graph, draw: Draw) -> dict[str, Array]:
    """Return the arrays of a program's sources: masks have a draw number beyond 16 bits."""
    arrays = source_arrays(graph, draw)
    for node in graph:
        if node.name in arrays and node.op.role.kind == "seed":
            arrays[node.name] = np.asarray(0x9E3779B97F4A7C15, np.uint64)
    if "draws" in arrays:
        numbers = {1: 65_536 + 3, plan.batch: 2**32 + 65_535}
        arrays["draws"] = np.asarray(numbers.get(draw.rows, 65_535), arrays["draws"].dtype)
    return arrays


class Runs(Protocol):
    """An executor of a net, or another runtime that computes its outputs."""

    def forward(self, feeds: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Return the outputs by name."""


Others = Mapping[str, Callable[[Executor], Runs]]
"""Ways to make something else that runs the net of an executor, by their names in reports."""


class Ways:
    """An executor of the plan, compared with runs of the programs by themselves."""

    def __init__(self, bench: Bench, draw: Draw, thorough: bool, others: Others) -> None:
        self.plan, self.bench, self.draw, self.thorough = bench.plan, bench, draw, thorough
        self.others = others
        self.done: list[str] = []
        """The ways that gave the right results, in words."""
        self.left: list[str] = []
        """The ways that cannot be tried, and why."""
        self.quantized: Plan | None = None
        """The plan in int8, once there is one."""
        graphs = [self.plan.declared, *(p.graph for p in self.plan.programs.values())]
        self.arrays: Arrays = {}
        for graph in graphs:
            self.arrays |= arrays_of(self.plan, graph, self.draw)
        counter = self.plan.step_counter
        if counter in self.arrays:
            self.arrays[counter] = np.zeros_like(self.arrays[counter])
        inputs = {name: self.arrays[name] for name in self.plan.input_names}
        self.feeds = Sequences(self.plan.declared).whole(inputs)
        self.arrays |= self.feeds

    @cached_property
    def ex(self) -> Executor:
        """The executor, which is made only when the programs are known to run."""
        return Executor(self.plan)

    def trials(self) -> Trials:
        """Yield the trials of all ways to run that the plan has."""
        if self.plan.ranks > 1:
            self.left.append(f"the executor, which needs {self.plan.ranks} ranks")
            return
        for name, way, there in self._all():
            try:
                yield from way() if there else ()
            except Untried as reason:
                self.left.extend(reason.args)
            else:
                self.done += [name] if there else []

    def _all(self) -> Iterator[tuple[str, Callable[[], Trials], object]]:
        """Yield the name of each way to run, its trials, and whether the plan has it."""
        plan, freezes = self.plan, self._freezes()
        alone = plan.rules and plan.shards is None
        rates = f"{2 * STEPS} steps, half of them with other rates"
        members = partial(member_trials, plan, self.feeds, self.thorough)
        yield "forward", self._inference, True
        yield "refuses labels out of range", self._labels, plan.programs["infer"].index_bounds
        yield "backward and update", self._backward, "grad" in plan.programs
        yield rates, self._steps, alone
        yield f"a step of {plan.shards} shards", self._shards, plan.rules and not alone
        yield "freeze and refresh", self._frozen, freezes
        yield "save and load", self._saved, True
        yield "quantize", self._in_int8, freezes and not plan.options.precision
        yield "members of a population", members, alone
        yield "gc.fit and its checkpoints", partial(fit_trials, plan), self.thorough and plan.rules
        for name, make in self.others.items():
            yield name, partial(self._otherwise, name, make), True

    def _reset(self, arrays: Mapping[str, Array]) -> None:
        self.ex.state = {name: arrays[name] for name in self.plan.state_nodes}

    def _alone(self, name: str, arrays: Mapping[str, Array]) -> Arrays:
        """Return the results of a program that runs by itself."""
        return self.bench.run(self.bench.programs[name], arrays, self.draw.rows).whole()

    def _same(self, program: str, expected: Results, found: Results) -> Trial:
        """Return the comparison of a program's results by the executor and by itself."""
        return Trial("executor", program, expected, found, self.draw.rows)

    def _states(self, updates: Mapping[str, Array]) -> Arrays:
        """Return the executor's states of those that a run updates."""
        names = [name for name in updates if name.startswith("update ")]
        return {name: self.ex.state[name.removeprefix("update ")] for name in names}

    def _inference(self) -> Trials:
        self._reset(self.arrays)
        for _ in range(2):  # the second one reads feeds where they lie
            yield self._infers(self.arrays)

    def _infers(self, arrays: Arrays) -> Trial:
        """Return the trial of inference on a state, of which it may have kept what was before."""
        expected = self._alone("infer", arrays)
        return self._same("infer", expected, _named("output", self.ex.forward(self.feeds)))

    def _backward(self) -> Trials:
        """Yield the trials of forward in training, backward, and an update by hand."""
        expected = self._alone("grad", self.arrays)
        for _ in range(2):
            self._reset(self.arrays)
            outputs = self.ex.forward(self.feeds, train=True)
            gradients = self.ex.backward() if self.plan.losses else {}
            found = _named("output", outputs) | _named("gradient", gradients)
            yield self._same("grad", expected, found | self._states(expected))
        if "apply" in self.plan.programs and self.plan.accumulate == 1:
            self.ex.update()
            after = {**self.arrays, **_named("gradient:", gradients, ""), **updated(expected)}
            applied = self._alone("apply", after)
            yield self._same("apply", applied, self._states(applied))

    def _steps(self) -> Trials:
        """Yield the trials of several steps, then of as many with other rates."""
        self._reset(self.arrays)
        arrays = dict(self.arrays)
        for rates in (False, True):
            for name in self.ex.hyper if rates else ():
                state = self.ex.hyper.state_of(name)
                self.ex.hyper[name] = 0.5 * self.ex.hyper[name]
                arrays[state] = np.asarray(0.5 * arrays[state], arrays[state].dtype)
            for _ in range(STEPS):
                loss = self.ex.step(self.feeds)
                expected = self._step(arrays)
                losses = [expected[f"output {name}"] for name in self.plan.losses]
                total = np.asarray(float(losses[0] if len(losses) == 1 else sum(losses)))
                found = {"loss": np.asarray(loss), **self._states(expected)}
                updates = {k: v for k, v in expected.items() if k in found}
                yield self._same("step", {"loss": total, **updates}, found)
                arrays |= updated(expected)
            yield self._infers(arrays)

    def _shards(self) -> Trials:
        """Yield the trial of a step cut into shards, by the rules for all of them together."""
        plan, name = self.plan, program_name(self.plan)
        graph = plan.programs[name].graph
        if plan.accumulate > 1 or any(node.op.role.kind == "divisor" for node in graph):
            raise Untried("a step of shards that accumulate, or have a weighted mean")
        (draw,) = draws_for(plan.declared, [plan.rows])
        batch, wide = Batch(draw, plan.shards or 1), in_float64(graph)
        exact, *moved = (_next_states(batch, wide, run) for run in (None, 0, 1, 2))
        self._reset({**self.arrays, **source_arrays(graph, draw)})
        declared = source_arrays(plan.declared, draw)
        self.ex.step({key: declared[key] for key in plan.input_names})
        bounds, says = dict[str, float](), f"update {{name!r}} of {plan.shards} shards {{wrong}}"
        for state, value in exact.items():
            eps = 2.0**-23 if self.arrays[state].dtype == np.float32 else 2.0**-52
            far = max(largest(run[state] - value) for run in moved)
            bounds[state] = 64 * far + 4 * eps * largest(value)
        nodes = {state: graph[value] for state, value in graph.updates.items()}
        yield Trial("exchange", name, exact, self.ex.state, draw.rows, bounds, says, nodes=nodes)

    def _step(self, arrays: Arrays) -> Arrays:
        """Return the results of a step, and of the update that is due after it."""
        plan = self.plan
        if plan.accumulate == 1:
            return self._alone("step", arrays)
        found = self._alone("accumulate", arrays)
        if int(found[f"update {plan.step_counter}"]) < plan.accumulate:
            return found
        return found | self._alone("apply", {**arrays, **updated(found)})

    def _labels(self) -> Trials:
        """Yield a fault for a label that is accepted out of range, or refused in it."""
        program = self.plan.programs["infer"]
        ignored = ignored_labels(program.graph)
        for name, size in program.index_bounds.items():
            bound = dim_at(size, self.draw.rows)
            largest = self._with_label(name, bound - 1)
            if not self._accepts(largest):
                what = f"input {name!r} does not take {bound - 1}, which is below {bound}"
                yield Fault("feeds", "infer", what, self.draw.rows)
            for wrong in {bound, -1} - {ignored.get(name)}:
                if self._accepts(self._with_label(name, wrong)):
                    what = f"input {name!r} takes {wrong}, which is not from 0 to {bound - 1}"
                    yield Fault("feeds", "infer", what, self.draw.rows)

    def _with_label(self, name: str, label: int) -> Arrays:
        array = self.feeds[name].copy()
        # The first step of the last row: a row may have no others.
        array.reshape(len(array) if array.ndim else 1, -1)[-1, 0] = label
        return {**self.feeds, name: array}

    def _accepts(self, feeds: Arrays) -> bool:
        """Return whether feeds are taken, copied or not."""
        try:
            self.ex.forward(feeds)
        except FeedError:
            return False
        return True

    # ------------------------------------------------------------------ frozen, saved

    def _freezes(self) -> bool:
        """Return whether an output reads weights, and the net has no derivative inside."""
        graph = self.plan.declared
        needed = graph.upstream(v for k, v in graph.outputs.items() if k not in graph.losses)
        weights = any(graph[name].op.persistent for name in needed)
        return weights and not any(node.op.needs_expansion for node in nested(graph))

    def _frozen(self) -> Trials:
        """Yield the trials of the frozen net, before and after it takes other weights."""
        declared, options = self.plan.declared, self.plan.options
        made = options.backend if self.thorough else PORTABLE
        first, other = (
            {**source_arrays(declared, self.draw.other(seed=self.draw.seed + more)), **self.feeds}
            for more in (0, 1)
        )
        graph = frozen_graph(declared, first)
        batch, passes = self.plan.batch, options.passes
        precision = known_layers(graph, options.precision)
        plan = compile(graph, batch=batch, backend=made, passes=passes, precision=precision)
        frozen = Executor(plan)
        yield self._meant(frozen, first, "freeze")
        self._reset({**self.arrays, **other})
        frozen.refresh(self.ex)
        yield self._meant(frozen, other, "refresh")

    def _otherwise(self, name: str, make: Callable[[Executor], Runs]) -> Trials:
        """Yield the trial of the net in another form."""
        self._reset(self.arrays)
        try:
            made = make(self.ex)  # it may set other weights, those of a file
            arrays = {**source_arrays(self.plan.declared, self.draw), **self.feeds}
            arrays |= {k: v for k, v in self.ex.snapshot().items() if k in self.plan.declared}
            yield self._meant(made, arrays, name, "exchange file")
        except GraphError as error:
            raise Untried(f"{name}: {error.sentence}") from None

    def _meant(self, frozen: Runs, arrays: Arrays, what: str, layer: Layer = "freeze") -> Trial:
        """Return the trial of a frozen net's outputs, by the rules of the declared net.

        An output is not judged where rounding decides, for example which of equal numbers is the
        largest.
        """
        rows, own = self.draw.rows, expanded(self.plan.declared, train=False)
        plain, graph = values_of_arrays(own, rows, arrays, train=False), in_float64(own)
        wide = {k: v.astype(graph[k].type.dtype) for k, v in arrays.items() if k in graph}
        wide |= {node.name: plain[node.name] for node in own if decides(own, node)}
        exact = results_of(graph, values_of_arrays(graph, rows, wide, train=False))
        bounds = Outcome(graph, rows, wide, exact).bounds(2)
        single = any(node.type.dtype == "float32" for node in self.plan.declared)
        fed = frozen.plan.input_names if isinstance(frozen, Executor) else self.feeds
        scale = SINGLE if single or layer == "exchange file" else 1.0  # whose attributes are single
        rounds = any(isinstance(node.op, RoundBfloat16) for node in nested(self.plan.declared))
        scale = ROUNDING / EPS if rounds or self.plan.options.precision else scale
        least = TINY if single else 0.0
        near = undecided(own, rows, arrays, plain, scale * EPS)
        expected, found, room = {}, {}, {}
        for name, value in frozen.forward({name: self.feeds[name] for name in fed}).items():
            if not near.isdisjoint(own.upstream([own.outputs[name]])):
                self.bench.count.near += 1
            elif value.dtype.kind == "f":
                expected[name], found[name] = exact[f"output {name}"], value
                room[name] = scale * bounds[f"output {name}"] + least
        says = f"output {{name!r}} {{wrong}}, after {what}"
        return Trial(layer, "infer", expected, found, rows, room, says)

    def _saved(self) -> Trials:
        """Yield the trials of an executor that was saved and loaded."""
        options = self.plan.options
        if options.own or not {*options.passes.names} <= {*DEFAULT.names}:
            raise Untried("a model file, which does not hold functions of your own")
        self._reset(self.arrays)
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = save(Path(folder) / "model.gc", self.ex)
            except GraphError as error:
                raise Untried(f"a model file: {error.sentence}") from None
            loaded = load_executor(path, ops=user_ops(self.plan.declared))
            written = _written(path.read_bytes(), self.ex.state)
        for found in (written, loaded.state):
            yield self._filed("state", self.ex.state, found)
        yield self._filed("infer", self.ex.forward(self.feeds), loaded.forward(self.feeds))
        if self.plan.rules:
            self.ex.step(self.feeds)
            loaded.step(self.feeds)
            yield self._filed("step", self.ex.state, loaded.state)

    def _filed(self, program: str, expected: Results, found: Results) -> Trial:
        return Trial("model file", program, expected, found, self.draw.rows)

    def _in_int8(self) -> Trials:
        """Yield the products in int8 that are not what they are defined to be."""
        self._reset(self.arrays)
        made = yield from quantized_trials(self.ex, self.feeds, self.draw.rows)
        self.quantized = made.plan


def _written(file: bytes, names: Iterable[str]) -> Arrays:
    """Return the arrays of a file in the format safetensors, by names of states."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    found = {name: header[f"state/{name}"] for name in names if f"state/{name}" in header}
    offsets = {name: [start + at for at in entry["data_offsets"]] for name, entry in found.items()}
    return {name: np.frombuffer(file[slice(*at)], np.uint8) for name, at in offsets.items()}


def _next_states(batch: Batch, graph: Graph, run: int | None) -> Arrays:
    """Return the last shard's next states; `run` moves all numbers by a rounding of float32."""
    given = batch.arrays(graph)
    if run is not None:
        noise = Noise(run, lambda node: 2.0**-23)
        moved = {name: noise(graph[name], array) for name, array in given[0].items()}
        alike = (n for n in graph if not n.type.batched and not n.op.is_of_shard)
        whole = {n.name: moved[n.name] for n in alike if n.name in moved}
        given = [{**{k: noise(graph[k], a) for k, a in one.items()}, **whole} for one in given]
    last = batch.values(graph, given)[-1]
    return {state: last[value] for state, value in graph.updates.items()}


def _named(kind: str, arrays: Results, sep: str = " ") -> Arrays:
    """Return arrays by their kind and name."""
    return {f"{kind}{sep}{name}": array for name, array in arrays.items()}


def updated(results: Mapping[str, Array]) -> Arrays:
    """Return the next states of results, by name."""
    start = "update "
    return {k.removeprefix(start): v for k, v in results.items() if k.startswith(start)}
