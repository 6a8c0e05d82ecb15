"""The ways of an executor to run a plan, each compared with its programs run by themselves.

An executor must give the same bits: fed with and without a copy, by hand and in steps, with other
rates, from a model file.  A frozen net must give what the declared one means, also after `refresh`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from graphc.backends.backend import PORTABLE
from graphc.base.errors import FeedError, GraphError
from graphc.check.central_differences import in_float64
from graphc.check.validation.compare import gap, same_bytes
from graphc.check.validation.explain import Fault, Layer
from graphc.check.validation.judge import SINGLE
from graphc.check.validation.local import TINY, decides, undecided
from graphc.check.validation.members import member_faults
from graphc.check.validation.programs import Bench
from graphc.check.validation.quantized import quantized_faults
from graphc.check.validation.run import (
    EPS,
    ROUNDING,
    Draw,
    Noise,
    draws_for,
    expanded,
    largest,
    results_of,
    rounding_bounds,
    source_arrays,
    values_of_arrays,
)
from graphc.check.validation.shards import Batch
from graphc.check.validation.training import fit_faults, not_fitted
from graphc.compiler.compile import compile
from graphc.compiler.freeze import frozen_graph
from graphc.compiler.index_bounds import ignored_labels
from graphc.compiler.plan import Plan, program_name
from graphc.features.precision.option import known_layers
from graphc.files.graph_file import user_ops
from graphc.files.serialize import load_executor, save
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.step_graph import nested
from graphc.ir.tensor_type import dim_at
from graphc.ops.rounding import RoundBfloat16
from graphc.runtime.executor import Executor
from graphc.runtime.sequences import Sequences
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


def differing(
    layer: Layer,
    program: str,
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    rows: int,
    threads: int = 1,
) -> Iterator[Fault]:
    """Yield a fault for each result whose bytes differ."""
    for name, value in expected.items():
        if name not in found:
            yield Fault(layer, program, f"{name} is gone", rows, threads=threads)
        elif not same_bytes(value, np.asarray(found[name])):
            text = gap(value, np.asarray(found[name]), 0.0) or "has other bytes"
            yield Fault(layer, program, f"{name} {text}", rows, threads=threads)


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

    def faults(self) -> Iterator[Fault]:
        """Yield the faults of all ways to run."""
        if self.plan.ranks > 1:
            self.left.append(f"the executor, which needs {self.plan.ranks} ranks")
            return
        yield from self._inference()
        yield from self._labels()
        if "grad" in self.plan.programs:
            yield from self._backward()
        if self.plan.rules:
            yield from self._steps() if self.plan.shards is None else self._shards()
        if self._freezes():
            yield from self._frozen()
        yield from self._saved()
        yield from self._in_int8()
        yield from self._trained()
        for name, make in self.others.items():
            yield from self._otherwise(name, make)

    def _in_int8(self) -> Iterator[Fault]:
        """Yield the products in int8 that are not what they are defined to be."""
        if self._freezes() and not self.plan.options.precision:
            self._reset(self.arrays)
            made, faults = quantized_faults(self.ex, self.feeds, self.draw.rows)
            yield from faults
            if made is not None:
                self.quantized = made.plan
                self.done.append("quantize")

    def _trained(self) -> Iterator[Fault]:
        """Yield the faults of a population, and of `gc.fit` if that is asked for."""
        if self.plan.rules and self.plan.shards is None:
            yield from member_faults(self.plan, self.feeds, self.thorough)
            self.done.append("members of a population")
        if self.thorough and self.plan.rules:
            if why := not_fitted(self.plan):
                self.left.append(f"gc.fit: {why}")
                return
            yield from fit_faults(self.plan)
            self.done.append("gc.fit and its checkpoints")

    def _reset(self, arrays: Mapping[str, Array]) -> None:
        self.ex.state = {name: arrays[name] for name in self.plan.state_nodes}

    def _alone(self, name: str, arrays: Mapping[str, Array]) -> Arrays:
        """Return the results of a program that runs by itself."""
        return self.bench.run(self.bench.programs[name], arrays, self.draw.rows).whole()

    def _differing(self, name: str, expected: Arrays, found: Arrays) -> Iterator[Fault]:
        yield from differing("executor", name, expected, found, self.draw.rows)

    def _states(self, updates: Mapping[str, Array]) -> Arrays:
        """Return the executor's states of those that a run updates."""
        names = [name for name in updates if name.startswith("update ")]
        return {name: self.ex.state[name.removeprefix("update ")] for name in names}

    def _inference(self) -> Iterator[Fault]:
        self._reset(self.arrays)
        for _ in range(2):  # the second one reads feeds where they lie
            yield from self._infers(self.arrays)
        self.done.append("forward")

    def _infers(self, arrays: Mapping[str, Array]) -> Iterator[Fault]:
        """Yield the faults of inference on a state, of which it may have kept what was before."""
        expected = self._alone("infer", arrays)
        found = {f"output {k}": v for k, v in self.ex.forward(self.feeds).items()}
        yield from self._differing("infer", expected, found)

    def _backward(self) -> Iterator[Fault]:
        """Yield the faults of forward in training, backward, and an update by hand."""
        expected = self._alone("grad", self.arrays)
        for _ in range(2):
            self._reset(self.arrays)
            outputs = self.ex.forward(self.feeds, train=True)
            gradients = self.ex.backward() if self.plan.losses else {}
            found = {f"output {k}": v for k, v in outputs.items()}
            found |= {f"gradient {k}": v for k, v in gradients.items()}
            yield from self._differing("grad", expected, found | self._states(expected))
        if "apply" in self.plan.programs and self.plan.accumulate == 1:
            self.ex.update()
            fed = {f"gradient:{wrt}": gradients[wrt] for wrt in gradients}
            after = {**self.arrays, **fed, **_updated(expected)}
            applied = self._alone("apply", after)
            yield from self._differing("apply", applied, self._states(applied))
        self.done.append("backward and update")

    def _steps(self) -> Iterator[Fault]:
        """Yield the faults of several steps, then of as many with other rates."""
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
                alone = {"loss": np.asarray(float(losses[0] if len(losses) == 1 else sum(losses)))}
                yield from self._differing("step", alone, {"loss": np.asarray(loss)})
                updates = {k: v for k, v in expected.items() if k.startswith("update ")}
                yield from self._differing("step", updates, self._states(updates))
                arrays |= _updated(expected)
            yield from self._infers(arrays)
        self.done.append(f"{2 * STEPS} steps, half of them with other rates")

    def _shards(self) -> Iterator[Fault]:
        """Yield the faults of a step cut into shards, by the rules for all of them together."""
        plan, name = self.plan, program_name(self.plan)
        graph = plan.programs[name].graph
        if plan.accumulate > 1 or any(node.op.role.kind == "divisor" for node in graph):
            self.left.append("a step of shards that accumulate, or have a weighted mean")
            return
        (draw,) = draws_for(plan.declared, [plan.rows])
        batch, wide = Batch(draw, plan.shards or 1), in_float64(graph)
        exact, *moved = (_next_states(batch, wide, run) for run in (None, 0, 1, 2))
        self._reset({**self.arrays, **source_arrays(graph, draw)})
        declared = source_arrays(plan.declared, draw)
        self.ex.step({key: declared[key] for key in plan.input_names})
        for state, value in exact.items():
            eps = 2.0**-23 if self.arrays[state].dtype == np.float32 else 2.0**-52
            far = max(largest(run[state] - value) for run in moved)
            text = gap(value, self.ex.state[state], 64 * far + 4 * eps * largest(value))
            if text:
                what = f"update {state!r} of {plan.shards} shards {text}"
                yield Fault("exchange", name, what, draw.rows, graph[graph.updates[state]])
        self.done.append(f"a step of {plan.shards} shards")

    def _step(self, arrays: Arrays) -> Arrays:
        """Return the results of a step, and of the update that is due after it."""
        plan = self.plan
        if plan.accumulate == 1:
            return self._alone("step", arrays)
        found = self._alone("accumulate", arrays)
        if int(found[f"update {plan.step_counter}"]) < plan.accumulate:
            return found
        return found | self._alone("apply", {**arrays, **_updated(found)})

    def _labels(self) -> Iterator[Fault]:
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
        if program.index_bounds:
            self.done.append("refuses labels out of range")

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

    def _frozen(self) -> Iterator[Fault]:
        """Yield the faults of the frozen net, before and after it takes other weights."""
        declared, options = self.plan.declared, self.plan.options
        made = options.backend if self.thorough else PORTABLE
        frozen: Executor | None = None
        for seed in (self.draw.seed, self.draw.seed + 1):
            arrays = source_arrays(declared, replace(self.draw, seed=seed, known={}, last={}))
            arrays |= self.feeds
            if frozen is None:
                graph = frozen_graph(declared, arrays)
                batch, passes = self.plan.batch, options.passes
                precision = known_layers(graph, options.precision)
                plan = compile(graph, batch=batch, backend=made, passes=passes, precision=precision)
                frozen = Executor(plan)
            else:
                self._reset({**self.arrays, **arrays})
                frozen.refresh(self.ex)
            yield from self._meant(frozen, arrays, "refresh" if seed > self.draw.seed else "freeze")
        self.done.append("freeze and refresh")

    def _otherwise(self, name: str, make: Callable[[Executor], Runs]) -> Iterator[Fault]:
        """Yield the faults of the net in another form."""
        self._reset(self.arrays)
        try:
            made = make(self.ex)  # it may set other weights, those of a file
            arrays = {**source_arrays(self.plan.declared, self.draw), **self.feeds}
            arrays |= {k: v for k, v in self.ex.snapshot().items() if k in self.plan.declared}
            yield from self._meant(made, arrays, name, "exchange file")
        except GraphError as error:
            self.left.append(f"{name}: {error.sentence}")
        else:
            self.done.append(name)

    def _meant(
        self, frozen: Runs, arrays: Arrays, what: str, layer: Layer = "freeze"
    ) -> Iterator[Fault]:
        """Yield the faults of a frozen net's outputs, by the rules of the declared net.

        An output is not judged where rounding decides, for example which of equal numbers is the
        largest.
        """
        rows, own = self.draw.rows, expanded(self.plan.declared, train=False)
        plain, graph = values_of_arrays(own, rows, arrays, train=False), in_float64(own)
        wide = {k: v.astype(graph[k].type.dtype) for k, v in arrays.items() if k in graph}
        wide |= {node.name: plain[node.name] for node in own if decides(own, node)}
        exact = results_of(graph, values_of_arrays(graph, rows, wide, train=False))
        bounds = rounding_bounds(graph, rows, wide, exact, 2)
        single = any(node.type.dtype == "float32" for node in self.plan.declared)
        fed = frozen.plan.input_names if isinstance(frozen, Executor) else self.feeds
        found = frozen.forward({name: self.feeds[name] for name in fed})
        scale = SINGLE if single or layer == "exchange file" else 1.0  # whose attributes are single
        rounds = any(isinstance(node.op, RoundBfloat16) for node in nested(self.plan.declared))
        scale = ROUNDING / EPS if rounds or self.plan.options.precision else scale
        least = TINY if single else 0.0
        near = undecided(own, rows, arrays, plain, scale * EPS)
        for name, value in found.items():
            if not near.isdisjoint(own.upstream([own.outputs[name]])):
                self.bench.count.near += 1
            elif value.dtype.kind == "f":
                bound = scale * bounds[f"output {name}"] + least
                text = gap(exact[f"output {name}"], value, bound)
                if text:
                    yield Fault(layer, "infer", f"output {name!r} {text}, after {what}", rows)

    def _saved(self) -> Iterator[Fault]:
        """Yield the faults of an executor that was saved and loaded."""
        options = self.plan.options
        if options.own or not {*options.passes.names} <= {*DEFAULT.names}:
            self.left.append("a model file, which does not hold functions of your own")
            return
        self._reset(self.arrays)
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = save(Path(folder) / "model.gc", self.ex)
            except GraphError as error:
                self.left.append(f"a model file: {error.sentence}")
                return
            loaded = load_executor(path, ops=user_ops(self.plan.declared))
            written = _written(path.read_bytes(), self.ex.state)
        before, after = dict(self.ex.state), dict(loaded.state)
        yield from differing("model file", "state", before, written, self.draw.rows)
        yield from differing("model file", "state", before, after, self.draw.rows)
        one, other = self.ex.forward(self.feeds), loaded.forward(self.feeds)
        yield from differing("model file", "infer", one, other, self.draw.rows)
        if self.plan.rules:
            self.ex.step(self.feeds)
            loaded.step(self.feeds)
            before, after = dict(self.ex.state), dict(loaded.state)
            yield from differing("model file", "step", before, after, self.draw.rows)
        self.done.append("save and load")


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


def _updated(results: Mapping[str, Array]) -> Arrays:
    """Return the next states of results, by name."""
    start = "update "
    return {k.removeprefix(start): v for k, v in results.items() if k.startswith(start)}
