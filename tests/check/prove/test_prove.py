"""Rewrite rules are proved for every size, and wrong ones refuted by counterexamples that run."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.prove import RULES, Proof, prove
from graphc.check.prove.rule import AnyOp, Draw, Drawing
from graphc.cli import main
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ops.dropout import DropoutMask
from graphc.ops.shape import Cast
from graphc.ops.slicing import Slice
from graphc.ops.source import Constant, draws, seed
from graphc.runtime.reference import evaluate
from tests.check.prove.planted import PLANTED, RULE, Planted

QUICK = (
    *("neg_neg", "fold", "affine_batchnorm", "conv_batchnorm"),
    *("shard_mean", "gradients_of_slices"),
)
UNPROVED: dict[str, str] = {}
"""The rules that are right, and not proved, and why."""


@pytest.mark.parametrize("name", QUICK)
def test_a_rule_is_proved(name: str) -> None:
    proof = prove(RULE[name])
    assert (proof.verdict, proof.reason) == ("proved", "")


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_proved_or_named(rule: Any) -> None:
    proof = prove(rule)
    assert proof.counterexample is None, str(proof)
    assert (proof.verdict == "proved") == (rule.name not in UNPROVED), str(proof)


def test_nine_of_ten_rules_are_proved() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert 10 * len(UNPROVED) <= len(RULES)
    assert UNPROVED.keys() <= RULE.keys()


def refuted(planted: Planted) -> Proof:
    proof = prove(planted.wrong())
    assert proof.verdict == "refuted", str(proof)
    return proof


def ids(cases: Any) -> Iterator[str]:
    return (case.mistake for case in cases)


QUICKLY = [p for p in PLANTED if p.rule in ("neg_neg", "affine_batchnorm", "reshape_nothing")]


@pytest.mark.parametrize("planted", QUICKLY, ids=ids(QUICKLY))
def test_a_wrong_rule_is_refuted(planted: Planted) -> None:
    check_counterexample(refuted(planted))


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTED, ids=ids(PLANTED))
def test_every_wrong_rule_is_refuted(planted: Planted) -> None:
    check_counterexample(refuted(planted))


def check_counterexample(proof: Proof) -> None:
    """Run the two sides of a counterexample, unless on shards, and see that they differ."""
    found = proof.counterexample
    assert found is not None
    if proof.rule.shards:
        assert not np.isclose(found.left, found.right, equal_nan=True)
        return
    if isinstance(found.right, str):
        left, right = found.graphs
        evaluate(left, found.arrays, found.arrays, found.sizes["N"])
        with pytest.raises((gc.GraphError, ValueError)):
            evaluate(right, found.arrays, found.arrays, found.sizes["N"])
        return
    kind, _, name = found.root.partition(" ")
    results = []
    for graph in found.graphs:
        with np.errstate(all="ignore"):
            values = evaluate(graph, found.arrays, found.arrays, found.sizes["N"])
        results.append(values[getattr(graph, f"{kind}s")[name]])
    a, b = results
    assert a.shape != b.shape or not np.allclose(a, b, equal_nan=True)


def test_there_are_twenty_wrong_rules() -> None:
    assert len({planted.mistake for planted in PLANTED}) >= 20


def test_the_handbook_lists_the_rules() -> None:
    text = (Path(gc.__file__).parent.parent / "docs" / "validation.md").read_text(encoding="utf-8")
    for rule in RULES:
        row = f"| {rule.name} | {rule.place} | `{rule.left}` | `{rule.right}` | {rule.given} |"
        assert row in text


def test_a_size_that_is_not_recorded_is_noticed() -> None:
    """A pass that makes a plain number of a size fits one case, and not the sizes around it."""

    def cut(graph: Graph) -> Graph:
        whole = int(graph["x"].type.shape[1]) // 1
        node = Node("y", Slice(((1, 0, whole, 1),)), ("x",), graph["x"].type)
        return Graph(graph.name, [*graph, node], outputs={"y": "y"})

    def drawn(d: Drawing) -> Value:
        return d.input("x", gc.N, "a")

    proof = prove(replace(RULE["neg_neg"], rewrite=cut, draw=drawn))
    assert proof.verdict == "not proved"
    assert "is not what the case says" in proof.reason


def cut(d: Drawing) -> Value:
    """Draw any op of the first columns."""
    x = d.input("x", gc.N, d.a + d.b)
    return d.apply(AnyOp("f"), d.apply(Slice(((1, 0, d.a, 1),)), x))


def cut_later(graph: Graph) -> Graph:
    b = Builder("later", "float64")
    made = b.apply(AnyOp("f"), b.apply(graph["x"].op, name="x"))
    b.outputs["y"] = b.apply(graph[graph[graph.outputs["y"]].inputs[0]].op, made).name
    return b.graph()


def constant(d: Drawing) -> Value:
    data = np.arange(6.0).tobytes()
    return d.input("x", gc.N, 2, 3) * d.apply(Constant((2, 3), "float64", data, "w"), name="c")


def changed(name: str, **fields: Any) -> Any:
    """Return the pass that gives the op of a node other attributes."""

    def run(graph: Graph) -> Graph:
        nodes = [replace(n, op=replace(n.op, **fields)) if n.name == name else n for n in graph]
        return Graph(graph.name, nodes, outputs=graph.outputs)

    return run


def mask(d: Drawing) -> Value:
    x = d.input("x", gc.N, "a")
    op = DropoutMask(x.shape, "float64", 0.5, 7)
    return x * d.apply(op, seed(d.builder), draws(d.builder), name="m")


def without_results(graph: Graph) -> Graph:
    return Graph(graph.name, [*graph], outputs={})


def in_another_dtype(graph: Graph) -> Graph:
    b = Builder.extending(graph)
    b.outputs["y"] = b.apply(Cast("float32"), b.value(graph.outputs["y"])).name
    return b.graph()


@pytest.mark.parametrize(
    ("draw", "rewrite"),
    [
        (cut, cut_later),
        (constant, changed("c", data=np.arange(1.0, 7).tobytes())),
        (mask, changed("m", keep_prob=0.25)),
        (mask, without_results),
        (mask, in_another_dtype),
    ],
)
def test_what_is_not_the_same_is_not_proved(draw: Draw, rewrite: Any) -> None:
    rule = replace(RULE["neg_neg"], draw=draw, rewrite=rewrite, sizes="a b")
    assert prove(rule).verdict != "proved"


def test_a_pass_that_fails_is_named() -> None:
    def broken(graph: Graph) -> Graph:
        raise ValueError("no room\nat a line")

    proof = prove(replace(RULE["neg_neg"], rewrite=broken))
    assert proof.verdict == "not proved"
    assert proof.reason == "with a = 2, b = 3, c = 4, the pass fails: no room"


# ------------------------------------------------------------------ the command


def test_the_command_prints_a_line_for_each_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "neg_neg", "power_one", "neg_neg"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [
        ["proved", "neg_neg"],
        ["proved", "power_one"],
    ]
    assert lines[2] == "2 proved"


def test_the_command_names_an_unknown_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "neg_net"]) == 2
    assert "no rule is named 'neg_net'\n  hint: did you mean neg_neg?" in capsys.readouterr().err
    assert main(["prove", "unlike"]) == 2
    assert "hint: the rules are mul_one, one_mul" in capsys.readouterr().err


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "z3":
            raise ImportError(name)
        return load(name, *args, **options)

    for module in [name for name in sys.modules if name.startswith("graphc.check.prove")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(gc.GraphError, match=r"pip install 'graphc-nn\[prove\]'"):
        import graphc.check.prove  # noqa: F401
