"""Checks the passes data_parallel and hold_back: shards must send each other what they computed."""

from __future__ import annotations

import numpy as np

from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.draws import Draw
from graphc.check.validation.in_step import (
    given_in_step,
    joined_results,
    parts_of,
    share,
    values_in_step,
)
from graphc.check.validation.run import EPS, largest
from graphc.compiler.loss_share import ROWS, SUM
from graphc.compiler.memory import align
from graphc.ir.graph import Graph, Node
from graphc.ops.exchange import Receive, Send
from graphc.ops.source import Parameter


def exchange_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a gradient or loss that is not the shards' sum, or a state that is not their mean."""
    parts = parts_of(draw.rows)
    before = values_in_step(old, parts, given_in_step(old, draw, parts))
    after = values_in_step(new, parts, given_in_step(new, draw, parts))
    expected, found = joined_results(old, before), joined_results(new, after)
    sizes = dict.fromkeys(expected, 0.0)

    def total(name: str, value: str, kind: str) -> None:
        shares = [share(kind, part, draw.rows) for part in parts]
        terms = [s * values[value] for s, values in zip(shares, before, strict=True)]
        expected[name] = np.stack([np.asarray(sum(terms))] * len(parts))
        sizes[name] = sum(map(largest, map(np.asarray, terms)))

    for name, value in old.gradients.items():
        if isinstance(old[name].op, Parameter):
            total(f"gradient {name}", value, SUM)
        else:
            del expected[f"gradient {name}"]
    for name in old.losses:
        total(f"output {name}", old.outputs[name], SUM)
    for name, value in old.updates.items():
        if old[value].type.is_float:
            total(f"update {name}", value, ROWS)
    bounds = {name: 64 * EPS * (size + largest(expected[name])) for name, size in sizes.items()}
    return first_mismatch(expected, found, bounds, draw.rows, "shards add up what they find")


def bucket_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a bucket that is not awaited as it is sent, or whose values share bytes."""
    sent: dict[int, list[Node]] = {}
    for node in new:
        if isinstance(node.op, Send):
            sent.setdefault(node.op.bucket, []).append(node)
    for node in new:
        if isinstance(node.op, (Send, Receive)):
            way = new[node.inputs[0]].op if isinstance(node.op, Receive) else node.op
            if not isinstance(way, Send) or way.bucket != node.op.bucket:
                return Mismatch(
                    f"bucket {node.op.bucket}", draw.rows, "awaits another", "", node.name
                )
            if node.op.members != len(sent[way.bucket]):
                told = f"has {len(sent[way.bucket])} values, {node.op.members} are expected"
                return Mismatch(f"bucket {way.bucket}", draw.rows, told, node=node.name)
    end = 0
    for node in sorted((n for nodes in sent.values() for n in nodes), key=_offset):
        if _offset(node) < end:
            return Mismatch(
                f"send {node.name}", draw.rows, "lies in another's place", node=node.name
            )
        end = _offset(node) + align(node.type.nbytes(1))
    return None


def _offset(node: Node) -> int:
    assert isinstance(node.op, Send)
    return node.op.offset


def held_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a value that a shard before the last does not send, sends otherwise, or changes.

    If a value has no user the last shard does not send it, and then no other may.
    """
    changed = next(iter([*new.updates, *new.gradients]), None)
    if changed is not None:
        return Mismatch(f"update {changed}", draw.rows, "is made by the last shard only")
    kept = new.upstream(new.outputs.values())
    alive = old.upstream(old.roots)
    sends = [node.name for node in old if isinstance(node.op, Send) and node.name in alive]
    for name in sends:
        if name not in kept:
            return Mismatch(f"send {name}", draw.rows, "is gone", "all shards send it")
    for node in new:
        if isinstance(node.op, Send) and node.name in kept and node.name not in alive:
            return Mismatch(f"send {node.name}", draw.rows, "is sent", "nobody awaits it")
    parts = parts_of(draw.rows)
    runs = [values_in_step(g, parts, given_in_step(g, draw, parts)) for g in (old, new)]
    before, after = (
        {f"send {n}": np.stack([values[n] for values in run]) for n in sends} for run in runs
    )
    return first_mismatch(before, after, None, draw.rows, "all shards send the same way")
