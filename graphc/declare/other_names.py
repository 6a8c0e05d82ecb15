"""Other libraries' names of graphc's functions, for the error about a name that graphc lacks."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_ELSEWHERE = {
    "dense": "affine",
    "linear": "affine",
    "batchnormalization": "batchnorm",
    "batchnorm1d": "batchnorm",
    "batchnorm2d": "batchnorm",
    "layernormalization": "layernorm",
    "maxpool1d": "max_pool",
    "maxpool2d": "max_pool",
    "maxpooling2d": "max_pool",
    "avgpool2d": "avg_pool",
    "averagepooling2d": "avg_pool",
    "globalaveragepooling2d": "global_avg_pool",
    "multiheadattention": "multi_head_attention",
    "crossentropyloss": "softmax_loss",
    "crossentropy": "softmax_loss",
    "sparsecategoricalcrossentropy": "softmax_loss",
    "bcewithlogitsloss": "sigmoid_loss",
    "binarycrossentropy": "sigmoid_loss",
    "l1loss": "mae_loss",
    "concatenate": "concat",
    "cat": "concat",
    "sequential": "Net",
    "model": "Net",
    "module": "Net",
    "dataloader": "fit",
    "train": "fit",
}
"""From other libraries' names, in small letters without `_`, to graphc's."""


def no_attribute(name: str, known: Iterable[str]) -> AttributeError:
    """Return the error for a name that graphc lacks, with the name that is meant if it is known."""
    small = {one.replace("_", "").lower(): one for one in known}
    plain = name.replace("_", "").lower()
    meant = small.get(plain) or _ELSEWHERE.get(plain)
    if meant is None:
        close = get_close_matches(plain, small, n=1, cutoff=0.75)
        meant = small[close[0]] if close else None
    hint = "" if meant is None else f"; you may mean gc.{meant}"
    if plain == "input":
        hint = "; inputs belong to a net: net.input(name, shape)"
    return AttributeError(f"module 'graphc' has no attribute {name!r}{hint}", name=name)
