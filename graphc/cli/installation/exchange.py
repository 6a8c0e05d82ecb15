"""ONNX models of functions, which several runtimes run: by the formulas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec

import numpy as np

import graphc as gc
from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.cli.installation.bundle import Bundle
from graphc.cli.installation.calls import calls, slope_of
from graphc.cli.installation.ops import BATCH, compare, run_of
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import Trial

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
EVALUATOR, RUNTIME = "ONNX's evaluator", "onnxruntime"


def onnx(trial: Trial) -> str:
    """Check the ONNX model of each function."""
    missing = [name for name in ("onnx", RUNTIME) if find_spec(name) is None]
    trial.left += [f"left out: {name} is not installed" for name in missing]
    if "onnx" in missing:
        return ""
    count = Counter[str]()
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
    return f"ONNX models run {', '.join(f'by {name} {number}' for name, number in count.items())}"


def _runs(ex: gc.Executor, runtime: bool) -> Iterator[tuple[str, Run]]:
    """Yield the ways to run the model of an executor."""
    from graphc.onnx.verified import Evaluated, there_and_back

    model = gc.onnx.to_proto(ex)
    back = there_and_back(ex)
    yield "graphc", lambda feeds: back.forward({n: feeds[n] for n in back.plan.input_names})
    yield EVALUATOR, Evaluated.of(ex).forward
    if runtime:
        yield RUNTIME, _session(model.SerializeToString())


def _session(model: bytes) -> Run:
    onnxruntime = import_module("onnxruntime")

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    inputs = {value.name for value in session.get_inputs()}

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        given = {name: np.asarray(array) for name, array in feeds.items() if name in inputs}
        return dict(zip(names, session.run(names, given), strict=True))

    return run
