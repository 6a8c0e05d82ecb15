"""Random valid nets of every op and layer, and arrays to run them with."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

import graphc as gc
from graphc.declare.selection import select_wrt
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import shape_at
from graphc.ops.source import Input, Parameter, State
from graphc.runtime.reference import initial_state
from tests.tools.generate.growth import CLASSES, WIDTHS, Growth
from tests.tools.generate.roots import finish
from tests.tools.generate.steps import grow

if TYPE_CHECKING:
    from hypothesis import strategies as st

__all__ = [
    "CLASSES",
    "WIDTHS",
    "nets",
    "random_feeds",
    "random_net",
    "random_state",
    "trainable",
    "trainable_net",
]

MOST_STEPS = 12


def nets(dtype: str = "float64", without: Collection[str] = ()) -> st.SearchStrategy[gc.Net]:
    """A strategy of nets, reproduced and made smaller by hypothesis.

    None has parts of another float dtype, so that rounding is that of `dtype`, or a loss that no
    gradient leads from.
    """
    from hypothesis import strategies as st

    randoms = st.randoms(use_true_random=False)
    made = randoms.map(lambda r: random_net(r, dtype, without=("other_dtype", *without)))
    return made.filter(trainable)


def random_net(
    r: random.Random,
    dtype: str = "float64",
    *,
    widths: tuple[int, ...] = WIDTHS,
    most: int = MOST_STEPS,
    without: Collection[str] = (),
    once: str = "",
) -> gc.Net:
    """A net of one to three inputs and up to `most` steps, each a layer or a few ops.

    It has an output `scores` (N, CLASSES), labels `y` and a loss of them, and perhaps more of
    each.  `without` names steps that are left out (see tests/tools/generate/steps.py), `once` one
    that is taken for certain.
    """
    g = Growth(r, dtype, widths)
    grow(g, r.randint(1, most), without, once)
    finish(g)
    return g.net


def trainable_net(seed: int, dtype: str = "float64") -> gc.Net:
    """The first random net from that seed on whose losses can all be minimised."""
    while not trainable(net := random_net(random.Random(seed), dtype)):
        seed += 1_000_000
    return net


def trainable(net: gc.Net) -> bool:
    """Whether a gradient leads from each loss to a parameter; `compile` refuses other nets."""
    try:
        select_wrt(net.graph(), None)
    except gc.GraphError as error:
        assert "depends on no parameter" in str(error), error
        return False
    return True


def random_feeds(graph: Graph, n: int, seed: int = 0) -> dict[str, Any]:
    """An array for each input of the graph.

    Normal numbers; labels below CLASSES, the first of them 0; and numbers from 0.5 to 2 for what
    is named `weight`, some of them 0.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for node in graph:
        if isinstance(node.op, Input):
            shape = shape_at(node.type.shape, n)
            if not node.type.is_float:
                numbers = rng.integers(0, CLASSES, shape)
                numbers.reshape(-1)[:1] = 0  # so that not all labels are the one that is ignored
                feeds[node.name] = np.asarray(numbers, node.type.dtype)
            elif node.name.startswith("weight"):
                weights = rng.uniform(0.5, 2.0, shape)
                weights[1:] *= rng.random(weights[1:].shape) > 0.2
                feeds[node.name] = weights.astype(node.type.dtype)
            else:
                feeds[node.name] = np.asarray(rng.standard_normal(shape), node.type.dtype)
    return feeds


def random_state(graph: Graph, seed: int = 0) -> dict[str, Any]:
    """Initial values, with noise so that no bias is 0 and no running mean like another."""
    rng = np.random.default_rng(seed)
    state = dict(initial_state(graph, seed))
    for node in graph:
        if isinstance(node.op, (Parameter, State)) and node.type.is_float:
            noise = 0.1 * rng.random(state[node.name].shape)
            state[node.name] = np.asarray(state[node.name] + noise, node.type.dtype)
    state.update({name: np.int64(3) for name in ("draws", "updates") if name in state})
    return state
