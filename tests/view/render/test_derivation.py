"""Every backward node has its derivation, and it names the right reader, formula and shapes."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.view.render.derivation import derivation
from tests.tools.generate import trainable_net
from tests.view.render.graphs import digits, hostile


def residual() -> gc.Net:
    net = gc.Net("residual")
    h = net.input("x", (gc.N, 8))
    for _ in range(2):
        h = h + gc.relu(gc.affine(h, 8))
    net.loss("loss", gc.mean(gc.tanh(h) * h))
    return net


def rows(net: gc.Net) -> dict[str, dict[str, str]]:
    return {name: dict(some) for name, some in derivation(gc.compile(net, batch=4)).items()}


def test_the_gradient_of_a_weight() -> None:
    found = rows(digits())["d_affine_2.weight"]
    assert (
        found["from"]
        == "affine_2 = affine(x=dropout_1, weight=affine_2.weight, bias=affine_2.bias)"
    )
    assert found["rule"] == "d_weight = xᵀ · d_out"
    assert found["here"] == "d_affine_2.weight = dropout_1ᵀ · d_affine_2"
    assert found["shapes"] == "(100, N) · (N, 50) → (100, 50)"


def test_words_of_a_formula_are_explained_and_later_passes_named() -> None:
    found = dict(derivation(gc.compile(digits(), batch=4)))["d_affine_1"]
    assert ("where", "xhat(x): (x - mean(x)) / std(x)") in found
    assert ("then", "a later pass made normalize_dx of batchnorm_dx") in found


def test_contributions_of_several_users_are_distinguished_and_summed() -> None:
    found = rows(residual())
    assert found["d_add_2"]["here"] == "d_add_2 = d_add_2.1 + d_add_2.2"
    assert found["d_add_2.2"]["from"] == "tanh_1 = tanh(x=add_2)"
    assert found["d_add_2.1"]["from"] == "mul_1 = mul(a=tanh_1, b=add_2)"
    assert found["d_add_1.2"]["here"] == "d_add_1.2 = d_affine_2 · affine_2.weightᵀ"
    assert found["d_tanh_1.sub_1"]["a step of"] == "the gradient of tanh_1 = tanh(x=add_2)"
    assert found["d_mean_1"]["start"] == "d_mean_1 = 1: mean_1 is what is differentiated"


def test_a_gradient_is_summed_to_the_shape_of_a_broadcast_operand() -> None:
    net = gc.Net("broadcast")
    x = net.input("x", (gc.N, 3))
    shift = gc.reshape(gc.affine(gc.reshape(x, (gc.N * 3, 1)), 1), (gc.N, 3))
    net.loss("loss", gc.mean(shift * net.parameter("scale", (3,))))
    found = rows(net)["d_scale"]
    assert found["here"].endswith(", summed to (3,)")


def test_a_value_whose_other_reader_gives_no_gradient_has_a_derivation() -> None:
    """Its cotangent is the one contribution, which is named as one of two."""
    net = gc.Net("stopped")
    x = gc.affine(net.input("x", (gc.N, 2)), 3, name="first")
    h = gc.affine(x, 3, name="second")
    net.loss("loss", gc.sum(h * gc.stop_gradient(gc.tanh(h))) + gc.sum(gc.tanh(x)))
    found = rows(net)
    readers = {found[name]["from"].partition(" = ")[0] for name in ("d_first.1", "d_first.2")}
    assert readers == {"second", "tanh_2"}


@pytest.mark.one_in(25)
@pytest.mark.parametrize("seed", range(25))
def test_every_backward_node_of_any_net_has_one(seed: int) -> None:
    plan = gc.compile(trainable_net(seed), batch=3)
    records = plan.graphs["grad"]
    place = [record.name for record in records].index("backward")
    before, after = records[place - 1].graph, records[place].graph
    found = derivation(plan)
    # A loop's further results are values of the forward part that its gradient reads.
    kept = {n.name for n in after if n.op.is_joint and not n.name.startswith("d_")}
    assert found.keys() - kept == {n.name for n in after if n.name not in before} - kept
    for name, some in found.items():
        told = dict(some)
        if "from" in told and name not in kept:  # the reader that is named does read the node's
            reader = before[told["from"].partition(" = ")[0]]
            assert any(name.startswith(f"d_{operand}") for operand in reader.inputs)
            assert reader.op.is_joint or told["rule"]
    assert derivation(records[-1].graph)


def test_nothing_to_derive() -> None:
    net = gc.Net("plain")
    net.output("y", gc.relu(net.input("x", (gc.N, 3))))
    assert derivation(gc.compile(net, batch=2)) == {}


def test_hostile_names_stay_on_their_line() -> None:
    for some in derivation(gc.compile(hostile(), batch=2)).values():
        for _, text in some:
            assert text.isprintable() or "\u200d" in text
