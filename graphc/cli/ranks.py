"""The options and error handling shared by commands that run on several ranks."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graphc.base.errors import GraphError
from graphc.cli.arguments import positive
from graphc.cli.model import UsersError
from graphc.runtime.distributed.communicator import LIMIT, Communicator

DETERMINISTIC = 4
"""The number of shards of a batch for the same bits on any number of ranks."""
LATER = 1.0
"""The seconds after which another rank than the first reports an error.

If it is an error of all ranks, rank 0 has reported it by then, and ended them.
"""


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the options --deterministic, --shards, --sync-batchnorm and --timeout."""
    add = parser.add_argument
    add(
        "--deterministic",
        action="store_true",
        help=f"the same bits on 1, 2 or {DETERMINISTIC} ranks: --shards {DETERMINISTIC}",
    )
    add("--shards", type=positive, metavar="S", help="as --deterministic, with this many shards")
    add(
        "--sync-batchnorm",
        action="store_true",
        help="batch normalisation by statistics of the whole batch (default: of each shard)",
    )
    add(
        "--timeout",
        type=positive,
        default=int(LIMIT),
        metavar="SECONDS",
        help=f"after this time a rank that does not answer counts as failed (default: {LIMIT:g})",
    )


@contextmanager
def told_once(ranks: Communicator) -> Iterator[None]:
    """Name the rank of an error; leave errors of all ranks to the first."""
    try:
        yield
    except (GraphError, UsersError):
        if ranks.rank:
            time.sleep(LATER)
            print(f"rank {ranks.rank}: ", end="", file=sys.stderr)
        raise


@contextmanager
def beginning(ranks: Communicator) -> Iterator[None]:
    """End ranks that cannot begin with status 2, as after wrong usage: a restart would not help."""
    try:
        yield
    except (GraphError, UsersError) as error:
        if ranks.size == 1:
            raise
        if ranks.rank:
            time.sleep(LATER)
        print(f"error: {error}" if isinstance(error, GraphError) else error, file=sys.stderr)
        raise SystemExit(2) from None
