"""The function `compare_quantized`: the errors of a quantized net, by layer, and its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.base.text_table import aligned
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE
from graphc.runtime.classes import classes_of, predicted_classes
from graphc.runtime.executor import Executor
from graphc.runtime.freeze import check_executor, frozen_ops
from graphc.runtime.quantize import values_of
from graphc.runtime.rows import by_position, predictions


@dataclass(frozen=True)
class LayerError:
    """The error of one product's result, beside float32.

    Parameters
    ----------
    layer
        The name of the node, with the bias if it has one.
    relative
        The root of the mean square of the errors, divided by that of the values.
    largest
        The largest error.

    Examples
    --------
    >>> from graphc.check.quantization import LayerError
    >>> f"{LayerError('scores', 0.012, 0.25).relative:.1%}"
    '1.2%'
    """

    layer: str
    relative: float
    largest: float


@dataclass(frozen=True)
class QuantizationReport:
    """The loss of a quantized net beside the net that it was made of.

    Parameters
    ----------
    net
        The name of the net.
    rows
        The rows that were compared.
    layers
        The errors of the products, in the order of the net.
    accuracy
        The parts of the rows that either net gives the right class; None without labels.
    weights
        The bytes of the quantized weights in the net, and in the quantized net.

    Examples
    --------
    >>> from graphc.check.quantization import LayerError, QuantizationReport
    >>> layers = (LayerError("scores", 0.012, 0.25),)
    >>> print(QuantizationReport("digits", 360, layers, (0.975, 0.972), (2000, 500)))
    'digits' in int8, compared on 360 rows
    layer   error  largest
    scores  1.20%     0.25
    weights: 2,000 bytes in float, 500 in int8
    accuracy: 97.50 % in float, 97.20 % in int8
    """

    net: str
    rows: int
    layers: tuple[LayerError, ...]
    accuracy: tuple[float, float] | None
    weights: tuple[int, int]

    def __str__(self) -> str:
        table = [("layer", "error", "largest")]
        table += [(x.layer, f"{x.relative:.2%}", f"{x.largest:.3g}") for x in self.layers]
        lines = [f"{self.net!r} in int8, compared on {self.rows} rows", *aligned(table, "<>>")]
        lines.append(f"weights: {self.weights[0]:,} bytes in float, {self.weights[1]:,} in int8")
        if self.accuracy is not None:
            before, after = (f"{100 * part:.2f} %" for part in self.accuracy)
            lines.append(f"accuracy: {before} in float, {after} in int8")
        return "\n".join(lines)


def compare_quantized(ex: Executor, quantized: Executor, data: Any) -> QuantizationReport:
    """Compare what a net and the net quantized from it compute: each product, and the classes.

    Parameters
    ----------
    ex
        The executor that was quantized.
    quantized
        What `gc.quantize` returned for it, or what was loaded from its file.
    data
        Rows, best of a test set: the inputs in declared order, as an array or a tuple, or a
        mapping by name.  With the labels, the accuracies are compared, too.

    Returns
    -------
    QuantizationReport
        The errors, which `print` shows as a table.

    Raises
    ------
    GraphError
        If `quantized` was not made of `ex`.
    FeedError
        If the data do not fit the inputs.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3, name="line"))
    >>> ex = gc.Executor(gc.compile(net, batch=32))
    >>> x = np.random.default_rng(0).standard_normal((100, 2))
    >>> report = gc.compare_quantized(ex, gc.quantize(ex, x), x)
    >>> report.weights, report.layers[0].relative < 0.02
    ((24, 6), True)
    """
    for each in (ex, quantized):
        check_executor("compare_quantized", each, "gc.compare_quantized(ex, gc.quantize(ex, x), x)")
    before, after = frozen_ops(ex), quantized.plan.declared
    products = [node for node in after if _in_int8(after, node)]
    layers = [_layer(before, after, node.name) for node in products]
    if not layers or None in layers:
        raise GraphError(
            f"compare_quantized: {after.name!r} is not the net {before.name!r} in int8",
            loc=caller_loc(),
            hint="gc.compare_quantized(ex, gc.quantize(ex, x), x)",
        )
    names = tuple(dict.fromkeys(name for name in layers if name is not None))
    rows, errors = _errors(values_of(ex, before, names), values_of(ex, after, names), data)
    sizes = [after[node.inputs[1]].type.size(1) for node in products]
    items = [ITEMSIZE[before[name].type.dtype] for name in layers if name is not None]
    floats = sum(size * item for size, item in zip(sizes, items, strict=True))
    accuracy = _accuracy(ex, quantized, data)
    return QuantizationReport(after.name, rows, errors, accuracy, (floats, sum(sizes)))


def _in_int8(graph: Graph, node: Node) -> bool:
    """Return whether a node sums products of int8."""
    factors = {graph[name].type.dtype for name in node.inputs}
    return node.type.dtype == "int32" and factors == {"int8"}


def _layer(before: Graph, after: Graph, product: str) -> str | None:
    """Return the first float after a product that the net in float has, too, or None."""
    name = product
    while name not in before or before[name].type != after[name].type:
        users = after.users[name]
        if not users:
            return None
        name = users[0]
    return name


def _errors(before: Executor, after: Executor, data: Any) -> tuple[int, tuple[LayerError, ...]]:
    """Return the number of rows, and the error of each output over all of them."""
    rows, found = predictions(before, (data,), {})
    others = predictions(after, (data,), {})[1]
    sums: dict[str, Array] = {name: np.zeros(3) for name in before.plan.declared.outputs}
    for (_, floats), (_, made) in zip(found, others, strict=True):
        for name, array in floats.items():
            wide = array.astype(np.float64)
            off = np.abs(made[name] - wide)
            sums[name][:2] += np.square(off).sum(), np.square(wide).sum()
            sums[name][2] = max(sums[name][2], off.max(initial=0.0))
    return rows, tuple(
        LayerError(name, float(np.sqrt(off / max(all_, np.finfo(float).tiny))), float(largest))
        for name, (off, all_, largest) in sums.items()
    )


def _accuracy(ex: Executor, quantized: Executor, data: Any) -> tuple[float, float] | None:
    """Return the parts of the rows that both give the right class; None without labels."""
    classes = classes_of(ex.plan.declared)
    feeds = by_position(ex.plan.data_names, (data,), {})
    if classes is None or classes.labels not in feeds:
        return None
    labels = np.asarray(feeds[classes.labels])
    before, after = (
        float(np.mean(predicted_classes(each, feeds, classes) == labels))
        for each in (ex, quantized)
    )
    return before, after
