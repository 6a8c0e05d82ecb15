"""Recurrent layers of ONNX with all their inputs, which onnxruntime runs, too."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import PORTABLE
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import ROUGH, Trial, near

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, ROWS, FEATURES, UNITS = 5, 3, 2, 4


def check_recurrent(trial: Trial, run: Any) -> int:
    """Compare layers in each direction with what the runtime computes; return how many."""
    count = 0
    for op, way, lengths in product(GATES, ("forward", "reverse", "bidirectional"), (False, True)):
        for whole in (0, 1) if op == "GRU" else (0,):
            more = {"linear_before_reset": whole} if op == "GRU" else {}
            with trial.case(f"{op} of ONNX, {way}, {more}, {'lengths' * lengths}"):
                model, feeds = _layer(trial.rng, op, way, lengths, more)
                plan = gc.compile(gc.onnx.load(model), batch=ROWS, backend=PORTABLE)
                found = gc.Executor(plan).forward({n: feeds[n] for n in plan.input_names})
                for name, right in run(model.SerializeToString())(feeds).items():
                    near(f"{op}: {name}", right, found[name], ROUGH["float32"])
            count += 1
    return count


def _layer(
    rng: np.random.Generator, op: str, way: str, lengths: bool, more: dict[str, Any]
) -> tuple[Any, dict[str, Array]]:
    """Return the model of a layer with steps in front, its weights as constants, and feeds."""
    from graphc.onnx.verified import layer_model

    ways, wide = 2 if way == "bidirectional" else 1, GATES[op] * UNITS
    shapes = {"w": (ways, wide, FEATURES), "r": (ways, wide, UNITS), "b": (ways, 2 * wide)}
    starts = {"h": (ways, ROWS, UNITS)} | ({"c": (ways, ROWS, UNITS)} if op == "LSTM" else {})
    shapes |= starts | ({"p": (ways, 3 * UNITS)} if op == "LSTM" else {})
    held = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    feeds = {"x": rng.normal(size=(STEPS, ROWS, FEATURES)).astype("float32")}
    if lengths:
        held["n"] = np.array([STEPS, 2, 3], "int32")
    inputs = ["x", "w", "r", "b", "n" * lengths, *starts, *(["p"] if op == "LSTM" else [])]
    outputs = ["y", "y_h", *(["y_c"] if op == "LSTM" else [])]
    more = {"hidden_size": UNITS, "direction": way, **more}
    return layer_model(op, (inputs, outputs), feeds["x"], held, more), feeds
