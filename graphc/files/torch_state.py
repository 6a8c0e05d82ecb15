"""Weights of PyTorch modules: read from safetensors files or state_dicts, and written back.

PyTorch is not needed.  The weight of an affine layer is (in, out) here and (out, in) there; other
arrays are laid out alike.  A parameter of a name that graphc made up belongs to its layer; others,
such as those of an ONNX file, have their own names in PyTorch, too.  Nothing is set before all of
it has been checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphc.base.errors import ModelFileError, StateError, first_of
from graphc.files.container import NAMES, pack, read_file, read_tensors
from graphc.files.disk import write_file
from graphc.files.model_file import check_executor
from graphc.ir.graph import Graph, Node
from graphc.ir.op import PLAIN, Array
from graphc.ops.linalg import AffineLayer
from graphc.ops.source import COUNTERS
from graphc.runtime.executor import Executor

_SHOWN = 6
"""The most names of a kind that an error lists."""


_LEAVES = {"gamma": "weight", "beta": "bias", "slope": "weight"}
"""PyTorch's names of roles that have other names here."""

_STATISTICS = "running_mean", "running_var"
_COUNTER = "num_batches_tracked"
"""The name of batchnorm's step counter in PyTorch, which graphc does not use."""

_Modules = Mapping[str, Mapping[str, Array]]
"""The arrays by the module's name, then by their names in it."""


class TorchState(NamedTuple):
    """The result of `load_torch_state`.

    Parameters
    ----------
    names
        The layer of each module, as the argument `names` takes it.
    missing
        The states of the net for which there was no array.
    unexpected
        The arrays that no layer takes.

    Examples
    --------
    >>> from graphc.files.torch_state import TorchState
    >>> TorchState({"0": "affine_1"}, missing=("affine_1.bias",), unexpected=()).missing
    ('affine_1.bias',)
    """

    names: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


class _Tensor(NamedTuple):
    """An array of the state, and its name in a module."""

    state: str
    leaf: str
    shape: tuple[int, ...]
    """The array's shape in PyTorch."""
    transposed: bool
    needed: bool = True
    """False for a state of your own, which may be a buffer there or not."""

    def converted(self, array: Array) -> Array:
        """Convert an array from one layout to the other."""
        return array.T if self.transposed else array


class _Layer(NamedTuple):
    """A layer, or the owner of a parameter by its name, with the arrays that its module has."""

    name: str
    tensors: tuple[_Tensor, ...]

    @property
    def has_statistics(self) -> bool:
        """True for a layer with running statistics."""
        return any(tensor.leaf in _STATISTICS for tensor in self.tensors)


def load_torch_state(
    ex: Executor,
    source: str | Path | Mapping[str, Any],
    *,
    names: Mapping[str, str] | None = None,
    strict: bool = True,
) -> TorchState:
    """Set parameters and running statistics from those of a PyTorch module, or change nothing.

    Parameters
    ----------
    ex
        The executor whose state is set.
    source
        The path of a safetensors file, or a state_dict.
    names
        The layer of each module, such as {"0": "affine_1"}.  By default, those of equal names
        (`body.one` and `body/one`), or, if there are none, those of equal positions.
    strict
        Whether every array must have a layer, and every parameter and statistic an array.  Whole
        numbers and bools, such as positions, need no layer, since they are constants of a net; nor
        does another name of a tied weight, whose numbers must be the same.

    Returns
    -------
    TorchState
        The layers by module, and what was left over.

    Raises
    ------
    GraphError
        If `ex` is not an executor.
    ModelFileError
        If the file cannot be read.
    StateError
        If names or shapes do not fit, or something is left over with `strict`.

    Examples
    --------
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> ex = gc.Executor(gc.compile(net, batch=8))
    >>> state = {"0.weight": np.ones((2, 3), np.float32), "0.bias": np.zeros(2, np.float32)}
    >>> gc.load_torch_state(ex, state).names
    {'0': 'affine_1'}
    """
    check_executor("load_torch_state", ex, "gc.load_torch_state(ex, 'weights.safetensors')")
    ordered = isinstance(source, Mapping)
    where = "the state" if isinstance(source, Mapping) else str(source)
    tensors = _given(source) if isinstance(source, Mapping) else _read(source)
    modules, layers = _modules_of(tensors, ordered), _torch_layers(ex.plan.declared)
    chosen = _pairs(modules, layers, names, ordered)
    values, used, misfits = _fitted(modules, layers, chosen)
    everything = (_full_name(m, leaf) for m, leaves in modules.items() for leaf in leaves)
    left = [name for name in everything if name not in used]
    shared = _tied(source, tensors, left, used)
    unexpected = tuple(n for n in left if n not in shared and tensors[n].dtype.kind == "f")
    wanted = (t.state for layer in layers.values() for t in layer.tensors if t.needed)
    missing = tuple(name for name in wanted if name not in values)
    if misfits or (strict and (missing or unexpected)):
        raise _misfit(where, ex.plan.declared.name, misfits, missing, unexpected, strict)
    ex.state = values
    return TorchState(chosen, missing, unexpected)


def _fitted(
    modules: _Modules, layers: Mapping[str, _Layer], chosen: Mapping[str, str]
) -> tuple[dict[str, Array], set[str], list[str]]:
    """Return the arrays by state, the names of those used, and messages for wrong shapes."""
    values: dict[str, Array] = {}
    misfits: list[str] = []
    used: set[str] = set()
    for module, layer in chosen.items():
        for tensor in layers[layer].tensors:
            array, name = modules[module].get(tensor.leaf), _full_name(module, tensor.leaf)
            if array is None:
                continue
            if array.shape != tensor.shape:
                wanted = f"{tensor.state} takes {tensor.shape}"
                misfits.append(f"{name[:60]!r} is {array.shape}, {wanted}")
            used.add(name)
            values[tensor.state] = tensor.converted(array)
    return values, used, misfits


def _tied(
    source: str | Path | Mapping[str, Any],
    tensors: Mapping[str, Array],
    others: Iterable[str],
    known: Iterable[str],
) -> dict[str, str]:
    """Return the known name of each weight that has another name, too.

    In a state_dict of PyTorch both have one storage; in others the same numbers, which differ
    among themselves.
    """
    given = source if isinstance(source, Mapping) else {}
    places = {name: _place(given.get(name)) for name in tensors}
    pairs = ((other, name) for other in others for name in known)
    return {
        other: name
        for other, name in pairs
        if tensors[other].dtype == tensors[name].dtype
        and np.array_equal(tensors[other], tensors[name])
        and _are_one(tensors[other], places[other], places[name])
    }


def _are_one(array: Array, place: object, other: object) -> bool:
    """Return whether two arrays with the same numbers are one weight."""
    if place is not None:
        return place == other
    return array.size > 0 and bool((array != array.flat[0]).any())


def _place(tensor: object) -> object:
    """Return where PyTorch keeps an array in memory; None for arrays of others."""
    return tensor.data_ptr() if hasattr(tensor, "data_ptr") else None


def save_torch_state(
    path: str | Path,
    ex: Executor,
    *,
    names: Mapping[str, str] | None = None,
    like: str | Path | Mapping[str, Any] | None = None,
) -> Path:
    """Write parameters and running statistics as a safetensors file for PyTorch.

    There, `module.load_state_dict(safetensors.torch.load_file(path))` reads it.

    Parameters
    ----------
    path
        The path of the file.
    ex
        The executor.
    names
        The layer of each module, such as {"0": "affine_1"} or the `names` that `load_torch_state`
        returned.  Other modules have the names of their layers.
    like
        The module's `state_dict()`, or the path of its safetensors file.  Then all its names are
        written: what the net lacks is copied, such as a mask, and a tied weight is written under
        each of its names.

    Returns
    -------
    Path
        The path of the file.

    Raises
    ------
    StateError
        If there is no such layer, a layer is named twice, or an array of the net has no place in
        `like`.
    ModelFileError
        If the file cannot be written, or `like` be read.

    Examples
    --------
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> ex = gc.Executor(gc.compile(net, batch=8))
    >>> path = gc.save_torch_state("weights.safetensors", ex, names={"0": "affine_1"})
    >>> gc.load_torch_state(ex, path, names={"0": "affine_1"}).missing
    ()
    """
    layers = _torch_layers(ex.plan.declared)
    _check_names(names or {}, layers)
    modules = {layer: module for module, layer in (names or {}).items()}
    state = ex.snapshot()
    tensors: dict[str, Array] = {}
    for layer in layers.values():
        module = modules.get(layer.name, _torch_name(layer.name))
        tensors |= _arrays_of(module, layer, state)
    if like is not None:
        tensors = _filled(tensors, like, ex.plan.declared.name)
    return write_file(path, pack({"format": "pt"}, tensors))


def _filled(
    own: Mapping[str, Array], like: str | Path | Mapping[str, Any], net: str
) -> dict[str, Array]:
    """Return the arrays under all names of a module; raise StateError for one without a place."""
    there = _given(like) if isinstance(like, Mapping) else _read(like)
    for name, array in own.items():
        if name not in there or there[name].shape != array.shape:
            what = f"{there[name].shape} there" if name in there else "not there"
            raise StateError(
                f"net {net!r} does not fit like=: its {name[:60]!r} {array.shape} is {what}",
                hint="give names={module: layer}; an ONNX file that was exported with "
                "optimize=False has the module's names",
            )
    others = [name for name in there if name not in own]
    tied = _tied(like, there, others, own)
    found = {
        name: own[tied.get(name, name)] if name in own or name in tied else there[name]
        for name in there
    }
    counters = [name for name in own if name.rpartition(".")[2] == _COUNTER]
    return found | {name: own[name] + there[name] for name in counters}


def _arrays_of(module: str, layer: _Layer, state: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a layer by their names in PyTorch."""
    found = {
        _full_name(module, tensor.leaf): tensor.converted(state[tensor.state])
        for tensor in layer.tensors
        if tensor.state in state
    }
    if layer.has_statistics:
        found[_full_name(module, _COUNTER)] = np.asarray(state.get("updates", 0), np.int64)
    return found


def _read(path: str | Path) -> dict[str, Array]:
    """Return the arrays of a safetensors file; raise ModelFileError for other files."""
    data = read_file(path)
    try:
        return read_tensors(data)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} holds no readable weights: {error}",
            hint="in PyTorch: safetensors.torch.save_file(module.state_dict(), path)",
        ) from None


def _given(source: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays of a state_dict, of PyTorch or of NumPy."""
    found: dict[str, Array] = {}
    for name, value in source.items():
        try:
            tensor = value.detach().cpu() if hasattr(value, "detach") else value
            array = np.asarray(tensor)
        except (TypeError, ValueError, RuntimeError) as error:
            raise StateError(
                f"{name!r} is not an array: {error}", hint="convert half precision by value.float()"
            ) from None
        if not isinstance(name, str) or array.dtype.name not in NAMES:
            raise StateError(
                f"{name!r} is {array.dtype}, not numbers under a name",
                hint="pass module.state_dict()",
            )
        found[name] = array
    return found


def _misfit(
    where: str,
    net: str,
    misfits: list[str],
    missing: Iterable[str],
    unexpected: Iterable[str],
    strict: bool,
) -> StateError:
    """Return the error for arrays that do not fit the net."""
    parts = misfits[:_SHOWN]
    if strict:
        for names, what in ((missing, "nothing for"), (unexpected, "no layer for")):
            listed = [repr(name[:60]) for name in names]
            if listed:
                more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
                parts.append(f"{what} {', '.join(listed[:_SHOWN])}{more}")
    return StateError(
        f"{where} does not fit net {net!r}: {'; '.join(parts)}",
        hint="assign modules to layers: names={module: layer}"
        + ("; strict=False takes what fits" if strict and not misfits else "")
        + "; nothing was changed",
    )


def _modules_of(tensors: Mapping[str, Array], ordered: bool) -> dict[str, dict[str, Array]]:
    """Return the arrays by module, in the given order or, unless `ordered`, by their numbers."""
    found: dict[str, dict[str, Array]] = {}
    for name in tensors if ordered else sorted(tensors, key=_by_number):
        module, _, leaf = name.rpartition(".")
        if leaf != _COUNTER:
            found.setdefault(module, {})[leaf] = tensors[name]
    return found


def _by_number(name: str) -> list[tuple[int, str]]:
    parts = name.split(".")
    return [(int(p), "") if p.isdecimal() and len(p) < 10 else (-1, p) for p in parts]


def _pairs(
    modules: _Modules, layers: Mapping[str, _Layer], names: Mapping[str, str] | None, ordered: bool
) -> dict[str, str]:
    """Return the layer of each module: by given names, by equal names, or else in order.

    Raise StateError if given names do not exist, or if the order cannot be known.
    """
    if names is not None:
        _check_names(names, layers, modules)
    chosen = dict(names or {})
    equal = {_torch_name(layer): layer for layer in layers}
    found = chosen | {m: equal[m] for m in modules if m in equal and m not in chosen}
    if found or not modules:
        return found
    if not ordered and len({re.sub(r"\d+", "#", module) for module in modules}) > 1:
        first = next(iter(layers), "affine_1")
        raise StateError(
            f"it is not known which of the modules {_listed(modules)} is which "
            "layer: a file does not record their order",
            hint=f"say so: names={{{next(iter(modules))!r}: {first!r}, ...}}; the net has "
            + _listed(layers),
        )
    return dict(zip(modules, layers, strict=False))


def _torch_name(layer: str) -> str:
    """Return the PyTorch name of a layer: `body/one` is `body.one` there."""
    return layer.replace("/", ".")


def _check_names(
    names: Mapping[str, str], layers: Mapping[str, _Layer], modules: _Modules | None = None
) -> None:
    """Raise StateError for a layer or a module that does not exist, or a layer named twice."""
    for module, layer in names.items():
        if modules is not None and module not in modules:
            what, known = f"module {module!r} in the weights", _listed(modules)
        elif layer not in layers:
            what, known = f"layer {layer!r} with parameters in the net", _listed(layers)
        else:
            continue
        raise StateError(
            f"names: there is no {what}", hint=f"there are {known}; names={{module: layer}}"
        )
    twice = [layer for layer in names.values() if list(names.values()).count(layer) > 1]
    if twice:
        raise StateError(
            f"names: layer {twice[0]!r} appears twice", hint="each module must have its own layer"
        )


def _listed(names: Iterable[str], most: int = 8) -> str:
    return first_of([repr(name[:60]) for name in names], most)


def _torch_layers(graph: Graph) -> dict[str, _Layer]:
    """Return the owners of arrays in declared order, by the names of their layers.

    A name that graphc made up is that of a layer and a role.  Others are PyTorch's own.
    """
    owners: dict[str, list[_Tensor]] = {}
    owned: set[str] = set()
    trained: set[str] = set()
    for node in graph:
        for role, name in zip(node.op.roles, node.inputs, strict=False) if node.op.is_layer else ():
            if name in owned or not _is_own(graph[name]):
                continue
            owned.add(name)
            owner, leaf = node.name, _LEAVES.get(role, role)
            if name != f"{owner}.{role}":
                owner, _, leaf = name.rpartition(".")
            if graph[name].op.is_parameter or owner != node.name:
                trained.add(owner)
            flipped = isinstance(node.op, AffineLayer) and role == "weight"
            owners.setdefault(owner, []).append(_tensor(graph[name], leaf, flipped))
    for node in graph:
        if _is_own(node) and node.name not in owned:
            owner, _, leaf = node.name.rpartition(".")
            trained.add(owner)
            owners.setdefault(owner, []).append(_tensor(node, leaf, False))
    return {name: _Layer(name, tuple(owners[name])) for name in owners if name in trained}


def _is_own(node: Node) -> bool:
    """Return whether a node is a parameter or a state that a module may have, too."""
    is_state = node.op.is_state and node.op.role == PLAIN and node.name not in COUNTERS
    return node.op.is_parameter or is_state


def _tensor(node: Node, leaf: str, transposed: bool) -> _Tensor:
    shape = tuple(dim for dim in node.type.shape if isinstance(dim, int))
    needed = node.op.is_parameter or leaf in _STATISTICS
    return _Tensor(node.name, leaf, shape[::-1] if transposed else shape, transposed, needed)


def _full_name(module: str, leaf: str) -> str:
    """Return the name of a module's array in a state_dict."""
    return f"{module}.{leaf}" if module else leaf
