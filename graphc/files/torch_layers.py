"""What PyTorch calls the arrays of a net's layers, and how it lays them out."""

from __future__ import annotations

from typing import NamedTuple

from graphc.graph import Graph, Node
from graphc.op import Array, Layer
from graphc.ops.affine import AffineLayer
from graphc.ops.source import Parameter, State

_LEAVES = {"gamma": "weight", "beta": "bias", "slope": "weight"}
"""PyTorch's names of roles that are called otherwise here."""

COUNTER = "num_batches_tracked"
"""What PyTorch's batchnorm counts, and graphc has no use for."""


class Tensor(NamedTuple):
    """An array of the state, and its name in a module."""

    state: str
    leaf: str
    shape: tuple[int, ...]
    """PyTorch's."""
    transposed: bool

    def turned(self, array: Array) -> Array:
        """From one layout to the other."""
        return array.T if self.transposed else array


class TorchLayer(NamedTuple):
    """A layer, or the owner of a parameter by its name, with what would be a module's arrays."""

    name: str
    tensors: tuple[Tensor, ...]
    gathers: bool = False
    """Whether it has running statistics."""


def torch_layers(graph: Graph) -> dict[str, TorchLayer]:
    """The layers that own parameters, in declared order; of those that share, the first."""
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
    """What a state_dict calls an array of a module."""
    return f"{module}.{leaf}" if module else leaf
