"""Faults that are planted below the graph are caught by commands that a user has, with the layer.

Each is a change of the source of one function.  The passes run as they are, on another process's
graph, so to speak: only what was compiled, and what runs it, is wrong.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc as gc
from graphc.backends.backend import backend
from graphc.backends.native import backend as native
from graphc.backends.native import cache, cache_keys, feeds
from graphc.backends.native.program import program_ir
from graphc.backends.numpy import kernels, products, updates
from graphc.check.validation import ValidationError
from graphc.check.validation.plans import validate_plan
from graphc.kernels.program import Program
from graphc.ops.moments import AdamStep
from tests.check.validation.faults import Fault, plant
from tests.check.validation.run_nets import images, layers, maths, noise, slices, tables
from tests.tools.fuzz.draw import Wishes, draw

ADAM = gc.Adam(weight_decay=0.01)
KERNELS, NUMPY = "graphc.kernels", "graphc.backends.numpy"
NATIVE, OPS = "graphc.backends.native", "graphc.ops"
RUN, COMPILER = "graphc.runtime", "graphc.compiler"


class Planted(NamedTuple):
    """A fault: where it is, what shows it, and the layer that validation must name."""

    what: str
    layer: str
    net: Callable[[], gc.Net]
    where: str
    old: str
    new: str
    backend: str = "numpy"
    options: tuple[tuple[str, Any], ...] = ()


# fmt: off
FAULTS = (
    # gradients, masks, labels, updates and freezing
    Planted("gradient of a backward slice", "lowering", slices, f"{OPS}.slicing:SliceGrad.gather",
            "shift=-on * start", "shift=-on * start - (step < 0)"),
    Planted("gradient of a dilated image", "lowering", images, f"{OPS}.conv:ConvDx._window_of_dy",
            "one, self.dilation, before", "one, one, before"),
    Planted("masks repeat after 65,536 draws", "backend", layers,
            f"{KERNELS}.philox:_first_rounds",
            "constants[0] & _LOW", "constants[0] & 0xFFFF"),
    Planted("native masks repeat", "backend", layers, f"{NATIVE}.elements:group_words",
            'w.splat(draws, "uint64")', 'w.splat(w.function.value(f"and i64 {draws}, 65535"), '
            '"uint64")', "native"),
    Planted("all masks repeat", "reference", layers, f"{KERNELS}.philox:keep_words",
            "draws & _LOW", "draws & 0xFFFF"),
    Planted("labels off by one", "feeds", layers, f"{RUN}.feeds:FeedCheck._check_range",
            "< bound:", "<= bound:"),
    Planted("native labels off by one", "feeds", layers, f"{NATIVE}.feeds:_Check._below",
            "ult i64", "ule i64", "native"),
    Planted("Adam's corrections in the parameter's dtype", "lowering", layers,
            f"{OPS}.moments:AdamStep.scalar", 'updates.cast("float64")', "updates.cast(p.dtype)"),
    Planted("refresh leaves running statistics", "freeze", layers,
            f"{COMPILER}.freeze:_with_weights",
            "for node in labelled}", "for node in labelled if 'running' not in node.name}"),
    # lowering: kernels that are not what the graph means
    Planted("relu's gradient everywhere", "lowering", layers, f"{OPS}.select:ReluGrad.scalar",
            "select(out > 0, dout, 0)", "dout * 1"),
    Planted("relu above one", "lowering", layers, f"{OPS}.select:Relu.scalar",
            "x.lift(0) > x", "x.lift(1) > x"),
    Planted("a mean that is a sum", "lowering", layers, f"{OPS}.reduce:Mean.scalar",
            "ins[0].mean(axis)", "ins[0].sum(axis)"),
    Planted("normalisation with a larger eps", "lowering", layers, f"{OPS}.norm:Normalize.scalar",
            "self.eps", "1000 * self.eps"),
    Planted("normalisation's gradient without a mean", "lowering", layers,
            f"{OPS}.fused_norm:NormalizeDx.scalar", "dout - dbeta / rows -", "dout -"),
    Planted("a label's score counted twice", "lowering", layers,
            f"{OPS}.losses.labels:SoftmaxRowsGrad.scalar", "hit(labels).cast(p.dtype)",
            "2 * hit(labels).cast(p.dtype)"),
    Planted("masks keep too few", "lowering", layers, f"{OPS}.dropout:DropoutMask.scalar",
            "threshold(self.keep_prob) - 1", "threshold(self.keep_prob * 0.9)"),
    Planted("normal numbers of one sign", "reference", noise,
            f"{OPS}.random_numbers:RandomNormal.of_word", "-size, size", "size, size"),
    Planted("noise of another stream", "lowering", noise,
            f"{OPS}.random_numbers:RandomNumbers.scalar", "self.stream", "self.stream + 1"),
    Planted("masks scale by another dtype's share", "lowering", layers,
            f"{OPS}.dropout:DropoutMask.scalar", "float(scale)", "1.0"),
    Planted("softmax without its largest", "lowering", tables, f"{OPS}.functions:Softmax.scalar",
            "1 / e.sum(axis)", "1 / e.max(axis)"),
    Planted("padding lies a place late", "lowering", slices, f"{OPS}.pad:Pad._maps",
            "shift=-before", "shift=-before + 1"),
    Planted("clip at its lower limit only", "lowering", maths, f"{OPS}.select:Clip.scalar",
            "self.high < np.inf", "False"),
    Planted("an access map of another row", "lowering", tables, f"{OPS}.gather:Gather.gather",
            "AxisMap(columns, size)", "AxisMap(columns - 1, size)"),
    Planted("a stack's factor of equal matrices", "lowering", tables,
            f"{KERNELS}.fuse:Factor.strides_in",
            "(*[0] * missing, *steps[:-2], pitch)",
            "(*[0] * missing, *[0 for _ in steps[:-2]], pitch)"),
    Planted("a stack's product untransposed", "lowering", tables,
            f"{KERNELS}.fuse:Factor.strides_in",
            "self.transposed != by_columns", "self.transposed == by_columns"),
    Planted("joined parts in another order", "lowering", slices,
            f"{COMPILER}.lowering:Lowering._join",
            "View(name, part.start, width)", "View(name, width - part.stop, width)"),
    Planted("rows that are not added", "lowering", tables,
            f"{COMPILER}.lowering:Lowering._scatter_add",
            "count=count(of_indices.shape)", "count=count(of_indices.shape[:1])"),
    Planted("fusion stores another node", "lowering", layers, f"{KERNELS}.fuse:_Fusion.body",
            "self._values[node.name], self", "self._values[self.group.nodes[0].name], self"),
    Planted("a transposed factor read straight", "lowering", layers, f"{KERNELS}.fuse:Fuser.kernel",
            "(of.trans_a, of.trans_b)", "(of.trans_a, of.trans_b and of.trans_a)"),
    # the numpy backend: kernels computed wrongly
    Planted("a forgotten mask", "backend", layers, f"{NUMPY}.functions:select_or_zero",
            "partial(np.copyto, chosen, condition)", "partial(chosen.fill, 1)"),
    Planted("a branch that is never taken", "backend", slices, f"{NUMPY}.access:fetch",
            "partial(out.fill, at.fill)", "partial(out.fill, 0)"),
    Planted("a limit twice as high", "backend", maths, f"{NUMPY}.functions:clip",
            "number(high, x.dtype)", "number(2 * high, x.dtype)"),
    Planted("erf's edge", "backend", maths, f"{NUMPY}.erf:_erf",
            "partial(np.less_equal, t, one, small)", "partial(np.less_equal, t, two, small)"),
    Planted("rows of a table off by one", "backend", tables, f"{NUMPY}.access:take_rows",
            "partial(matrix.take, rows.reshape(-1)", "partial(matrix.take, rows.reshape(-1) * 0"),
    Planted("rows added once", "backend", tables, f"{NUMPY}.access:scatter_add",
            "partial(np.add.at, out.reshape(-1), places.reshape(-1), rows.reshape(-1))",
            "partial(out.reshape(-1).__setitem__, places.reshape(-1), rows.reshape(-1))"),
    Planted("pixels a place late", "backend", images, f"{NUMPY}.products:_spread",
            "images[of])", "np.roll(images[of], 1, 1))"),
    Planted("a filter that is not reversed", "backend", images, f"{NUMPY}.products:_factor",
            "stored[::-1, :, group]", "stored[:, :, group]"),
    Planted("a depthwise filter that is not reversed", "backend", images,
            f"{NUMPY}.products:_depthwise", "weights[::-1] if", "weights if"),
    Planted("a weight's gradient of the last images", "backend", images,
            f"{NUMPY}.products:_weight_gradient",
            "partial(np.add, out[:, part], sums, out[:, part])",
            "partial(np.copyto, out[:, part], sums * 2)"),
    Planted("a factor that is not transposed", "backend", tables, f"{NUMPY}.products:_batched",
            "right = right.swapaxes(-1, -2) if kernel.trans_b", "right = right if kernel.trans_b"),
    Planted("the tail of joined updates", "backend", layers, f"{NUMPY}.horizontal:_Run._tail",
            "self.nbytes // update.itemsize", "self.nbytes // update.itemsize // 2"),
    # native code
    Planted("exp's polynomial", "backend", maths, "graphc.backends.maths:exp",
            "coefficients.EXP[dtype], 1, 1)", "coefficients.EXP[dtype], 1.00002, 1)", "native"),
    Planted("the logarithm's exponent", "backend", maths, "graphc.backends.maths:log",
            "v.const(ln2_high, dtype), mantissa", "v.const(0.6931, dtype), mantissa", "native"),
    Planted("tanh's largest number", "backend", maths, "graphc.backends.maths:tanh",
            "form.largest_tanh", "1.5", "native"),
    Planted("erf's far part", "backend", maths, "graphc.backends.maths:erf",
            "coefficients.ERFCX", "coefficients.ERF", "native"),
    Planted("powers with another exponent", "backend", maths, "graphc.backends.maths:_power",
            "doubles.power, (x, y)",
            "doubles.power, (x, v.const(exponent * 1.001, dtype))", "native"),
    Planted("floor rounds to the nearest", "backend", maths, f"{NATIVE}.vectors:Vectors.intrinsic",
            "type, yields = self",
            "if name == 'floor': name = 'roundeven'\n    type, yields = self", "native"),
    Planted("lanes that are not added", "backend", tables,
            f"{NATIVE}.row_loops:LaneRows._reduced",
            "low, high = parts[:half], parts[half:]", "low, high = parts[:half], parts[half + 1:]",
            "native"),
    Planted("gathers start a column late", "backend", slices,
            f"{NATIVE}.gather_loops:_Gathers._read",
            "axis.shift), element_type", "axis.shift + 1), element_type", "native"),
    Planted("rows added from the second", "backend", tables,
            f"{NATIVE}.transpose_scatter:_ScatterAdd.emit",
            "loop(0, self.f.size(self.added.count)", "loop(1, self.f.size(self.added.count)",
            "native"),
    Planted("squares that are not transposed", "backend", tables,
            f"{NATIVE}.transpose_scatter:_Strip._square",
            "enumerate(v.transpose(rows, self.dtype))", "enumerate(rows)", "native"),
    Planted("a stack of its first matrices", "backend", tables, f"{NATIVE}.loop_structure:moved",
            "if stride != 0", "if stride != 0 and place.index(index)", "native"),
    Planted("the last rows have no thread", "threads", layers, f"{NATIVE}.ir:Function.thread_part",
            'self.mul(self.quotient(self.mul(thread, units), "%threads"), unit)',
            'self.mul(self.mul(thread, self.quotient(units, "%threads")), unit)', "native",
            (("batch", 40),)),
    Planted("kernels that do not wait for others", "threads", layers,
            f"{KERNELS}.barriers:Barriers._conflicts", "return True", "return False", "native",
            (("batch", 40),)),
    # memory, executor, files
    Planted("live values share bytes", "memory", layers, "graphc.kernels.program:Storage.range_at",
            "self.first, self.last)", "self.first, max(self.first, self.last - 2))"),
    Planted("columns at the start of the matrix", "backend", slices,
            "graphc.backends.layout:columns_of", "flat[buffer.shift :]", "flat[0 :]"),
    Planted("rates that are not set", "executor", layers, f"{RUN}.parameters:Hyper.__setitem__",
            "held.__setitem__, ..., self.fit(name, value)", "held.__setitem__, ..., held"),
    Planted("feeds of the run before", "executor", layers, f"{RUN}.bound:Bound.feed",
            "np.copyto(self.feeds[name], array)", "self.feeds[name][:1] = array[:1]"),
    Planted("a native feed from its second row", "executor", layers,
            f"{NATIVE}.feeds:_Check._feed", "store ptr {data}",
            "store ptr {f.address(data, feed['bytes'], 'i8')}", "native"),
    Planted("frozen with the initial statistics", "freeze", layers, f"{COMPILER}.freeze:_constant",
            "array = state[node.name]",
            "array = state[node.name] * (0.5 if 'var' in node.name else 1)"),
    Planted("constants are halved", "memory", layers, f"{RUN}.workspace:Workspace.constant_writes",
            "op.array() for", "(op.array() / 2).astype(op.dtype) for"),
    Planted("refreshed constants are not written", "freeze", layers, f"{RUN}.runs:Runs._take_over",
            'plan.programs["infer"]', 'self.plan.programs["infer"]'),
    Planted("half a state in a file", "model file", layers, "graphc.files.serialize:_pieces",
            "name: array for", "name: array // 2 if array.dtype.kind == 'i' else array for"),
    Planted("slots that a file forgets", "model file", layers,
            "graphc.files.model_file:Model.executor",
            "ex.state = found",
            "ex.state = {k: v * (0 if '.mean' in k else 1) for k, v in found.items()}"),
    # the exchange between shards
    Planted("kept sums added twice", "exchange", layers,
            f"{RUN}.distributed.exchange:Exchange._add_kept",
            "level += 1", "level += 1; buffer += 0.01", options=(("shards", 2),)),
    Planted("every shard counts as half", "exchange", layers,
            f"{RUN}.distributed.step:Shards._number",
            "(stop - start) / n", "(stop - start) / n * 0.5", options=(("shards", 2),)),
    Planted("masks of the first rows", "exchange", layers, f"{RUN}.distributed.step:Shards._number",
            "return start", "return 0", options=(("shards", 2),)),
    Planted("sums of the wrong lane", "exchange", layers,
            f"{RUN}.distributed.exchange:Exchange.total",
            "np.copyto(pause.buffer, pauses[-1].buffer)", "pause.buffer",
            options=(("shards", 2), ("sync_batchnorm", True))),
)
# fmt: on


def slow(case: Any) -> Any:
    """A case that does not run by default."""
    return pytest.param(case, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No code or plan of a kernel that was made with a fault, or without it, is used again."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "cache"))
    forget()
    yield
    forget()


def forget() -> None:
    for each in (kernels.known_plan, products._positions, updates._parts, updates._known):
        each.cache_clear()  # type: ignore[attr-defined]
    feeds.feeds_ir.cache_clear()


def planted(fault: Planted, patch: pytest.MonkeyPatch) -> None:
    """Put the faulty function in its place, and in the tables that hold it."""
    module, _, name = fault.where.partition(":")
    right = vars(importlib.import_module(module)).get(name)
    plant(Fault(fault.what, fault.net, fault.where, fault.old, fault.new, ""), patch)
    if right is not None:
        registered(right, vars(sys.modules[module])[name], patch)


BACKENDS = "graphc.backends."


def registered(right: Any, made: Any, patch: pytest.MonkeyPatch) -> None:
    """Put a faulty function into the tables of a backend's functions."""
    for module in [m for name, m in list(sys.modules.items()) if name.startswith(BACKENDS)]:
        tables = [table for table in list(vars(module).values()) if isinstance(table, dict)]
        for table in tables:
            # A copy: a collection while the items are listed may take weak ones out.
            for key, entry in table.copy().items():
                if entry is right:
                    patch.setitem(table, key, made)
                elif getattr(entry, "rule", None) is right:
                    patch.setitem(table, key, replace(entry, rule=made))


def found(fault: Planted) -> ValidationError | None:
    """The error of a plan that is compiled with the fault."""
    options = {"batch": 8, "optimizer": ADAM, "backend": fault.backend, "threads": 1}
    try:
        plan = gc.compile(fault.net(), **(options | dict(fault.options)))  # type: ignore[arg-type]
        validate_plan(plan)
    except ValidationError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_below_the_graph_is_caught_in_its_layer(
    fault: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(fault, monkeypatch)
    # The fixture of all tests would prove two of them wrong before they run.
    monkeypatch.setattr(Program, "verify", lambda program: SimpleNamespace(ok=True))
    error = found(fault)
    assert error is not None
    assert error.layer == fault.layer, str(error)


@pytest.mark.parametrize("net", [slices, slow(layers)])
def test_what_is_right_is_accepted(net: Callable[[], gc.Net]) -> None:
    ran = validate_plan(gc.compile(net(), batch=8, optimizer=ADAM, backend="numpy"))
    assert ran.rows == (1, 7, 8)
    assert ran.programs == ("infer", "grad", "step", "apply", "infer in int8")
    assert ran.count.kernels > 50
    assert not ran.count.large
    assert not ran.left
    assert "save and load" in ran.ways


@pytest.mark.slow
@pytest.mark.parametrize(
    "net", [slices, images, layers, maths, tables], ids=lambda net: net.__name__
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_all_of_it_is_accepted_on_each_backend(net: Callable[[], gc.Net], backend: str) -> None:
    plan = gc.compile(net(), batch=19, optimizer=ADAM, backend=backend)
    assert validate_plan(plan, thorough=True).count.values > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_nets_are_accepted(seed: int) -> None:
    """With random options: shards, accumulation, recomputed values, every optimizer."""
    case = draw(10_000 + seed, Wishes(native=0.05, interpreted=0.0))
    try:
        plan = case.plan
    except gc.GraphError:  # a choice of losses or wrt that compile refuses
        return
    assert validate_plan(plan).count.values


@pytest.mark.slow
@pytest.mark.parametrize("synchronised", [False, True])
def test_shards_are_accepted(synchronised: bool) -> None:
    plan = gc.compile(layers(), batch=9, optimizer=ADAM, backend="numpy", shards=4,
                      sync_batchnorm=synchronised)  # fmt: skip
    assert "a step of 4 shards" in validate_plan(plan).ways


def shown(fault: str, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """The fault of that name, planted."""
    (chosen,) = (each for each in FAULTS if each.what == fault)
    planted(chosen, monkeypatch)
    return chosen


@pytest.mark.parametrize(
    "what",
    ["gradient of a backward slice", slow("masks repeat after 65,536 draws"),
     slow("labels off by one"), slow("Adam's corrections in the parameter's dtype"),
     slow("refresh leaves running statistics")],
)  # fmt: skip
def test_compiling_catches_faults_below_the_graph(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = shown(what, monkeypatch)
    with pytest.raises(ValidationError) as caught:
        gc.compile(fault.net(), batch=8, optimizer=ADAM, backend="numpy", validate=True)
    assert caught.value.layer == fault.layer


def test_the_error_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    error = found(shown("gradient of a backward slice", monkeypatch))
    assert error is not None
    lines = str(error).splitlines()
    assert lines[0].startswith("program 'grad', lowering: 'd_")
    assert "the reference gives" in lines[0]
    assert lines[0].endswith("by the interpreter of kernels, on the same operands, with 1 row")
    assert lines[1].startswith("    loop N x ")
    assert "run_nets.py" in str(error)
    assert "in slices: " in str(error)
    assert lines[-1].startswith("  hint: ")
    assert error.kernel.startswith("loop N x ")


@pytest.mark.slow
def test_an_update_that_is_wrong_in_every_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections in float32, in the kernel and in the reference alike."""
    whole = AdamStep.reference

    def reference(self: AdamStep, ins: Sequence[Any]) -> Any:
        p, m, s, rate, updates = ins
        one = p.dtype.type(1)
        t = p.dtype.type(updates + 1)
        first, second = (one - p.dtype.type(b) ** t for b in (self.beta1, self.beta2))
        moved = rate / first * m / (np.sqrt(s / second) + p.dtype.type(self.eps))
        exact = whole(self, [p, m, s, np.zeros_like(rate), updates])
        return np.asarray(exact - moved, p.dtype)

    monkeypatch.setattr(AdamStep, "reference", reference)
    shown("Adam's corrections in the parameter's dtype", monkeypatch)
    plan = gc.compile(layers(), batch=8, optimizer=gc.Adam(), backend="numpy")
    with pytest.raises(ValidationError) as caught:
        validate_plan(plan)
    assert caught.value.layer == "update", caught.value
    assert "by the rule of Adam" in str(caught.value)


@pytest.mark.parametrize("part", ["bodies", "buffers"])
def test_code_that_is_kept_under_too_short_a_key_is_caught(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another net was compiled before, and its code is found under the same key."""

    def short(program: Program, skip: frozenset[int]) -> str:
        kinds = [instr.kind for instr in program.instrs]
        offsets = [buffer.offset for buffer in program.buffers.values()]
        return repr((program.name, kinds, offsets if part == "bodies" else 0))

    monkeypatch.setattr("graphc.backends.native.backend.program_key", short)

    plan = gc.compile(kept(), batch=4, backend="native")
    assert validate_plan(plan).count.values
    with pytest.raises(ValidationError) as caught:
        gc.compile(kept(gc.exp) if part == "bodies" else kept(width=7), batch=4, backend="native",
                   validate=True)  # fmt: skip
    assert caught.value.layer == "cached code"


def kept(function: Callable[[gc.Value], gc.Value] = gc.tanh, width: int = 5) -> gc.Net:
    """One small kernel."""
    made = gc.Net("kept")
    made.output("y", function(made.input("x", (gc.N, width)) * 2.0))
    return made


def test_an_object_that_is_not_that_of_its_text_is_caught() -> None:
    plan = gc.compile(kept(), batch=4, backend="native")
    gc.Executor(plan).forward(x=np.ones((1, 5)))
    (text,) = program_ir(plan.programs["infer"], native.host())
    cache.store(cache_keys.object_key(text, native.host()), b"another object")
    assert validate_plan_code(plan, emits=False) is None
    assert "differs" in str(validate_plan_code(plan, emits=True))


def validate_plan_code(plan: gc.Plan, emits: bool) -> str | None:
    return backend(plan.backend).wrong_code(plan.programs["infer"], emits)
