"""Passes are judged by what they declare; failures are reported, made small and saved as tests."""

from __future__ import annotations

import linecache
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from runpy import run_path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.central_differences import is_on_kink
from graphc.check.validation import ValidationError, validate_pass
from graphc.check.validation.validate import Watch, validate_apply
from graphc.declare.track import tracked, untracked
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ops.elementwise import Add, Mul, Power, Sub
from graphc.ops.functions import Tanh
from graphc.ops.pool import MaxPool
from graphc.ops.reduce import Max, Mean
from graphc.ops.select import Clip, Relu
from graphc.ops.shape import Cast
from graphc.ops.source import Parameter, constant_op
from graphc.ops.sums import Sum
from passes.backward import Backward
from passes.contract import Pass
from passes.specialize import Specialize
from passes.update import Update
from tests.error_text import error_text


def three(dtype: str = "float32") -> gc.Net:
    """A sum of three values, of a product and of a difference."""
    net = gc.Net("three", dtype=dtype)
    x, y = net.input("x", (gc.N, 6)), net.input("y", (gc.N, 6))
    net.output("sum", gc.sum((x + y) + gc.tanh(x), axis=0))
    net.output("square", x * x)
    net.output("difference", gc.exp(x) - y)
    return net


@gc.passes.graph_pass(preserves="bitwise")
def swapped(graph: Graph) -> Graph:
    """b - a for a - b."""
    return of_kind(graph, Sub, lambda node: replaced(node, node.op, node.inputs[::-1]))


@gc.passes.graph_pass(preserves="reassociated")
def square(graph: Graph) -> Graph:
    """x ** 2 for x * x, which is right."""
    return of_kind(
        graph,
        Mul,
        lambda n: replaced(n, Power(2.0), n.inputs[:1]) if n.inputs[0] == n.inputs[1] else n,
    )


def of_kind(graph: Graph, kind: type[Op], change: object) -> Graph:
    changed = {n.name: change(n) for n in graph if isinstance(n.op, kind)}  # type: ignore[operator]
    return graph.replace(changed) if changed else graph


def replaced(node: Node, op: Op, inputs: tuple[str, ...]) -> Node:
    return Node(node.name, op, inputs, node.type, node.locs)


def other_order(graph: Graph) -> Graph:
    """x + (y + z) for (x + y) + z."""
    changed: dict[str, Node | None] = {}
    for node in graph:
        first = graph[node.inputs[0]] if isinstance(node.op, Add) else node
        if first is not node and isinstance(first.op, Add):
            changed[first.name] = replaced(first, Add(), (first.inputs[1], node.inputs[1]))
            changed[node.name] = replaced(node, Add(), (first.inputs[0], first.name))
    order = sorted(graph, key=lambda node: (isinstance(node.op, Add), node.name == "add_2"))
    return graph.with_nodes(changed.get(node.name) or node for node in sources_first(order))


def sources_first(nodes: list[Node]) -> list[Node]:
    done: dict[str, Node] = {}
    while len(done) < len(nodes):
        for node in nodes:
            wanted = ("y", "tanh_1") if node.name == "add_1" else node.inputs
            if node.name not in done and all(name in done for name in wanted):
                done[node.name] = node
    return list(done.values())


def test_another_order_is_reassociated_and_not_bitwise() -> None:
    net = three("float64")
    validate_pass(gc.passes.graph_pass(preserves="reassociated")(other_order), net)
    with pytest.raises(ValidationError, match="the pass declares bitwise"):
        validate_pass(gc.passes.graph_pass(preserves="bitwise")(other_order), net)


def test_a_pass_that_is_right_gives_its_graph() -> None:
    made = validate_pass(square, three())
    assert isinstance(made["mul_1"].op, Power)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_part_in_a_billion_is_not_rounding(dtype: str) -> None:
    @gc.passes.graph_pass(preserves="reassociated")
    def a_little_more(graph: Graph) -> Graph:
        changed: list[Node] = []
        for node in graph:
            changed.append(node)
            if isinstance(node.op, Tanh):
                one = np.asarray(1 + 1e-9, node.type.dtype)
                factor = constant_op(one)
                changed[-1:] = [
                    Node("inner", node.op, node.inputs, node.type),
                    Node("factor", factor, (), factor.infer([])),
                    Node(node.name, Mul(), ("inner", "factor"), node.type, node.locs),
                ]
        return graph.with_nodes(changed)

    with pytest.raises(ValidationError, match=r"output 'sum' is .* which allows a difference of"):
        validate_pass(a_little_more, three(dtype))


def polynomial(graph: Graph) -> Graph:
    """x for tanh(x)."""
    return graph.rename_reads({n.name: n.inputs[0] for n in graph if isinstance(n.op, Tanh)})


def small_numbers() -> gc.Net:
    net = gc.Net("small_numbers")
    x = net.input("x", (gc.N, 3))
    net.output("out", gc.tanh(0.01 * gc.tanh(x)) + 5)
    return net


def test_an_error_is_pickled_with_its_attributes(tmp_path: Path) -> None:
    step = gc.passes.graph_pass(preserves="bitwise")(polynomial)
    with pytest.raises(ValidationError) as caught:
        validate_pass(step, small_numbers(), folder=tmp_path)
    error, again = caught.value, pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.layer, again.mismatch) == (str(error), "pass", error.mismatch)
    assert (again.path, again.rewrite, again.hint) == (error.path, error.rewrite, error.hint)
    assert error.smallest is not None and again.smallest is None


@pytest.mark.parametrize(("bound", "right"), [(2.0, True), (1e-6, False)])
def test_an_approximate_pass_is_held_to_its_own_bound(bound: float, right: bool) -> None:
    step = gc.passes.graph_pass(preserves="approximate", bound=bound)(polynomial)
    if right:
        validate_pass(step, small_numbers())
    else:
        with pytest.raises(ValidationError, match="states a bound of 1e-06 of the largest"):
            validate_pass(step, small_numbers())


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (polynomial, "does not say what it preserves"),
        (gc.passes.graph_pass("approximate")(polynomial), "is approximate, but does not say how"),
    ],
)
def test_an_approximate_pass_without_bound_cannot_be_judged(step: Any, fault: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        validate_pass(step, small_numbers())
    assert f"pass 'polynomial' {fault}" in str(caught.value)
    assert 'graph_pass(preserves="approximate", bound=1e-3)' in str(caught.value)


def test_what_only_some_batches_show_is_found() -> None:
    @gc.passes.graph_pass(preserves="reassociated")
    def mean_for_sum(graph: Graph) -> Graph:
        return of_kind(graph, Sum, lambda n: replaced(n, Mean(n.op.axes), n.inputs))

    validate_pass(mean_for_sum, three(), batches=[1])
    with pytest.raises(ValidationError, match="with 7 rows"):
        validate_pass(mean_for_sum, three())


def test_a_pass_before_layers_are_expanded_is_judged_in_training_and_inference() -> None:
    @gc.passes.graph_pass(preserves="bitwise")
    def no_dropout(graph: Graph) -> Graph:
        return graph.rename_reads({"drop": "x"})

    net = gc.Net("layers")
    x = net.input("x", (gc.N, 6))
    net.output("out", gc.dropout(x, keep_prob=0.5, name="drop"))
    net.output("sum", gc.sum(net["drop"]))
    with pytest.raises(ValidationError, match="output 'out' is"):
        validate_pass(no_dropout, net)


def test_the_error_names_pass_rewrite_place_and_a_test_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        validate_pass(swapped, three(), folder=tmp_path)
    error = caught.value
    lines = str(error).splitlines()
    assert lines[0].startswith("pass 'swapped': output 'difference' is ")
    assert lines[0].endswith(", with 1 row; the pass declares bitwise")
    assert lines[1:3] == [
        "  first rewrite that shows it: sub_1: float32[N, 6] = sub(exp_1, y)  ->  "
        "sub_1: float32[N, 6] = sub(y, exp_1)",
        "  smallest graph that still fails: 3 nodes",
    ]
    assert 'net.output("difference", gc.exp(x) - y)' in str(error)
    assert error.smallest is not None
    assert [str(node.type) for node in error.smallest] == ["float32[N, 1]"] * 3
    assert error.path == tmp_path / "test_swapped_1.py"
    done = run_test(error.path)
    assert done.returncode == 1, done.stdout
    assert "ValidationError: pass 'swapped': output 'difference'" in done.stdout


@pytest.mark.slow
def test_the_written_test_passes_once_the_pass_is_right(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PASS)
    before = set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    try:
        from mine import mine  # type: ignore[import-not-found]

        with pytest.raises(ValidationError) as caught:
            validate_pass(mine, three(), folder=tmp_path)
    finally:
        sys.path.remove(str(tmp_path))
        for name in set(sys.modules) - before:
            del sys.modules[name]
    assert caught.value.path is not None
    assert "from mine import mine" in caught.value.path.read_text()
    assert run_test(caught.value.path).returncode == 1
    (tmp_path / "mine.py").write_text(PASS.replace("[::-1]", ""))
    assert run_test(caught.value.path).returncode == 0


PASS = """\
import graphc as gc
from graphc.ir.graph import Node
from graphc.ops.elementwise import Sub


@gc.passes.graph_pass(preserves="bitwise")
def mine(graph):
    changed = {
        n.name: Node(n.name, n.op, n.inputs[::-1], n.type, n.locs)
        for n in graph
        if isinstance(n.op, Sub)
    }
    return graph.replace(changed) if changed else graph
"""


def run_test(path: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[3]
    return subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(path.parent)])},
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Wrong(Op):
    """Three times x, with the gradient of twice x."""

    name = "wrong"

    def infer(self, ins):  # type: ignore[no-untyped-def]
        return ins[0]

    def reference(self, ins):  # type: ignore[no-untyped-def]
        return 3 * ins[0]

    def grad(self, b, ins, out, dout):  # type: ignore[no-untyped-def]
        return (2 * dout,)


def with_a_wrong_rule() -> gc.Net:
    net = gc.Net("wrong_rule")
    h = gc.affine(net.input("x", (gc.N, 6)), 5, name="below")
    h = gc.relu(gc.affine(gc.apply(Wrong(), h, name="three_times"), 4, name="above"))
    net.loss("loss", gc.mean(gc.tanh(h)))
    return net


@pytest.mark.slow
def test_the_op_whose_gradient_rule_is_wrong_is_named(tmp_path: Path) -> None:
    graph = Specialize(train=True)(with_a_wrong_rule().graph())
    wrt = tuple(node.name for node in graph if isinstance(node.op, Parameter))
    with pytest.raises(ValidationError) as caught:
        validate_pass(Backward(("loss",), wrt), graph, folder=tmp_path)
    error = caught.value
    assert str(error).startswith("pass 'backward': gradient 'below.weight' is ")
    assert "differences give" in str(error)
    assert error.rewrite.startswith("the rule of wrong 'three_times': the gradient of operand 0 at")
    assert error.smallest is not None
    assert len(error.smallest) <= 6
    assert "wrong" in [node.op.name for node in error.smallest]
    assert error.path is not None
    assert run_test(error.path).returncode == 1


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_gradients_of_outputs_with_fed_cotangents_are_judged(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = gc.Net("net", dtype="float64")
    h = gc.affine(net.input("x", (gc.N, 3)), 4, name="h")
    net.output("out", gc.tanh(h))
    graph = Specialize(train=True)(net.graph())
    right = Tanh.grad
    monkeypatch.setattr(
        Tanh, "grad", lambda self, b, ins, out, dout: right(self, b, ins, out, factor * dout)
    )
    step = Backward(("out",), ("h.weight", "x"), fed=True)
    if factor == 1:
        assert set(validate_pass(step, graph).gradients) == {"h.weight", "x"}
    else:
        with pytest.raises(ValidationError, match=r"gradient 'h\.weight' is "):
            validate_pass(step, graph)


def test_a_reference_rule_that_fails_is_reported_with_the_pass() -> None:
    class Broken(Wrong):
        name = "broken"

        def reference(self, ins):  # type: ignore[no-untyped-def]
            raise KeyError("h")

    @gc.passes.graph_pass(preserves="bitwise")
    def breaks(graph: Graph) -> Graph:
        return of_kind(graph, Tanh, lambda n: replaced(n, Broken(), n.inputs))

    with pytest.raises(gc.GraphError) as caught:
        validate_pass(breaks, three())
    assert error_text(caught.value).startswith(
        "broken 'tanh_1': its reference rule fails: KeyError: 'h', at test_validate.py:"
    )
    assert caught.value.__notes__ == ["when pass 'breaks' was validated"]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValidationError) as caught:
        validate_pass(swapped, three(), folder=tmp_path / "file")
    assert caught.value.path is None
    assert "a test could not be written: " in str(caught.value)


def test_compiling_judges_what_changes_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 5)), net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(x, 4))), keep_prob=0.5)
    net.loss("loss", gc.softmax_loss(gc.affine(h, 3), y))
    watch = Watch(net.graph(), 9)
    assert [draw.rows for draw in watch.draws] == [1, 7, 9]
    gc.compile(net, batch=9, optimizer=gc.Adam(), backend="numpy", validate=watch)
    assert watch.judged[:3] == ["specialize", "dead_code", "specialize"]
    assert {"backward", "update", "apply_update", "share_batchnorm_statistics"} <= set(watch.judged)
    own = gc.passes.after("cse", swapped)
    gc.compile(net, batch=9, backend="numpy", validate=True, passes=own)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValidationError):
        gc.compile(three(), batch=9, backend="numpy", validate=True, passes=own)
    assert [path.name for path in tmp_path.iterdir()] == ["graphc-failures"]
    assert (tmp_path / "graphc-failures" / "test_swapped_1.py").is_file()


def test_nothing_is_judged_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    own = gc.passes.after("cse", swapped)
    plan = gc.compile(three(), batch=4, backend="numpy", passes=own)
    assert plan.graphs["infer"]


@pytest.mark.parametrize(
    "optimizer",
    [
        gc.SGD(lr=0.1, clip_norm=1.0),
        gc.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, decay=("w",)),
        gc.Adam(schedule=gc.Step(every=2, factor=0.5), weight_decay=0.1, clip_norm=0.1),
        gc.AdamW(schedule=gc.WarmUp(6, then=gc.Cosine(total=9, floor=0.2))),
        gc.AdamW(accumulate=4, clip_norm=1.0),
        gc.Adamax(),
        gc.Adadelta(weight_decay=0.1),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_update_alone_is_judged_by_the_rule(optimizer: gc.optim.Optimizer, dtype: str) -> None:
    net = gc.Net("net", dtype=dtype)
    nodes = [net.parameter("w", (3, 2)).node, net.parameter("b", (2,)).node]
    for seed in range(4):
        made = validate_apply(nodes, optimizer, seed=seed)
        assert {"w", "b", "updates"} <= set(made.updates)


@pytest.mark.slow
def test_a_wrong_update_alone_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc.SGD, "_decays", lambda self, parameter: True)  # biases, too
    net = gc.Net("net")
    nodes = [net.parameter("w", (3, 2)).node, net.parameter("b", (2,)).node]
    with pytest.raises(ValidationError) as caught:
        validate_apply(nodes, gc.SGD(lr=0.1, weight_decay=0.25), folder=tmp_path)
    assert str(caught.value).startswith("pass 'apply_update': update 'b' is ")
    assert "the pass adds b.next: float64[2] = sgd_step(b, " in str(caught.value)
    assert caught.value.path is not None
    text = caught.value.path.read_text()
    assert "w: float32" not in text  # b alone is enough
    assert "validate_apply(graph, SGD(lr=0.1, weight_decay=0.25, " in text
    assert run_test(caught.value.path).returncode == 0  # in a process where nothing is patched


@pytest.mark.parametrize(
    "bent", [gc.relu, lambda v: gc.max_pool(gc.reshape(v, (gc.N, 1, 6)), 3)], ids=["relu", "pool"]
)
def test_a_derivative_on_a_kink_is_not_a_mistake(bent: Any) -> None:
    """Dropout puts zeros where relu and the larger of two jump: differences say nothing there."""
    net = gc.Net("on_kinks", dtype="float64")
    h = gc.dropout(net.input("x", (gc.N, 6)), keep_prob=0.5)
    net.output("slope", gc.grad(gc.sum(bent(h)), h))
    gc.compile(net, batch=16, validate=True)


@pytest.mark.parametrize(
    ("op", "x", "on"),
    [
        (Relu(), [[0.0, 1.0]], True),
        (Relu(), [[0.5, 1.0]], False),
        (Cast("int32"), [[0.0, 0.5, -1.5]], False),
        (Cast("int64"), [[0.5, -4.0]], True),
        (Cast("bool"), [[0.5, 0.0]], True),
        (Cast("float32"), [[0.0, 1.0]], False),
        (Max((1,), False), [[2.0, 1.0, 1.0]], False),
        (Max((1,), False), [[2.0, 2.0, 1.0]], True),
        (MaxPool((2,), (2,), (1,)), [[[0.0], [0.0], [3.0], [1.0]]], True),
        (MaxPool((2,), (2,), (1,)), [[[0.0], [1.0], [3.0], [1.0]]], False),
    ],
)
def test_what_is_exactly_on_a_kink(op: Any, x: Any, on: bool) -> None:
    assert is_on_kink(op, [np.array(x)]) is on


def test_draws_are_kept_away_from_kinks() -> None:
    from graphc.check.validation.run import draws_for, source_arrays, values_of_arrays

    net = gc.Net("kinks", dtype="float64")
    x = net.input("x", (gc.N, 100))
    net.output("out", gc.relu(1e-3 * x))
    graph = net.graph()
    (draw,) = draws_for(graph, [50])
    assert draw.redrawn > 0
    assert not draw.near
    values = values_of_arrays(graph, 50, source_arrays(graph, draw))
    assert np.abs(values["mul_1"]).min() >= 1e-6
    net.output("log", gc.log(-gc.abs(x)))
    (draw,) = draws_for(net.graph(), [2])
    assert draw.near  # a number that is never finite


def test_labels_are_in_range() -> None:
    from graphc.check.validation.run import draws_for, source_arrays

    net = gc.Net("labels")
    y = net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(net.input("x", (gc.N, 11)), y))
    (draw,) = draws_for(net.graph(), [500])
    labels = source_arrays(net.graph(), draw)["y"]
    assert labels.min() == 0
    assert labels.max() == 10


def test_what_only_given_numbers_show_is_not_made_smaller(tmp_path: Path) -> None:
    @gc.passes.graph_pass(preserves="reassociated")
    def clipped(graph: Graph) -> Graph:
        return of_kind(graph, Tanh, lambda n: replaced(n, Clip(-50.0, 50.0), n.inputs))

    net = gc.Net("net")
    net.output("out", gc.tanh(1e6 * gc.relu(net.input("x", (gc.N, 2)) - 40)))
    with pytest.raises(ValidationError) as caught:
        validate_pass(clipped, net, batches=[1], feeds={"x": [[50, 50]]}, folder=tmp_path)
    assert caught.value.path is None
    assert "only these numbers show it" in str(caught.value)
    assert not list(tmp_path.iterdir())


OWN = """\
import functools

import graphc as gc
from graphc.ir.graph import Node
from graphc.ops.elementwise import Neg
from graphc.ops.functions import Tanh

kept = gc.passes.graph_pass("bitwise")


def wrong(graph, op):
    nodes = [node for node in graph if isinstance(node.op, Tanh)]
    return graph.replace({n.name: Node(n.name, op, n.inputs, n.type, n.locs) for n in nodes})


@kept
def plain(graph):
    return wrong(graph, negation)


def made(op):
    @kept
    def closed(graph):
        return wrong(graph, op)

    return closed


class Passes:
    @staticmethod
    @kept
    def static(graph):
        return wrong(graph, Neg())

    def method(self, graph):
        return wrong(graph, Neg())

    method.preserves = "bitwise"


def local():
    class Local:
        preserves = "bitwise"

        def __call__(self, graph):
            return wrong(graph, Neg())

    return Local()


inner, negation = local(), Neg()
closed, static, method = made(Neg()), Passes.static, Passes().method
unnamed = kept(lambda graph: wrong(graph, Neg()))
part = functools.partial(wrong, op=Neg())
part.preserves = "bitwise"
"""


def error_of_own(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, notebook: bool = False
) -> ValidationError:
    """The error for a pass of a file that is no module, or of a notebook, with a test."""
    file = "<cell>" if notebook else str(folder / "mine.py")
    module = ModuleType("graphc_model_mine")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if notebook:
        monkeypatch.setitem(linecache.cache, file, (len(OWN), None, OWN.splitlines(True), file))
    else:
        Path(file).write_text(OWN)
        module.__file__ = file
    exec(compile(OWN, file, "exec"), vars(module))
    with pytest.raises(ValidationError) as caught:
        validate_pass(getattr(module, name), three(), folder=folder / "tests")
    return caught.value


@pytest.mark.parametrize(
    ("name", "notebook"), [("closed", False), ("static", False), ("closed", True), ("plain", True)]
)
def test_a_written_test_has_all_that_the_pass_reads(
    name: str, notebook: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of_own(name, tmp_path, monkeypatch, notebook)
    monkeypatch.delitem(sys.modules, "graphc_model_mine")
    test = run_path(str(error.path))[f"test_{name}"]
    with pytest.raises(ValidationError, match=f"pass '{name}': output "):
        test()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("method", "no text makes an object of type method"),
        ("part", "no text makes an object of type partial"),
        ("unnamed", "a lambda has no name"),
        ("inner", "Local is defined in a function"),
    ],
)
def test_why_no_test_is_written(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of_own(name, tmp_path, monkeypatch)
    assert error.path is None
    assert error.hint.startswith(f"no test was written, since {reason}: make the pass a function")
    assert not (tmp_path / "tests").exists()


def test_feeds_may_be_given() -> None:
    feeds = {"x": np.full((3, 6), 2.0), "y": np.zeros((3, 6))}
    with pytest.raises(ValidationError, match=r"it was 7\.38"):
        validate_pass(swapped, three(), batches=[3], feeds=feeds)
    with pytest.raises(gc.GraphError) as caught:
        validate_pass(swapped, three(), batches=[2], feeds=feeds)
    assert error_text(caught.value).startswith("input 'x' has shape (2, 6), not (3, 6)")


def test_a_pass_of_its_own_class_is_written_with_its_options(tmp_path: Path) -> None:
    from graphc.check.validation.reproduce import write_test

    step: Pass = Backward(("loss",), ("w",), fed=True)
    path = write_test(tmp_path, "backward", step, three().graph(), "told", "run({step})")
    text = path.read_text()
    assert "from passes.backward import Backward" in text
    assert "run(Backward(losses=('loss',), wrt=('w',), required=(), fed=True, before=()))" in text


def test_an_update_with_targets_is_written_as_it_is(tmp_path: Path) -> None:
    from graphc.check.validation.reproduce import write_test

    net = gc.Net("net")
    w, _ = (net.parameter(name, (3, 2)) for name in ("w", "target"))
    net.loss("loss", gc.mean(net.input("x", (gc.N, 3)) @ w))
    gc.track(net, "target", of="w", rate=0.25)
    declared = net.graph()
    graph = Backward(("loss",), ("w",))(Specialize(train=True)(untracked(declared)))
    step = Update(gc.SGD(0.5), ("w",), tracked(declared))
    call = "validate_pass({step}, graph, batches=(2,))"
    path = write_test(tmp_path, "update", step, graph, "told", call)
    run_path(str(path))["test_update"]()
