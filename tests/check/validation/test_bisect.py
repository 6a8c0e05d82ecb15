"""The first bad pass and rewrite, by results and by a command; limits of passes and rewrites."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.check.validation.bisect import (
    Command,
    FirstRewrites,
    Found,
    NotThePasses,
    Tried,
    Values,
    bisect,
    limited,
    optional,
)
from graphc.check.validation.explain import between, first_rewrite, rewrites
from graphc.ir.graph import Graph, Node
from graphc.ops.elementwise import Div, Sub
from graphc.ops.functions import Tanh
from passes.cse import cse
from passes.specialize import Specialize
from tests.error_text import error_text
from tests.passes.same import results
from tests.together import together


def net() -> gc.Net:
    net = gc.Net("five")
    x = net.input("x", (gc.N, 4))
    h = gc.affine(x, 4, name="h")
    for _ in range(4):
        h = gc.tanh(x - h)
    net.output("out", h)
    net.loss("loss", gc.mean(gc.exp(h) - x))
    return net


@gc.passes.graph_pass(preserves="bitwise")
def wrong(graph: Graph) -> Graph:
    """tanh(2 x) from the third tanh on, and an exchange of operands that is right."""
    found = [node for node in graph if isinstance(node.op, Tanh)]
    changed: dict[str, Node | None] = {
        n.name: Node(n.name, Sub(), (n.inputs[0], "x"), n.type, n.locs) for n in found[2:]
    }
    return graph.replace(changed) if changed else graph


OWN = gc.passes.after("dead_code", wrong)


def found(what: str | None = None, passes: object = OWN, net: gc.Net | None = None) -> Found | None:
    graph = (net or globals()["net"]()).graph()
    return bisect(Values(graph, 3, passes, None, what))  # type: ignore[arg-type]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "what", [None, "loss", "output:out", "gradient:h.weight", "gradient:sub_2"]
)
def test_pass_and_rewrite_are_found(what: str | None) -> None:
    made = found(what)
    assert made is not None
    assert (made.name, made.position, made.count) == ("wrong", 4, 19)
    assert (made.good, made.bad) == ("3.0", "3.1")
    assert made.rewrite == ("tanh_3: float64[N, 4] = tanh(sub_3)  ->  "
                            "tanh_3: float64[N, 4] = sub(sub_3, x)",)  # fmt: skip


def test_passes_that_are_right_show_nothing() -> None:
    assert found(passes=gc.passes.DEFAULT) is None


def test_an_unknown_symptom_is_refused_with_the_known_ones() -> None:
    with pytest.raises(GraphError) as caught:
        found("output:nix")
    assert error_text(caught.value).startswith(
        "there is no 'output:nix'\n  hint: there are loss, nonfinite, output:out,"
    )


def test_a_number_that_is_not_finite_is_found() -> None:
    @gc.passes.graph_pass(preserves="bitwise")
    def overflows(graph: Graph) -> Graph:
        """0 / 0 for the last tanh."""
        (*_, last) = (n for n in graph if isinstance(n.op, Tanh))
        if "zero" in graph[last.inputs[0]].inputs:
            return graph
        return graph.replace({last.name: Node(last.name, Div(), ("zero", "zero"), last.type)})

    made = gc.Net("zero")
    x = made.input("x", (gc.N, 4))
    made.output("none", gc.sub(x, x, name="zero"))
    made.output("out", gc.tanh(gc.tanh(x)))
    found_ = found("nonfinite", gc.passes.after("cse", overflows), made)
    assert found_ is not None
    assert (found_.name, found_.bad) == ("overflows", "1.1")
    assert found_.report == "output out (infer) is not finite"


def test_what_passes_are_not_the_cause_of() -> None:
    with pytest.raises(NotThePasses, match="without passes it is the same: always"):
        bisect(lambda limit: Tried(True, "always", ["cse"]))
    with pytest.raises(NotThePasses, match="no pass was run that can be left out"):
        bisect(lambda limit: Tried(True, "always"))


@together("position", range(1, 8))
@pytest.mark.parametrize("number", [1, 2, 9])
def test_halving_finds_any_place(position: int, number: int) -> None:
    tried: list[str | None] = []

    def symptom(limit: str | None) -> Tried:
        tried.append(limit)
        whole, _, part = (limit or "7").partition(".")
        bad = int(whole) >= position or (int(whole) == position - 1 and int(part or 0) >= number)
        return Tried(bad, "bad", [f"p{i}" for i in range(1, 8)], 9 if part else 0)

    found = bisect(symptom)
    assert found is not None
    assert (found.name, found.position) == (f"p{position}", position)
    assert found.bad == f"{position - 1}.{number}"
    assert len(tried) <= 14


SCRIPT = """\
import sys
import numpy as np
import graphc as gc
sys.path.insert(0, {root!r})
from tests.check.validation.test_bisect import OWN, net
x = np.random.default_rng(0).normal(size=(3, 4))
own, plain = (gc.compile(net(), batch=4, passes=p, backend="numpy") for p in (OWN, None))
out, right = (gc.Executor(plan, seed=0).forward(x=x)["out"] for plan in (own, plain))
assert np.allclose(out, right), "another result"
"""


@pytest.mark.slow
def test_a_command_is_run_with_the_limit(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).resolve().parents[3])))
    made = bisect(Command.of(f"python {script}"))
    assert made is not None
    assert (made.name, made.position, made.bad) == ("wrong", 4, "3.1")
    assert made.report == "the exit status is 1: AssertionError: another result"
    assert made.rewrite[0].startswith("tanh_3: float32[N, 4] = tanh(sub_3)  ->  ")


def test_commands_that_cannot_be_run() -> None:
    with pytest.raises(GraphError, match="cannot run 'no-such-command'"):
        bisect(Command.of("no-such-command --now"))
    with pytest.raises(GraphError, match="the command is empty"):
        Command.of("")
    assert Command.of("python a.py").words[0] == sys.executable


def test_the_environment_limits_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert optional(OWN) == [
        "cse", "channels_last", "fold_constants", "wrong", "recompute_scans",
        "transpose_factors", "segment_scans", "split_scans", "cse", "fold_constants",
        "join_transposes", "share_batchnorm_statistics", "fold_batchnorm", "widen_sums",
        "middle_axes", "fuse_affine_relu", "recompute_attention", "rematerialize",
        "repeat_elements",
    ]  # fmt: skip
    monkeypatch.setenv("GRAPHC_PASS_LIMIT", "3.1")
    monkeypatch.setenv("GRAPHC_PASS_LOG", str(tmp_path / "log"))
    plan = gc.compile(net(), batch=4, passes=OWN, backend="numpy")
    names = [record.name for record in plan.graphs["infer"]]
    assert names == ["specialize", "cse", "channels_last", "fold_constants", "dead_code", "wrong",
                     "dead_code", "dead_code"]  # fmt: skip
    after = plan.graphs["infer"][-1].graph
    assert [after[f"tanh_{i}"].op.name for i in (1, 2, 3, 4)] == ["tanh", "tanh", "sub", "tanh"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[0] == {"passes": optional(OWN)}
    assert [line["rewrites"] for line in lines[1:]] == [2, 2]
    monkeypatch.setenv("GRAPHC_PASS_LIMIT", "x")
    with pytest.raises(GraphError, match="GRAPHC_PASS_LIMIT is 'x', not a number of passes"):
        gc.compile(net(), batch=4, backend="numpy")


def test_limits_keep_what_is_required() -> None:
    assert limited(gc.passes.DEFAULT, "0").names == (
        "specialize", "shard", "set_precision", "dead_code", "backward", "data_parallel", "update",
        "dead_code", "round_products", "dead_code",
    )  # fmt: skip
    assert limited(gc.passes.DEFAULT, "99").names == gc.passes.DEFAULT.names
    cut = FirstRewrites(cse, 0)
    assert (cut.name, cut.preserves) == ("cse", "bitwise")


def twice() -> Graph:
    net = gc.Net("twice", dtype="float64")
    x = net.input("x", (gc.N, 3))
    net.output("a", gc.tanh(gc.exp(x)))
    net.output("b", gc.tanh(gc.exp(x)) + gc.exp(x))
    return Specialize(train=False)(net.graph())


def test_every_graph_between_two_is_sound_and_computes_the_same() -> None:
    from tests.tools.generate import random_feeds

    before = twice()
    made = cse(before)
    changes = rewrites(before, made)
    assert [change.kind for change in changes] == ["node"]
    feeds = random_feeds(before, 2)
    expected = results(before, feeds, {}, 2)
    for count in range(len(changes) + 1):
        graph = between(before, made, count)
        for name, value in results(graph, feeds, {}, 2).items():
            assert value.tobytes() == expected[name].tobytes()
    assert between(before, made, len(changes)) is made


def test_roots_are_changes_too() -> None:
    before = twice()
    other = before.outputs["b"]
    made = Graph("twice", before, outputs={"a": other})
    assert [str(change) for change in rewrites(before, made)] == [
        f"output a = {before.outputs['a']}  ->  output a = {other}",
        f"output b = {other}  ->  no output b",
    ]
    shown = first_rewrite(before, made, lambda graph: "b" not in graph.outputs)
    assert shown is not None
    assert shown.after == "no output b"
    assert first_rewrite(before, made, lambda graph: True) is None  # it was there before
