"""Random nets and those of the zoo in C, under the sanitizers, against native code.

    python -m tests.backends.c.sanitized --zoo --first 0 --count 500

exports each net, compiles it by gcc and by clang with all warnings as errors, trains it for 20
steps under the sanitizers for addresses and undefined behaviour, and compares all bits of the state.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import graphc as gc
from tests.backends.c.trained import SANITIZED, Target, Trained, executor_of, trained, unlike
from tests.onnx import zoo
from tests.random_nets.draw import draw
from tests.random_nets.runs import executor, plan_of

STEPS = 20
Model = tuple[str, gc.Executor, list[dict[str, Any]], int]


def random_model(seed: int, contract: str) -> Model:
    """A random net with its batches; GraphError if it cannot be trained."""
    case = draw(seed)
    optimizer = case.optimizer or gc.Adam(lr=0.001)
    plan = plan_of(case, optimizer=optimizer, backend="native", threads=1, contract=contract)
    batches = [case.feeds(case.batch, turn) for turn in range(STEPS)]
    return f"random {seed}", executor(case, plan), batches, case.batch


def zoo_model(name: str, contract: str) -> Model:
    """A net of the zoo with its batches."""
    batches = [zoo.batch(name, 2, seed) for seed in range(STEPS)]
    return name, executor_of(zoo.declared_net(name), 2, contract=contract), batches, 2


def verdict(model: Model, targets: list[Target]) -> str:
    """What became of a model: "equal", or what is wrong."""
    _, ex, batches, rows = model
    with TemporaryDirectory() as folder:
        source = Trained(ex, Path(folder), batches, rows)
        expected = trained(ex, batches)
        for target in targets:
            try:
                found = source.state(target)
            except AssertionError as error:
                return f"{target.compiler}: {error}"
            names = unlike(expected, found)
            if names:
                return f"{target.compiler} differs in {', '.join(names[:5])}"
    return "equal"


def models(args: argparse.Namespace) -> Iterator[Model | str]:
    """The models that are asked for, or why one cannot be made."""
    makers = [lambda c, n=name: zoo_model(n, c) for name in zoo.NAMES] if args.zoo else []
    last = args.first + args.count
    makers += [lambda c, s=seed: random_model(s, c) for seed in range(args.first, last)]
    for make in makers:
        for contract in args.contracts:
            try:
                yield make(contract)
            except gc.GraphError as error:
                yield f"cannot train: {str(error).splitlines()[0]}"


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
    targets = [SANITIZED[name] for name in args.compilers]
    found: Counter[str] = Counter()
    for model in models(args):
        if isinstance(model, str):
            found[model] += 1
            continue
        try:
            said = verdict(model, targets)
        except gc.GraphError as error:
            said = f"refused: {str(error).splitlines()[0]}"
        found[said.split(":")[0] if "differs" in said else said] += 1
        if said != "equal":
            print(f"{model[0]}, {model[1].plan.options.contract}: {said}", flush=True)
    print(*(f"{count} {said}" for said, count in found.most_common()), sep="\n")
    return int(any("gcc" in said or "clang" in said for said in found))


if __name__ == "__main__":
    sys.exit(main())
