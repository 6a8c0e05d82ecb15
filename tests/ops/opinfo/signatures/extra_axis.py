"""PyTorch takes what has an axis less than graphc declares: it is given one, and loses it again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import graphc as gc
from tests.ops.opinfo.refused import refuse

Value = gc.Value


def without_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numbers without axes as vectors of one."""

    @wraps(function)
    def wrapped(x: Value, *args: Any, **more: Any) -> Any:
        if x.type.rank:
            return function(x, *args, **more)
        given = [_vector(arg) for arg in args]
        named = {key: _vector(arg) for key, arg in more.items()}
        found = function(_vector(x), *given, **named)
        if isinstance(found, Value):
            return _number(found)
        return tuple(_number(value) for value in found)

    return wrapped


def _vector(given: Any) -> Any:
    alone = isinstance(given, Value) and not given.type.rank
    return gc.reshape(given, (1,)) if alone else given


def _number(value: Value) -> Value:
    return gc.reshape(value, ())


def without_batch(rank: int) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """One image of rank - 1 as a batch of one."""

    def decorator(function: Callable[..., Value]) -> Callable[..., Value]:
        @wraps(function)
        def wrapped(x: Value, *args: Any, **more: Any) -> Value:
            if x.type.rank == rank:
                return function(x, *args, **more)
            refuse(f"x has rank {x.type.rank}", x.type.rank != rank - 1)
            return gc.squeeze(function(gc.unsqueeze(x, 0), *args, **more), 0)

        return wrapped

    return decorator
