"""The SHA-256 of the parameters of the zoo's nets after some steps, on every target.

    python -m tests.reproducibility.digests --steps 200 --nets autoencoder lenet

prints a line for each net and target, and ends with status 1 if two digests of a net differ.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from graphc.base.errors import GraphError
from tests.backends.c.trained import TARGETS, Trained, digest, executor_of, trained
from tests.extras import missing
from tests.onnx import zoo

ROWS = 2
NATIVE = {
    f"native, {bits} bits, {threads} thread{'s' * (threads > 1)}": (bits, threads)
    for bits in (512, 256, 128)
    for threads in (1, 2)
}
"""Widths of vectors, as GRAPHC_VECTOR_BITS sets them, and numbers of threads."""


class Runs:
    """The runs of one net with all targets, over the same batches."""

    def __init__(self, name: str, steps: int, contract: str) -> None:
        self.name, self.contract = name, contract
        self.batches = [zoo.batch(name, ROWS, seed) for seed in range(steps)]

    def native(self, bits: int, threads: int) -> str:
        """The digest of native code."""
        os.environ["GRAPHC_VECTOR_BITS"] = str(bits)
        net = zoo.declared_net(self.name)
        ex = executor_of(net, ROWS, contract=self.contract, threads=threads)
        found = digest(ex, trained(ex, self.batches))
        del os.environ["GRAPHC_VECTOR_BITS"]
        return found

    def compiled(self, target: str) -> str:
        """The digest of a C program."""
        ex = executor_of(zoo.declared_net(self.name), ROWS, contract=self.contract)
        with TemporaryDirectory() as folder:
            state = Trained(ex, Path(folder), self.batches, ROWS).state(TARGETS[target])
        return digest(ex, state)

    def all(self, targets: list[str]) -> Iterator[tuple[str, Callable[[], str]]]:
        """The targets that are there, and what gives their digest."""
        for name, (bits, threads) in NATIVE.items():
            if not targets or name in targets:
                yield name, lambda b=bits, t=threads: self.native(b, t)  # type: ignore[misc]
        for name, target in TARGETS.items():
            if not targets or name in targets:
                why = next(filter(None, map(missing, target.programs)), None)
                if why is not None:
                    print(f"{self.name} | {name} | {why}", flush=True)
                else:
                    yield name, lambda n=name: self.compiled(n)  # type: ignore[misc]


def digests(name: str, steps: int, contract: str, targets: list[str]) -> Mapping[str, str]:
    """The digest of a net on each target, printed as soon as it is known."""
    found = {}
    for target, run in Runs(name, steps, contract).all(targets):
        start = time.perf_counter()
        try:
            found[target] = run()
        except GraphError as error:
            print(f"{name} | {target} | {str(error).splitlines()[0]}", flush=True)
            continue
        took = time.perf_counter() - start
        print(f"{name} | {target} | {found[target]} | {took:.0f} s", flush=True)
    return found


def main() -> int:
    """Print the digests that are asked for; return 1 if two of a net differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--contract", choices=("fused", "unfused"), default="fused")
    parser.add_argument("--nets", nargs="*", default=zoo.NAMES)
    parser.add_argument("--targets", nargs="*", default=[])
    args = parser.parse_args()
    found = [digests(name, args.steps, args.contract, args.targets) for name in args.nets]
    unlike = [n for n, of in zip(args.nets, found, strict=True) if len(set(of.values())) > 1]
    print(f"digests differ: {', '.join(unlike)}" if unlike else "all digests of a net are equal")
    return bool(unlike)


if __name__ == "__main__":
    sys.exit(main())
