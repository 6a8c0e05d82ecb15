"""Hints on how to fix an array that does not fit its input."""

from __future__ import annotations

from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType, shape_text

_FREE = "the batch dimension N is free, all others are as declared"


def dtype_hint(name: str, type: TensorType, label: bool, array: Array) -> str:
    """Return the hint for an array of a wrong dtype; a `label` is the number of a class."""
    cast = f"{name}.astype({type.dtype!r})"
    if array.dtype.kind == "U" and array.ndim == 0:
        return "feed the array, not its path: np.load(path)"
    if array.dtype.kind in "US" and not type.is_float:
        return f"turn words into numbers: np.unique({name}, return_inverse=True)[1]"
    if array.dtype.kind == "f" and label:
        return (
            _one_hot(name) if array.ndim == type.rank + 1 else f"labels are class numbers: {cast}"
        )
    return f"convert it: {cast}"


def shape_hint(name: str, type: TensorType, label: bool, shape: tuple[int, ...]) -> str:
    """Return the hint for an array of a wrong shape."""
    if not type.batched and type.rank and shape[1:] == type.shape:
        dims = ", ".join(map(str, type.shape))
        return f"the batch is a dimension, too: net.input({name!r}, (gc.N, {dims}))"
    if not type.batched:
        return f"the shape is fixed: {shape_text(type.shape)}"
    if not isinstance(type.shape[0], Batch):
        return _FREE
    if len(shape) == type.rank - 1:
        return "one sample needs its batch axis: x[None]"
    if len(shape) == type.rank > 2 and (shape[-1], *shape[1:-1]) == type.shape[1:]:
        return f"channels come first: np.moveaxis({name}, -1, 1)"
    if len(shape) == type.rank + 1 and shape[-1] == 1 and shape[1:-1] == type.shape[1:]:
        return f"the last axis, of size 1, is one too many: {name}[..., 0]"
    if len(shape) == type.rank + 1 and label:
        return _one_hot(name)
    if len(shape) > type.rank:
        return "reshape the array, or declare the input with its real shape"
    return _FREE


def _one_hot(name: str) -> str:
    return f"labels are class numbers: for one-hot rows {name}.argmax(axis=-1)"
