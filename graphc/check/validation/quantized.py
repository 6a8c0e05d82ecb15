"""Validates the net in int8 that an executor becomes: each product, by its definition in NumPy."""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np

from graphc.check.validation.faults import Trial, Untried
from graphc.check.validation.run import values_of_arrays
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.arithmetic import Quantize
from graphc.runtime.executor import Executor
from graphc.runtime.freeze import frozen_ops
from graphc.runtime.quantize import quantize
from passes.quantize_products import Quantizable, quantizable

Arrays = Mapping[str, Array]
LIMIT = 127
NEAR = 1e-3
"""The part of a step within which a number counts as half-way, where rounding may go either way."""
LEAST = 1e-5
"""The least range that is judged: smaller numbers may be what is left of larger ones."""
ROUNDINGS = 64 * 2.0**-23
DEFINED = "{name!r} {wrong}, in int8 by its definition"


def products(ex: Executor) -> tuple[Graph, dict[str, Quantizable]]:
    """Return the frozen graph of an executor, and its products that can be of int8 by name."""
    graph = frozen_ops(ex)
    found = {node.name: quantizable(graph, node) for node in graph}
    return graph, {name: form for name, form in found.items() if form is not None}


def quantized_trials(ex: Executor, feeds: Arrays, rows: int) -> Generator[Trial, None, Executor]:
    """Yield the products of the net in int8, calibrated on the feeds, on values out of range.

    Return the net; raise Untried if there is none.  Each product is compared with its definition,
    on the value that its own net multiplies: inputs are twice those of calibration.
    """
    graph, forms = products(ex)
    known = {name: array for name, array in feeds.items() if name in ex.plan.data_names}
    if not forms or len(known) < len(feeds):
        raise Untried
    calibrated = values_of_arrays(graph, rows, feeds, train=False)
    if not all(np.isfinite(calibrated[form.source]).all() for form in forms.values()):
        raise Untried
    made = quantize(ex, known)
    after = made.plan.declared
    far = {name: 2 * x if x.dtype.kind == "f" else x for name, x in feeds.items()}
    values = values_of_arrays(after, rows, far, train=False)
    steps = {node.inputs[0]: node.op.step for node in after if isinstance(node.op, Quantize)}
    for name, form in forms.items():
        largest = np.abs(calibrated[form.source]).max(initial=0.0)
        if largest < LEAST or name not in values or form.source not in values:
            continue
        step, node = np.asarray(steps[form.source]), graph[name]
        right, by_step = np.asarray(largest / LIMIT), f"the step of {form.source!r} {{wrong}}"
        for says, (expected, found, bound) in (
            (by_step, (right, step, 0.01 * right)),
            (DEFINED, _defined(graph, node, form, values, step, rows)),
        ):
            results = {name: expected}, {name: found}, rows, {name: bound}
            yield Trial("quantize", "infer", *results, says, nodes={name: node})
    return made


def _defined(
    graph: Graph, node: Node, form: Quantizable, values: Arrays, step: Array, rows: int
) -> tuple[Array, Array, Array]:
    """Return a product of numbers rounded to int8 in float64, that of the net, and the rounding."""
    wide = values[form.source].astype(np.float64) / step
    halfway = np.abs(np.abs(wide - np.floor(wide)) - 0.5) < NEAR
    weight = form.weight.astype(np.float64)
    largest = np.abs(weight).max(axis=tuple(range(weight.ndim - 1)))
    scale = np.where(largest > 0, largest, 1.0) / LIMIT
    odd = np.abs(np.abs(weight / scale - np.floor(weight / scale)) - 0.5) < 1e-9
    weight = np.rint(weight / scale) * scale

    def product(a: Array, b: Array) -> Array:
        for moved in form.moved:
            a = moved.op.at(rows).reference([a])
        return form.op.at(rows).reference([a, b])

    taken = np.rint(np.clip(wide, -LIMIT, LIMIT)) * step
    exact = product(taken, weight)
    sizes = product(np.abs(taken) + step, np.abs(weight) + odd * scale)
    either = product(halfway * step, np.abs(weight)) + product(np.abs(taken), odd * scale)
    if len(node.inputs) > 2:
        bias = graph[node.inputs[2]].op.reference([]).astype(np.float64)
        exact, sizes = exact + bias, sizes + np.abs(bias)
    return exact, values[node.name], either + ROUNDINGS * sizes
