"""ONNX models of functions, which several runtimes run: by the formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.cli.installation.bundle import Bundle
from graphc.cli.installation.calls import calls, slope_of
from graphc.cli.installation.ops import BATCH, compare, run_of
from graphc.cli.installation.plain import Array
from graphc.cli.installation.recurrent import check_recurrent
from graphc.cli.installation.trial import ROUGH, Trial, near

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
EVALUATOR, RUNTIME = "ONNX's evaluator", "onnxruntime"


def onnx(trial: Trial) -> str:
    """Check the ONNX model of each function."""
    missing = [name for name in ("onnx", RUNTIME) if find_spec(name) is None]
    trial.left += [f"left out: {name} is not installed" for name in missing]
    if "onnx" in missing:
        return ""
    count, short = Counter[str](), 0
    for call, formula in calls().items():
        if slope_of.__name__ in formula.left.co_names:  # ONNX has no gradients
            continue
        bundle = Bundle({call: formula})
        arrays = bundle.drawn(trial.rng, BATCH)
        ex = gc.Executor(gc.compile(bundle.net, batch=BATCH, backend=PORTABLE, losses=[]))
        run_of(ex, arrays)
        for name, run in _runs(ex, RUNTIME not in missing):
            with trial.case(f"the ONNX model of {call}, run by {name}"):
                try:
                    found = run({n: arrays[n] for n in ex.plan.input_names})
                except GraphError:  # of an operator that the evaluator does not have
                    continue
                compare(bundle, arrays, found, train=False)
                count[name] += 1
        if RUNTIME not in missing:
            with trial.case(f"the ONNX model of {call}, without attributes that have a default"):
                short += _by_defaults(call, gc.onnx.to_proto(ex), arrays)
        if "train" in formula.right.co_names:
            with trial.case(f"the ONNX model of a step of {call}"):
                compare(bundle, arrays, _step(ex)(arrays), train=True)
    layers = 0 if RUNTIME in missing else check_recurrent(trial, _session)
    runs = ", ".join(f"by {name} {number}" for name, number in count.items())
    return f"ONNX models run {runs}; {short} by the defaults of attributes; {layers} layers"


def _runs(ex: gc.Executor, runtime: bool) -> Iterator[tuple[str, Run]]:
    """Yield the ways to run the model of an executor."""
    from graphc.onnx.verified import Evaluated, there_and_back

    model = gc.onnx.to_proto(ex)
    back = there_and_back(ex)
    yield "graphc", lambda feeds: back.forward({n: feeds[n] for n in back.plan.input_names})
    yield EVALUATOR, lambda feeds: Evaluated.of(ex).forward(feeds)
    if runtime:
        yield RUNTIME, _session(model.SerializeToString())


def _step(ex: gc.Executor) -> Run:
    """Return the outputs of a step of training, as an ONNX model."""
    from graphc.onnx.verified import Evaluated

    return Evaluated.of_model(gc.onnx.to_proto(ex, train=True)).forward


def _by_defaults(call: str, model: Any, arrays: Mapping[str, Array]) -> bool:
    """Compare what graphc and the runtime compute of a model without attributes with a default.

    Return False if it has none, or if one of them refuses it: then shapes do not fit.
    """
    from graphc.onnx.verified import leave_defaults_out

    if not leave_defaults_out(model):
        return False
    try:
        right = _session(model.SerializeToString(), severity=4)(arrays)
    except Exception:  # whatever the runtime raises
        return False
    try:
        plan = gc.compile(gc.onnx.load(model), batch=BATCH, backend=PORTABLE, losses=[])
    except GraphError:
        return False
    found = gc.Executor(plan).forward({name: arrays[name] for name in plan.input_names})
    for name, array in found.items():
        near(f"{call}, by defaults", right[name], array, ROUGH["float32"])
    return True


def _session(model: bytes, severity: int = 3) -> Run:
    onnxruntime = import_module("onnxruntime")

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = severity, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    inputs = {value.name for value in session.get_inputs()}

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        given = {name: np.asarray(array) for name, array in feeds.items() if name in inputs}
        return dict(zip(names, session.run(names, given), strict=True))

    return run
