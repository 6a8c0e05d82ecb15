"""The output of `graphc plan --bandwidth`: the predicted step time on many ranks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from graphc.base.errors import GraphError
from graphc.cli.check import random_feeds
from graphc.cli.output import print_json
from graphc.compiler.compile import compile
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph
from graphc.ir.plan import Plan
from graphc.runtime.distributed.predict import Network, Prediction, counts, predict

_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_PARTS = {"": 1.0, "m": 1e3, "u": 1e6, "n": 1e9}


def bandwidth(text: str) -> float:
    """Return the bytes per second of 10Gb/s or 1.2GB/s: b is bits, B is bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMG]?)(b|B)/s", text.strip())
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a bandwidth; examples are 10Gb/s and 1.2GB/s"
        )
    return float(match[1]) * _MULTIPLES[match[2]] / (8 if match[3] == "b" else 1)


def latency(text: str) -> float:
    """Return the seconds of 20us or 1.5ms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mun]?)s", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; examples are 20us and 1.5ms")
    return float(match[1]) / _PARTS[match[2]]


def scaling(graph: Graph, optimizer: Optimizer | None, args: argparse.Namespace) -> int:
    """Measure, predict and print."""
    if optimizer is None:
        raise GraphError("ranks train, so there must be an optimizer", hint="--optimizer momentum")
    if args.ranks > args.batch:
        raise GraphError(
            f"{args.batch} rows are too few for {args.ranks} ranks",
            hint="--batch is the rows of a step, of all ranks together",
        )

    def make(ranks: int) -> Plan:
        return compile(
            graph,
            batch=args.batch,
            optimizer=optimizer,
            backend=args.backend,
            threads=args.threads,
            ranks=ranks,
        )

    network = Network(args.bandwidth, args.latency)
    alone = make(1)
    types = {name: alone.declared[name].type.dtype for name in alone.input_names}
    feeds = {k: a.astype(types[k]) for k, a in random_feeds(alone, args.batch).items()}
    found = predict(make, feeds, network, counts(args.ranks))
    if args.json:
        print_json(_data(graph.name, args.batch, network, found))
    else:
        print(_table(graph.name, args.batch, network, found))
    return 0


def _data(
    name: str, batch: int, network: Network, found: Mapping[str, Sequence[Prediction]]
) -> dict[str, Any]:
    """Return the predictions as data for programs, in seconds and bytes."""
    rows = {way: [{**asdict(p), "hidden": p.hidden} for p in some] for way, some in found.items()}
    return {"net": name, "batch": batch, "network": asdict(network), **rows}


def _table(
    name: str, batch: int, network: Network, found: Mapping[str, Sequence[Prediction]]
) -> str:
    rate = f"{network.bandwidth * 8e-9:g} Gb/s and {network.latency * 1e6:g} us"
    lines = [
        f"a step of {name!r}, {batch} rows over all ranks, on a network of {rate}; work measured",
        "here, times in ms; blocking: with nothing hidden, as on one machine",
    ]
    for way, rows in found.items():
        lines += [
            "",
            f"{way:<6}{'rows':>7}{'work':>10}{'exchange':>10}{'hidden':>8}{'step':>10}"
            f"{'blocking':>10}{'faster':>8}{'efficiency':>12}",
        ]
        lines += [_line(row, rows[0].step) for row in rows]
    return "\n".join(lines)


def _line(row: Prediction, alone: float) -> str:
    faster = alone / row.step
    times = [f"{1e3 * value:>10.3f}" for value in (row.work, row.exchange)]
    later = [f"{1e3 * value:>10.3f}" for value in (row.step, row.blocking)]
    return (
        f"{row.ranks:<6}{row.rows:>7}{''.join(times)}{row.hidden:>8.0%}{''.join(later)}"
        f"{faster:>8.2f}{faster / row.ranks:>12.0%}"
    )
