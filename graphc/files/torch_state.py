"""Weights of PyTorch modules: read from safetensors files or state_dicts, and written back.

PyTorch is not needed.  A linear module's weight is (out, in) there and (in, out) here; other arrays
are laid out alike.  Nothing is set before all of it has been checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphc.base.errors import GraphError, ModelFileError, StateError
from graphc.base.loc import caller_loc
from graphc.files.container import NAMES, pack, read_whole
from graphc.files.paths import reason, shown
from graphc.files.tensor_file import read_tensors
from graphc.files.torch_layers import COUNTER, TorchLayer, full_name, torch_layers
from graphc.files.torch_modules import Modules, modules_of, pairs, torch_name
from graphc.files.writing import write_file
from graphc.ir.op import Array
from graphc.runtime.executor import Executor

SHOWN = 6
"""The most names of a kind that an error lists."""


class TorchState(NamedTuple):
    """The arrays that were loaded, and those that were not."""

    names: dict[str, str]
    """The layer by module, as `names=` takes it."""
    missing: tuple[str, ...]
    """The states of the net for which there was no array."""
    unexpected: tuple[str, ...]
    """The arrays that no layer takes."""


def load_torch_state(
    ex: Executor,
    source: str | Path | Mapping[str, Any],
    *,
    names: Mapping[str, str] | None = None,
    strict: bool = True,
) -> TorchState:
    """Set parameters and running statistics from PyTorch's: a safetensors file or a state_dict.

    Modules are assigned to layers as `names={"0": "affine_1"}` says; else by equal names, if any
    are equal (`body.one` is the layer `body/one`); else in their order, which a file contains only
    for numbered modules.  With `strict` nothing may be left over on either side.

    Raise ModelFileError for a file that cannot be read, StateError for what does not fit, shapes
    included; then nothing is changed.
    """
    if not isinstance(ex, Executor):
        raise GraphError(
            f"load_torch_state takes an executor, not {type(ex).__name__}",
            loc=caller_loc(),
            hint="gc.load_torch_state(ex, 'weights.safetensors')",
        )
    ordered = isinstance(source, Mapping)
    where = "the state" if isinstance(source, Mapping) else str(source)
    tensors = _given(source) if isinstance(source, Mapping) else _read(source)
    modules, layers = modules_of(tensors, ordered), torch_layers(ex.plan.declared)
    chosen = pairs(modules, layers, names, ordered)
    values, used, misfits = _fitted(modules, layers, chosen)
    everything = (full_name(m, leaf) for m, leaves in modules.items() for leaf in leaves)
    unexpected = tuple(name for name in everything if name not in used)
    wanted = (t.state for layer in layers.values() for t in layer.tensors)
    missing = tuple(name for name in wanted if name not in values)
    if misfits or (strict and (missing or unexpected)):
        raise _misfit(where, ex.plan.declared.name, misfits, missing, unexpected, strict)
    ex.state = values
    return TorchState(chosen, missing, unexpected)


def _fitted(
    modules: Modules, layers: Mapping[str, TorchLayer], chosen: Mapping[str, str]
) -> tuple[dict[str, Array], set[str], list[str]]:
    """Return the arrays by state, the names of those used, and messages for wrong shapes."""
    values: dict[str, Array] = {}
    misfits: list[str] = []
    used: set[str] = set()
    for module, layer in chosen.items():
        for tensor in layers[layer].tensors:
            array, name = modules[module].get(tensor.leaf), full_name(module, tensor.leaf)
            if array is None:
                continue
            if array.shape != tensor.shape:
                wanted = f"{tensor.state} takes {tensor.shape}"
                misfits.append(f"{name[:60]!r} is {array.shape}, {wanted}")
            used.add(name)
            values[tensor.state] = tensor.turned(array)
    return values, used, misfits


def save_torch_state(
    path: str | Path, ex: Executor, *, names: Mapping[str, str] | None = None
) -> Path:
    """Write parameters and running statistics as PyTorch's, a safetensors file, all or nothing.

    Modules are named as `names={"0": "affine_1"}` says, such as `load_torch_state` returns; others
    as their layers.  `module.load_state_dict(safetensors.torch.load_file(path))` reads it.  Raise
    StateError for a name that does not exist, ModelFileError if the file cannot be written.
    """
    layers = torch_layers(ex.plan.declared)
    modules = {layer: module for module, layer in (names or {}).items()}
    unknown = next((layer for layer in modules if layer not in layers), None)
    if unknown is not None or len(modules) < len(names or {}):
        raise StateError(
            f"names: there is no layer {unknown!r} with parameters in the net"
            if unknown is not None
            else "names: a layer appears twice",
            loc=caller_loc(),
            hint=f"there are {', '.join(map(repr, list(layers)[:SHOWN]))}; names={{module: layer}}",
        )
    state = ex.snapshot()
    tensors: dict[str, Array] = {}
    for layer in layers.values():
        module = modules.get(layer.name, torch_name(layer.name))
        tensors |= _arrays(module, layer, state)
    return write_file(path, pack({"format": "pt"}, tensors))


def _arrays(module: str, layer: TorchLayer, state: Mapping[str, Array]) -> dict[str, Array]:
    found = {
        full_name(module, tensor.leaf): tensor.turned(state[tensor.state])
        for tensor in layer.tensors
        if tensor.state in state
    }
    if layer.gathers:
        found[full_name(module, COUNTER)] = np.asarray(state.get("updates", 0), np.int64)
    return found


def _read(path: str | Path) -> dict[str, Array]:
    try:
        return read_tensors(read_whole(path))
    except OSError as error:
        raise ModelFileError(
            f"cannot read {shown(path)}: {reason(error)}", loc=caller_loc()
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} holds no readable weights: {error}",
            loc=caller_loc(),
            hint="in PyTorch: safetensors.torch.save_file(module.state_dict(), path)",
        ) from None


def _given(source: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays of a state_dict, whose tensors are PyTorch's or NumPy's."""
    found: dict[str, Array] = {}
    for name, value in source.items():
        try:
            tensor = value.detach().cpu() if hasattr(value, "detach") else value
            array = np.asarray(tensor)
        except (TypeError, ValueError, RuntimeError) as error:
            raise StateError(
                f"{name!r} is not an array: {error}",
                loc=caller_loc(),
                hint="convert half precision by value.float()",
            ) from None
        if not isinstance(name, str) or array.dtype.name not in NAMES:
            raise StateError(
                f"{name!r} is {array.dtype}, not numbers under a name",
                loc=caller_loc(),
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
    said = misfits[:SHOWN]
    if strict:
        for names, what in ((missing, "nothing for"), (unexpected, "no layer for")):
            listed = [repr(name[:60]) for name in names]
            if listed:
                more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
                said.append(f"{what} {', '.join(listed[:SHOWN])}{more}")
    return StateError(
        f"{where} does not fit net {net!r}: {'; '.join(said)}",
        loc=caller_loc(),
        hint="names={module: layer} says what belongs together"
        + ("; strict=False takes what fits" if strict and not misfits else "")
        + "; nothing was changed",
    )
