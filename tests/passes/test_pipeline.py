"""run_passes: every pass is verified, timed, recorded and named; PassList: passes on and off."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

import graphc as gc
import passes
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import TensorType
from graphc.ops.select import Relu
from passes.contract import bound_of, graph_pass, name_of, preserves_of
from passes.pipeline import run_passes
from passes.specialize import Specialize
from tests.error_text import error_text
from tests.passes.same import assert_equal_results, results, specialized, training_passes
from tests.tools.generate import nets, random_feeds, random_state

OPTIONAL = [name for name in dict.fromkeys(passes.DEFAULT.names) if name not in passes.REQUIRED]


def small() -> Graph:
    net = gc.Net("small")
    net.output("y", gc.relu(net.input("x", (gc.N, 3)), name="y"))
    return net.graph()


def same(graph: Graph) -> Graph:
    return graph


def test_records_every_pass_in_order() -> None:
    graph = small()
    seen: list[tuple[str, Graph, Graph]] = []
    chosen = [Specialize(train=True), same]
    result, records = run_passes(
        graph, chosen, after=lambda step, g, made: seen.append((name_of(step), g, made))
    )
    assert [record.name for record in records] == ["specialize", "same"]
    assert seen == [("specialize", graph, records[0].graph)]
    assert records[-1].graph is result
    assert all(record.seconds >= 0 for record in records)


def test_a_pass_that_left_the_graph_as_it_is_does_not_run_again_on_it() -> None:
    seen: list[Graph] = []

    def looks(graph: Graph) -> Graph:
        seen.append(graph)
        return graph

    _, records = run_passes(small(), [looks, same, looks, Specialize(train=False), looks])
    assert [record.name for record in records].count("looks") == 3
    assert len(seen) == 2


def test_a_plain_function_is_approximate_and_has_its_name() -> None:
    assert (name_of(same), preserves_of(same)) == ("same", "approximate")
    declared = graph_pass(preserves="bitwise")(same)
    assert (name_of(declared), preserves_of(declared)) == ("same", "bitwise")
    assert preserves_of(Specialize(True)) == "bitwise"


def test_a_broken_graph_is_told_with_the_name_of_the_pass() -> None:
    def narrow(graph: Graph) -> Graph:
        wrong = TensorType((gc.N, 2), "float32")
        return graph.replace({"y": Node("y", Relu(), ("x",), wrong)})

    with pytest.raises(gc.GraphError) as caught:
        run_passes(small(), [narrow])
    assert error_text(caught.value) == "'y' has type float32[N, 2], its op infers float32[N, 3]"
    assert caught.value.__notes__ == ["in pass 'narrow'"]


def test_any_exception_keeps_its_type_and_gets_a_note() -> None:
    def fails(graph: Graph) -> Graph:
        raise KeyError("h")

    with pytest.raises(KeyError) as caught:
        run_passes(small(), [same, fails])
    assert caught.value.__notes__ == ["in pass 'fails'"]


def test_a_pass_without_result_is_refused() -> None:
    def forgets(graph: Graph) -> None:
        graph.replace({})

    with pytest.raises(gc.GraphError, match="pass 'forgets' gave NoneType, not a Graph"):
        run_passes(small(), [forgets])  # type: ignore[list-item]


def test_without_leaves_out_every_occurrence() -> None:
    assert passes.DEFAULT.names.count("cse") == 2
    assert "cse" not in passes.without("cse").names
    assert "cse" not in passes.without("fuse_affine_relu", "cse").names


def test_after_and_before_insert_once() -> None:
    names = passes.after("cse", same).names
    assert names[2:5] == ("set_precision", "cse", "same")
    assert names.count("same") == 1
    assert passes.before("cse", same).names[2:5] == ("set_precision", "same", "cse")


def test_required_passes_stay() -> None:
    with pytest.raises(gc.GraphError) as caught:
        passes.without("backward")
    assert error_text(caught.value) == (
        "pass 'backward' is required\n"
        "  hint: these can be left out: cse, channels_last, fold_constants, recompute_scans, "
        "transpose_factors, segment_scans, split_scans, join_transposes, "
        "share_batchnorm_statistics, fold_batchnorm, widen_sums, middle_axes, "
        "fuse_affine_relu, recompute_attention, rematerialize, repeat_elements"
    )


@pytest.mark.parametrize("call", [passes.without, lambda name: passes.after(name, same)])
def test_unknown_names_are_told_with_the_known_ones(call: object) -> None:
    with pytest.raises(gc.GraphError) as caught:
        call("fuse")  # type: ignore[operator]
    assert error_text(caught.value) == (
        "there is no pass 'fuse'\n"
        "  hint: the passes are specialize, shard, set_precision, cse, channels_last, "
        "fold_constants, dead_code, recompute_scans, backward, transpose_factors, segment_scans, "
        "split_scans, data_parallel, update, join_transposes, share_batchnorm_statistics, "
        "fold_batchnorm, widen_sums, round_products, middle_axes, fuse_affine_relu, "
        "recompute_attention, rematerialize, repeat_elements"
    )


def test_only_functions_are_inserted() -> None:
    with pytest.raises(gc.GraphError, match="3 is not a pass"):
        passes.after("cse", 3)  # type: ignore[arg-type]


def test_slots_are_filled_or_left_out() -> None:
    filled = passes.DEFAULT.fill({"specialize": Specialize(False), "update": None})
    assert name_of(filled[0]) == "specialize"
    assert tuple(passes.DEFAULT) == passes.DEFAULT.entries
    assert "backward" not in map(name_of, filled)
    assert all(callable(step) for step in filled)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_each_optional_pass_off_and_all_off_give_equal_results(net: gc.Net) -> None:
    graph = net.graph()
    default = training_passes(graph)
    feeds, state = random_feeds(graph, 3), random_state(specialized(net))
    wanted = results(run_passes(graph, default)[0], feeds, state, 3)
    for off in [*([name] for name in OPTIONAL), OPTIONAL]:
        chosen = [step for step in default if name_of(step) not in off]
        found = results(run_passes(graph, chosen)[0], feeds, state, 3)
        assert_equal_results(wanted, found)


def test_passes_that_are_required_stay_so_in_every_list() -> None:
    lists = passes.without("cse"), passes.after("cse", same), passes.before("update", same)
    for chosen in lists:
        with pytest.raises(gc.GraphError, match="pass 'backward' is required"):
            chosen.without("backward")


def test_what_is_no_pass_is_told_with_what_a_pass_is() -> None:
    with pytest.raises(gc.GraphError) as caught:
        passes.after("cse", 3)  # type: ignore[arg-type]
    assert error_text(caught.value) == (
        "3 is not a pass\n  hint: a pass is a function that takes and returns a Graph"
    )
    with pytest.raises(gc.GraphError) as caught:
        run_passes(small(), [lambda graph: 3])  # type: ignore[arg-type, return-value]
    assert error_text(caught.value) == (
        "pass '<lambda>' gave int, not a Graph\n"
        "  hint: a pass returns a Graph, the one it was given if nothing changes"
    )


def test_an_approximate_pass_states_its_bound() -> None:
    assert bound_of(graph_pass(preserves="approximate", bound=0.5)(same)) == 0.5
    assert bound_of(graph_pass("approximate", 1)(same)) == 1.0
    assert bound_of(graph_pass(preserves="bitwise")(same)) == 0
    with pytest.raises(gc.GraphError, match="pass 'same' does not say what it preserves"):
        bound_of(same)


@pytest.mark.parametrize("bound", ["1e-3", -1, float("nan"), float("inf")])
def test_a_bound_is_a_number(bound: Any) -> None:
    class Near:
        def __init__(self) -> None:
            self.bound = bound

        def __call__(self, graph: Graph) -> Graph:
            return graph

    for made in (lambda: graph_pass("approximate", bound), lambda: bound_of(Near())):
        with pytest.raises(gc.GraphError, match=r"bound is .*, it must be 0 or more"):
            made()


def test_the_given_graph_is_verified_unless_it_is_known_to_be() -> None:
    graph = small()
    broken = graph.replace({"y": Node("y", Relu(), ("x",), TensorType((gc.N, 2), "float32"))})
    with pytest.raises(gc.GraphError, match="'y' has type"):
        run_passes(broken, [same])
    assert run_passes(broken, [same], verified=True)[0] is broken


def test_seconds_are_those_of_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("passes.pipeline.perf_counter", lambda: next(clock))
    records = run_passes(small(), [same, Specialize(train=False)])[1]
    assert [record.seconds for record in records] == [2.5, 1.0]


def test_an_object_without_name_is_called_as_its_class() -> None:
    class Tidy:
        def __call__(self, graph: Graph) -> Graph:
            return graph

    assert name_of(Tidy()) == "Tidy"
    assert run_passes(small(), [Tidy()])[1][0].name == "Tidy"
