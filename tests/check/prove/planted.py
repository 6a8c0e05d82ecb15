"""Passes with planted mistakes: the source of the pass with one text replaced, run on a pattern."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.check.prove import RULES
from graphc.check.prove.rule import AnyOp, Draw, Drawing, Rule
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import N
from graphc.ops.elementwise import Sub
from graphc.ops.norm import BatchNormTrain
from graphc.ops.reduce import Mean
from graphc.ops.shape import Transpose
from passes.data_parallel import DataParallel

RULE = {rule.name: rule for rule in RULES}


@dataclass(frozen=True)
class Planted:
    """A mistake: where it is, and the rule whose pattern shows it, drawn otherwise if need be."""

    mistake: str
    module: str
    old: str
    new: str
    rule: str
    draw: Draw | None = None
    make: Callable[[ModuleType], Callable[[Graph], Graph]] | None = None

    def wrong(self) -> Rule:
        """Return the rule, applied by the pass with the mistake."""
        module = mutant(self.module, self.old, self.new)
        name = self.module.rpartition(".")[2]
        step = self.make(module) if self.make else getattr(module, name)
        right = RULE[self.rule]
        drawn = replace(right, draw=self.draw, forms=((),)) if self.draw else right
        return replace(drawn, rewrite=step)


def mutant(name: str, old: str, new: str) -> ModuleType:
    """Return a copy of a module, in which a text that occurs once is replaced."""
    original = importlib.import_module(name)
    source = Path(str(original.__file__)).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{name} has {source.count(old)} times {old!r}"
    module = ModuleType(f"planted_{name.replace('.', '_')}")
    sys.modules[module.__name__] = module
    exec(compile(source.replace(old, new), module.__name__, "exec"), module.__dict__)
    return module


def square(d: Drawing) -> Value:
    return d.input("x", N, "a") ** 2


def swapped(d: Drawing) -> Value:
    return d.apply(Transpose((0, 2, 1)), d.input("x", N, "a", "b"))


def swapped_operands(d: Drawing) -> Value:
    x, y = d.inputs("xy", N, "a")
    return d.apply(AnyOp("f"), x, y) - d.apply(AnyOp("f"), y, x)


def two_powers(d: Drawing) -> Value:
    x = d.input("x", N, "a")
    return x**2 - x**3


def with_moment(d: Drawing, exponent: float, *, other: bool) -> Value:
    """Draw a batchnorm after a value that only looks like its variance."""
    x, z = d.inputs("xz", N, "a")
    average = d.apply(Mean((0,)), z if other else x)
    d.output(d.apply(Mean((0,)), (x - average) ** exponent), "var")
    d.output(average, "mean")
    return d.apply(BatchNormTrain(0.125), x, *d.inputs("gs", "a"))


def fourth_moment(d: Drawing) -> Value:
    return with_moment(d, 4.0, other=False)


def foreign_mean(d: Drawing) -> Value:
    return with_moment(d, 2.0, other=True)


def recomputed_pair(d: Drawing) -> Value:
    x, y = d.inputs("xy", N, "a")
    h = d.apply(Sub(), x, y, name="h")
    made = d.apply(AnyOp("l"), h)
    d.builder.gradients["x"] = d.apply(AnyOp("t"), d.apply(AnyOp("s"), x), h).name
    return made


def shards(**options: Any) -> Callable[[ModuleType], Callable[[Graph], Graph]]:
    options = {"counted": (("loss", "rows"),), **options}
    return lambda module: lambda graph: DataParallel()(module.Shard(**options)(graph))


def by_vjp(module: ModuleType) -> Callable[[Graph], Graph]:
    def run(graph: Graph) -> Graph:
        b = Builder.extending(graph)
        found = module.vjp(b, {n: b.value(f"d{n}") for n in "pqr"}, ["x"])
        b.outputs["y"] = found["x"].name
        return b.graph()

    return run


FOLD, LAST, SHARE = (
    "passes.fold_constants",
    "passes.channels_last",
    "passes.share_batchnorm_statistics",
)
BATCHNORM = "passes.fold_batchnorm"
PLANTED = (
    Planted(
        "a sum is a product with twos",
        "passes.middle_axes",
        "np.ones(size, x.dtype)",
        "np.full(size, 2, x.dtype)",
        "middle_sum",
    ),
    Planted(
        "-(-x) becomes -x",
        FOLD,
        "x = _matched(part, nodes[operand], nodes)",
        "x = _matched(part, nodes[operand], nodes) and nodes[operand]",
        "neg_neg",
    ),
    Planted(
        "a reversed value becomes the value",
        FOLD,
        "all(step > 0 for *_, step in op.cuts)",
        "True",
        "slice_all",
    ),
    Planted(
        "a reshape is left out whatever its shape",
        FOLD,
        "equal is None or equal.type != node.type",
        "equal is None",
        "reshape_nothing",
    ),
    Planted(
        "a product with ones loses its broadcast shape",
        FOLD,
        "equal is None or equal.type != node.type",
        "equal is None",
        "mul_one",
    ),
    Planted(
        "two orders are joined the wrong way round",
        FOLD,
        "x.op.axes[axis] for axis in op.axes",
        "op.axes[axis] for axis in x.op.axes",
        "transpose_transpose",
    ),
    Planted(
        "any order counts as no transpose",
        FOLD,
        "lambda op: op.axes == tuple(range(len(op.axes)))",
        "lambda op: True",
        "transpose_nothing",
        swapped,
    ),
    Planted(
        "any power counts as the first",
        FOLD,
        "attributes(node.op).values()] == [*",
        "attributes(node.op).values()] >= [*",
        "power_one",
        square,
    ),
    Planted(
        "the flags of a product are swapped",
        "passes.fuse_affine_relu",
        "op.trans_a, op.trans_b",
        "op.trans_b, op.trans_a",
        "matmul_relu_grad",
    ),
    Planted(
        "the mean is added", BATCHNORM, "(bias - average)", "(bias + average)", "affine_batchnorm"
    ),
    Planted(
        "eps is subtracted",
        BATCHNORM,
        "np.sqrt(variance + eps)",
        "np.sqrt(variance - eps)",
        "matmul_batchnorm",
    ),
    Planted(
        "weights are divided",
        BATCHNORM,
        "first.inputs[1]) * scale",
        "first.inputs[1]) / scale",
        "conv_batchnorm",
    ),
    Planted(
        "the bias is forgotten",
        BATCHNORM,
        "_wide(graph, found.bias) if found.bias else 0.0",
        "0.0",
        "affine_batchnorm",
    ),
    Planted(
        "any moment counts as the variance",
        SHARE,
        "square.op.exponent == 2",
        "square.op.exponent > 1",
        "batchnorm_train",
        fourth_moment,
    ),
    Planted(
        "another value's mean counts as x's",
        SHARE,
        " and average.inputs == (x,)",
        "",
        "batchnorm_train",
        foreign_mean,
    ),
    Planted(
        "operands count in any order",
        "passes.cse",
        "(node.op, inputs), node)",
        "(node.op, tuple(sorted(inputs))), node)",
        "common_subexpressions",
        swapped_operands,
    ),
    Planted(
        "attributes do not count",
        "passes.cse",
        "(node.op, inputs), node)",
        "(type(node.op), inputs), node)",
        "common_subexpressions",
        two_powers,
    ),
    Planted(
        "a slice keeps its axis",
        LAST,
        "sorted((to[axis], *rest)",
        "sorted((axis, *rest)",
        "space_slice",
    ),
    Planted(
        "pads are moved the wrong way",
        LAST,
        "op.pads[axis] for axis in _last_axes(rank)",
        "op.pads[axis] for axis in _first_axes(rank)",
        "channels_pad",
    ),
    Planted(
        "a part of a loss is not weighted",
        "passes.shard",
        "b.outputs[loss] = mul(value, share_of(b, share, value.dtype), name=name).name",
        "b.outputs[loss] = value.name",
        "shard_mean",
        make=shards(),
    ),
    Planted(
        "every shard has the masks of the first",
        "passes.shard",
        "return Node(node.name, node.op, (*node.inputs, first), node.type, node.locs)",
        "return node",
        "shard_mask",
        make=shards(),
    ),
    Planted(
        "the divisor is the shard's own",
        "passes.shard",
        "elif node.name in self.divisors:",
        "elif not node.name:",
        "shard_weighted_mean",
        make=shards(divisors=("loss.weight",)),
    ),
    Planted(
        "a clone's operands are reversed",
        "passes.rematerialize",
        "return Node(name, op, tuple(inputs)",
        "return Node(name, op, tuple(inputs)[::-1]",
        "recompute",
        recomputed_pair,
        lambda module: module.Rematerialize(frozenset({"h"})),
    ),
    Planted(
        "gradients of slices are joined in the order of the cotangents",
        "graphc.ops.autodiff",
        "sorted(parts, key=lambda part: slice_start(part.node.op))",
        "list(parts)",
        "gradients_of_slices",
        make=by_vjp,
    ),
)
