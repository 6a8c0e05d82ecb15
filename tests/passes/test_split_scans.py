from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.text.parse import parse_graph
from graphc.ops import OPS
from graphc.ops.loops.op import Scan, loops
from graphc.runtime.reference import evaluate
from passes.split_scans import runs_at_once, split_scans
from tests.passes.loop_nets import recurrent
from tests.passes.same import assert_preserved, differentiated, specialized

GOLDEN = """\
step loop.steps.in: sequences=(x) carried=() whole=(loop.in.weight, loop.in.bias)
  x: float64[N, 3] = input()
  loop.in.weight: float64[3, 4] = input()
  loop.in.bias: float64[4] = input()
  in: float64[N, 4] = affine(x, loop.in.weight, loop.in.bias)
end
step loop.steps.tanh_1: sequences=(in) carried=(h=tanh_1) whole=(u)
  in: float64[N, 4] = input()
  h: float64[N, 4] = input()
  u: float64[4, 4] = input()
  matmul_1: float64[N, 4] = matmul(h, u)
  add_1: float64[N, 4] = add(in, matmul_1)
  tanh_1: float64[N, 4] = tanh(add_1)
end
step loop.steps: sequences=(tanh_1) carried=() whole=(v)
  tanh_1: float64[N, 4] = input()
  v: float64[4, 2] = input()
  out: float64[N, 2] = matmul(tanh_1, v)
end
"""


def steps_text(graph: Graph) -> str:
    """The steps of loops in the text of a graph."""
    lines = iter(str(graph).splitlines(keepends=True))
    found = []
    for line in lines:
        if line.startswith("step "):
            found.append(line)
            while found[-1] != "end\n":
                found.append(next(lines))
    return "".join(found)


def test_golden() -> None:
    graph = specialized(recurrent())
    after = assert_preserved(split_scans, graph, 3).pruned()
    assert steps_text(after) == GOLDEN
    assert split_scans(after) is after


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_values_and_gradients_stay(lengths: bool, reverse: bool, dropout: bool) -> None:
    graph = differentiated(recurrent(lengths=lengths, reverse=reverse, dropout=dropout))
    after = assert_preserved(split_scans, split_scans(graph), 3)
    inside = [nodes[0].op for nodes in loops(after).values()]
    carrying = [op.step for op in inside if isinstance(op, Scan) and op.step.carried]
    # The state is multiplied in the loop, and its cotangent: all else is outside, but what reads
    # a cotangent that is 0 behind the end of a row.
    for step in carrying:
        products = [node for node in step.nodes if node.op.name in ("matmul", "affine")]
        assert len(products) <= 1 + lengths


def test_random_numbers_and_comparisons_with_the_step_stay_inside() -> None:
    net = gc.Net("net")
    x, h0 = net.input("x", (gc.N, 4, 3)), net.input("h0", (gc.N, 3))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = h + gc.dropout(gc.affine(x, 3, name="in"), keep_prob=0.5)
        return h, h

    net.output("ys", gc.scan(step, x, h0)[0])
    after = split_scans(specialized(net))
    (core,) = [n[0].op for n in loops(after).values() if n[0].op.step.carried]  # type: ignore[attr-defined]
    assert any(node.op.is_random for node in core.step.nodes)
    assert not any(node.op.name == "affine" for node in core.step.nodes)


def test_a_loop_whose_rows_meet_does_not_run_at_once() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4, 3))

    def alone(x: gc.Value) -> tuple[gc.Value, tuple[()]]:
        return gc.relu(x), ()

    def together(x: gc.Value) -> tuple[gc.Value, tuple[()]]:
        return x - gc.mean(x, axis=0, keepdims=True), ()

    for step, expected in ((alone, True), (together, False)):
        net = gc.Net("net")
        x = net.input("x", (gc.N, 4, 3))
        net.output("ys", gc.scan(step, x)[0])
        ops = [n.op for nodes in loops(net.graph()).values() for n in nodes]
        scans = [op for op in ops if isinstance(op, Scan)]
        pruned = scans[0].step.pruned([op.result for op in scans], [])
        assert runs_at_once(pruned, scans) is expected
    data = np.arange(24.0, dtype=np.float32).reshape(2, 4, 3)
    out = gc.Executor(gc.compile(net, batch=2)).forward(x=data)["ys"]
    np.testing.assert_allclose(out, data - data.mean(0), rtol=1e-6)


NUMBERED = """\
graph net
x: int32[4, N, 3] = input()
h0: float64[N, 3] = input()
w: float64[3, 3] = input()
step steps: sequences=(x) carried=(h=next) whole=(w) number=step
  x: int32[N, 3] = input()
  h: float64[N, 3] = input()
  step: int32[] = input()
  w: float64[3, 3] = input()
  counted: int32[N, 3] = mul(x, step)
  wide: float64[N, 3] = cast(counted)
  in: float64[N, 3] = matmul(wide, w)
  sum: float64[N, 3] = add(in, h)
  next: float64[N, 3] = sin(sum)
end
ys: float64[4, N, 3] = scan(x, h0, w)  step=steps steps=4 kind="stacked" result="next"
output ys = ys
"""


def test_what_reads_the_number_of_the_step_stays_inside() -> None:
    rng = np.random.default_rng(0)
    feeds = {"x": rng.integers(-3, 4, (4, 2, 3)), "h0": rng.normal(size=(2, 3))}
    feeds["w"] = rng.normal(size=(3, 3))
    h, wanted = feeds["h0"], []
    for t in range(4):
        h = np.sin(feeds["x"][t] * t @ feeds["w"] + h)
        wanted.append(h)
    found = evaluate(split_scans(parse_graph(NUMBERED, OPS)), feeds, {}, 2)["ys"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
