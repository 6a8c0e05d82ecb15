"""PyTorch's names and layouts of the arrays of a net's layers."""

from __future__ import annotations

from typing import NamedTuple

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Layer
from graphc.ops.affine import AffineLayer
from graphc.ops.source import Parameter, State

_LEAVES = {"gamma": "weight", "beta": "bias", "slope": "weight"}
"""PyTorch's names of roles that have other names here."""

COUNTER = "num_batches_tracked"
"""The name of batchnorm's step counter in PyTorch, which graphc does not use."""


class Tensor(NamedTuple):
    """An array of the state, and its name in a module."""

    state: str
    leaf: str
    shape: tuple[int, ...]
    """The array's shape in PyTorch."""
    transposed: bool

    def turned(self, array: Array) -> Array:
        """Convert an array from one layout to the other."""
        return array.T if self.transposed else array


class TorchLayer(NamedTuple):
    """A layer, or the owner of a parameter by its name, with the arrays that its module has."""

    name: str
    tensors: tuple[Tensor, ...]
    gathers: bool = False
    """Whether the layer has running statistics."""


def torch_layers(graph: Graph) -> dict[str, TorchLayer]:
    """Return the layers that own parameters, in declared order; the first owns shared ones."""
    found: dict[str, TorchLayer] = {}
    owned: set[str] = set()
    for node in graph:
        if isinstance(node.op, Layer):
            tensors = tuple(t for t in _tensors(graph, node) if t.state not in owned)
            if any(isinstance(graph[t.state].op, Parameter) for t in tensors):
                gathers = any(isinstance(graph[t.state].op, State) for t in tensors)
                found[node.name] = TorchLayer(node.name, tensors, gathers)
                owned.update(t.state for t in tensors)
    for node in graph:
        if isinstance(node.op, Parameter) and node.name not in owned:
            owner, _, leaf = node.name.rpartition(".")
            one = (*found.get(owner, TorchLayer(owner, ())).tensors, _tensor(node, leaf, False))
            found[owner] = TorchLayer(owner, one)
    return found


def _tensors(graph: Graph, node: Node) -> list[Tensor]:
    made = []
    for role, name in zip(node.op.roles, node.inputs, strict=False):
        if isinstance(graph[name].op, (Parameter, State)):
            transposed = isinstance(node.op, AffineLayer) and role == "weight"
            made.append(_tensor(graph[name], _LEAVES.get(role, role), transposed))
    return made


def _tensor(node: Node, leaf: str, transposed: bool) -> Tensor:
    shape = tuple(dim for dim in node.type.shape if isinstance(dim, int))
    return Tensor(node.name, leaf, shape[::-1] if transposed else shape, transposed)


def full_name(module: str, leaf: str) -> str:
    """Return the name of a module's array in a state_dict."""
    return f"{module}.{leaf}" if module else leaf
