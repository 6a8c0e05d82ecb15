"""Random nets and those of the zoo in C, under the sanitizers, against native code.

    python -m tests.backends.c.sanitized --zoo --first 0 --count 500

exports each net, compiles it by gcc and by clang with all warnings as errors, trains it for 20
steps under the sanitizers of addresses and of undefined behaviour, and compares all bits.
Of a net with outputs that have no form in C only the losses are exported.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import graphc as gc
from tests.backends.c.trained import SANITIZED, Target, Trained, executor_of, trained, unlike
from tests.onnx import zoo
from tests.tools.fuzz import draw as fuzz
from tests.tools.generate import random_feeds
from tests.tools.random_nets.draw import draw
from tests.tools.random_nets.runs import executor, plan_of

STEPS = 20
ROWS = 3


class Model(NamedTuple):
    """An executor with a batch for each step."""

    ex: gc.Executor
    batches: list[dict[str, Any]]
    rows: int


def zoo_model(name: str, contract: str, outputs: Sequence[str] | None) -> Model:
    """A net of the zoo."""
    net = zoo.declared_net(name)
    ex = executor_of(net, ROWS, contract=contract, outputs=outputs)
    return Model(ex, [zoo.batch(name, ROWS, seed) for seed in range(STEPS)], ROWS)


def random_model(seed: int, contract: str, outputs: Sequence[str] | None) -> Model:
    """A random net of layers and functions; GraphError if it cannot be trained."""
    case = draw(seed)
    optimizer = replace(case.optimizer or gc.Adam(lr=0.001), accumulate=1)
    options = {"backend": "native", "threads": 1, "contract": contract, "outputs": outputs}
    plan = plan_of(case, optimizer=optimizer, **options)
    batches = [case.feeds(case.batch, turn) for turn in range(STEPS)]
    return Model(executor(case, plan), batches, case.batch)


def fuzz_model(seed: int, contract: str, outputs: Sequence[str] | None) -> Model:
    """A random graph of ops; GraphError if it cannot be trained."""
    case = fuzz.draw(seed)
    optimizer = replace(case.optimizer or gc.SGD(lr=0.01, momentum=0.9), accumulate=1)
    options = {"backend": "native", "threads": 1, "contract": contract, "outputs": outputs}
    plan = gc.compile(case.graph, batch=ROWS, optimizer=optimizer, **options)
    batches = [random_feeds(case.graph, ROWS, seed) for seed in range(STEPS)]
    return Model(gc.Executor(plan, seed=seed), batches, ROWS)


def compared(model: Model, targets: list[Target]) -> str:
    """What became of a model: "equal", or what is wrong."""
    with TemporaryDirectory() as folder:
        source = Trained(model.ex, Path(folder), model.batches, model.rows)
        expected = trained(model.ex, model.batches)
        for target in targets:
            try:
                found = source.state(target)
            except AssertionError as error:
                return f"{target.compiler} fails: {error}"
            names = unlike(expected, found)
            if names:
                return f"{target.compiler} differs: {', '.join(names[:5])}"
    return "equal"


def verdict(make: Callable[..., Model], contract: str, targets: list[Target]) -> str:
    """What became of a model, or of its losses alone, or why there is none in C."""
    try:
        return compared(make(contract, None), targets)
    except gc.GraphError:
        try:
            return compared(make(contract, []), targets)
        except gc.GraphError as error:
            return f"refused: {str(error).splitlines()[0]}"


def main() -> int:
    """Print what is not equal, and how many are."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", action="store_true")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--contracts", nargs="*", default=["fused", "unfused"])
    parser.add_argument("--compilers", nargs="*", default=list(SANITIZED))
    args = parser.parse_args()
    makers = {name: partial(zoo_model, name) for name in zoo.NAMES if args.zoo}
    for seed in range(args.first, args.first + args.count):
        makers[f"net {seed}"] = partial(random_model, seed)
        makers[f"graph {seed}"] = partial(fuzz_model, seed)
    found: Counter[str] = Counter()
    for name, make in makers.items():
        for contract in args.contracts:
            said = verdict(make, contract, [SANITIZED[cc] for cc in args.compilers])
            found[said if said.startswith("refused") else said.split(":")[0]] += 1
            if said != "equal" and not said.startswith("refused"):
                print(f"{name}, {contract}: {said}", flush=True)
    print(*(f"{count} {said}" for said, count in found.most_common()), sep="\n")
    return int(any(said.endswith(("fails", "differs")) for said in found))


if __name__ == "__main__":
    sys.exit(main())
