"""The nets of users, as the estimators take them."""

from __future__ import annotations

from typing import Any

from graphc.base.errors import GraphError
from graphc.declare.net import Net
from graphc.declare.perceptrons import WEIGHT
from graphc.ir.tensor_type import N, TensorType


def checked_net(net: Any, units: int, output: str) -> Net:
    """Return the net; raise GraphError unless it has the inputs and output of an estimator."""
    if not isinstance(net, Net):
        raise GraphError(
            f"the function given as net returned {type(net).__name__}, not a Net",
            hint="it takes the numbers of features and outputs, and returns a gc.Net",
        )
    graph = net.graph()
    inputs = [node.name for node in graph if node.op.is_input]
    for name in ("x", "y"):
        if name not in inputs:
            raise GraphError(
                f"net {net.name!r} has no input {name!r}",
                hint=f"it has {', '.join(inputs) or 'none'}; an estimator feeds x and y, and "
                f"{WEIGHT} where there is one",
            )
    if output not in graph.outputs:
        raise GraphError(
            f"net {net.name!r} has no output {output!r}",
            hint=f"net.output({output!r}, value) makes a value public",
        )
    found = graph[graph.outputs[output]]
    wanted = TensorType((N, units), found.type.dtype)
    if found.type != wanted:
        raise GraphError(
            f"output {output!r} is {found.type}, for this data it must be {wanted}",
            operands=[found.described(output)],
            hint="the last layer is gc.affine(h, units), units being the function's second "
            "argument",
        )
    return net
