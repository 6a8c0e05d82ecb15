"""The assignment of a PyTorch state's modules to the layers of a net."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from graphc.base.errors import StateError
from graphc.base.loc import caller_loc
from graphc.files.torch_layers import COUNTER, TorchLayer
from graphc.ir.op import Array

Modules = Mapping[str, Mapping[str, Array]]
"""The arrays by the module's name, then by their names in it."""


def modules_of(tensors: Mapping[str, Array], ordered: bool) -> dict[str, dict[str, Array]]:
    """Return the arrays by module, in the given order or, unless `ordered`, by their numbers."""
    found: dict[str, dict[str, Array]] = {}
    for name in tensors if ordered else sorted(tensors, key=_by_number):
        module, _, leaf = name.rpartition(".")
        if leaf != COUNTER:
            found.setdefault(module, {})[leaf] = tensors[name]
    return found


def _by_number(name: str) -> list[tuple[int, str]]:
    parts = name.split(".")
    return [(int(p), "") if p.isdecimal() and len(p) < 10 else (-1, p) for p in parts]


def pairs(
    modules: Modules,
    layers: Mapping[str, TorchLayer],
    names: Mapping[str, str] | None,
    ordered: bool,
) -> dict[str, str]:
    """Return the layer of each module: by given names, by equal names, or else in order.

    Raise StateError if given names do not exist, or if the order cannot be known.
    """
    if names is not None:
        _check_names(names, modules, layers)
    told = dict(names or {})
    equal = {torch_name(layer): layer for layer in layers}
    found = told | {m: equal[m] for m in modules if m in equal and m not in told}
    if found or not modules:
        return found
    if not ordered and len({re.sub(r"\d+", "#", module) for module in modules}) > 1:
        first = next(iter(layers), "affine_1")
        raise StateError(
            f"it is not known which of the modules {_listed(modules)} is which "
            "layer: a file does not record their order",
            loc=caller_loc(),
            hint=f"say so: names={{{next(iter(modules))!r}: {first!r}, ...}}; the net has "
            + _listed(layers),
        )
    return dict(zip(modules, layers, strict=False))


def torch_name(layer: str) -> str:
    """Return the module name for a layer: a block's slash is a point there."""
    return layer.replace("/", ".")


def _check_names(
    names: Mapping[str, str], modules: Modules, layers: Mapping[str, TorchLayer]
) -> None:
    for module, layer in names.items():
        if module not in modules:
            what, known = f"module {module!r} in the weights", _listed(modules)
        elif layer not in layers:
            what, known = f"layer {layer!r} with parameters in the net", _listed(layers)
        else:
            continue
        raise StateError(
            f"names: there is no {what}",
            loc=caller_loc(),
            hint=f"there are {known}; names={{module: layer}}",
        )
    twice = [layer for layer in names.values() if list(names.values()).count(layer) > 1]
    if twice:
        raise StateError(
            f"names: layer {twice[0]!r} appears twice",
            loc=caller_loc(),
            hint="each module must have its own layer",
        )


def _listed(names: Iterable[str], most: int = 8) -> str:
    known = [repr(name[:60]) for name in names]
    return ", ".join(known[:most]) + (", ..." if len(known) > most else "")
