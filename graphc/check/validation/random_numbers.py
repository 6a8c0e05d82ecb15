"""Compares random numbers with the published rule of their generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from graphc.check.validation.run import value_of
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ops.random_numbers import RandomNormal, RandomNumbers

SAMPLES = 12
"""The random elements of a node that are compared with the published rule."""


def wrong_draw(graph: Graph, values: Mapping[str, Array], rows: int) -> tuple[Node, str] | None:
    """Return a random node whose reference differs from the published rule, and how."""
    for node in graph:
        if node.op.is_random and all(name in values for name in node.inputs):
            ins = [values[name] for name in node.inputs]
            text = _unlike(node, value_of(node, ins, rows, True), [int(key) for key in ins])
            if text:
                return node, f"{node.name!r} {text}"
    return None


def _unlike(node: Node, drawn: Array, keys: Sequence[int]) -> str:
    """Return how random numbers differ from those of Philox4x32-10; empty if they do not.

    `keys` are the seed, the number of the draw and, in a shard, the index of its first row.
    """
    op: Any = node.op
    seed, draws, first = (*keys, 0)[:3]
    flat = drawn.reshape(len(drawn), -1) if drawn.ndim else drawn.reshape(1, 1)
    rng = generator(0, f"mask:{node.name}")
    for at in rng.integers(0, flat.size, SAMPLES if flat.size else 0):
        row, column = divmod(int(at), flat.shape[1])
        place = first + row, column
        if isinstance(op, RandomNumbers):
            place = 0, place[0] * flat.shape[1] + column
        counter = [16 * (place[1] // 64) + place[1] % 16, place[0], draws, op.stream]
        word, number = philox(counter, seed)[place[1] % 64 // 16], flat[row, column]
        if rule := _unlike_word(op, float(number), word):
            return f"is {number!s} at [{row}, {column}] in draw {draws}, {rule}"
    return ""


def _unlike_word(op: Any, number: float, word: int) -> str:
    """Return what an element should be by its word; empty if it is that."""
    if isinstance(op, RandomNumbers):
        normal = isinstance(op, RandomNormal)
        wanted = NormalDist().inv_cdf((word + 0.5) / 2**32) if normal else (word >> 8) / 2**24
        right = abs(number - wanted) <= 1e-5 * abs(wanted)
        return "" if right else f"Philox4x32-10 gives {wanted:.6g}"
    kept = word * 2.0**-32 < op.keep_prob
    return "" if kept == bool(number) else f"Philox4x32-10 {'keeps' if kept else 'drops'} it"


def philox(counter: Sequence[int], seed: int) -> list[int]:
    """Return the four words of Philox4x32-10 in whole numbers of Python (Salmon et al., SC11)."""
    x, k, low = [c % 2**32 for c in counter], [seed % 2**32, seed >> 32], 2**32 - 1
    for _ in range(10):
        a, b = x[0] * 0xD2511F53, x[2] * 0xCD9E8D57
        x = [b >> 32 ^ x[1] ^ k[0], b & low, a >> 32 ^ x[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return x
