"""What is read by name is a mapping to Python, too; what a dtype cannot hold is refused."""

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc


def net(dtype: str = "float32") -> gc.Net:
    made = gc.Net("n", dtype=dtype)
    x = made.input("x", (gc.N, 3))
    made.loss("loss", gc.mean(made.output("out", gc.affine(x, 2, name="layer")) ** 2))
    return made


def executor(optimizer: Any = None, dtype: str = "float32") -> gc.Executor:
    optimizer = optimizer or gc.Adam(lr=0.1)
    plan = gc.compile(net(dtype), batch=4, optimizer=optimizer, backend="numpy")
    ex = gc.Executor(plan)
    ex.step(x=np.ones((4, 3)))
    return ex


MAPPINGS: dict[str, Callable[[gc.Executor], Mapping[str, Any]]] = {
    "parameters": lambda ex: ex.parameters,
    "state": lambda ex: ex.state,
    "hyper": lambda ex: ex.hyper,
    "values": lambda ex: ex.values,
    "graphs": lambda ex: ex.plan.graphs,
    "programs": lambda ex: ex.plan.programs,
    "a graph's outputs": lambda ex: ex.plan.declared.outputs,
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_mappings_behave_as_pythons(name: str) -> None:
    found = MAPPINGS[name](executor())
    assert isinstance(found, Mapping) and len(found) == len(list(found))
    with pytest.raises(KeyError):
        found["no such"]
    with pytest.raises(KeyError):
        found[3]  # type: ignore[index]
    assert found.get("no such") is None and found.get("no such", 1) == 1
    assert "no such" not in found and all(key in found for key in found)


NAMED: dict[str, tuple[Callable[[gc.Executor], Any], str]] = {
    "a parameter": (
        lambda ex: ex.parameters["weight"],
        "there is no parameter 'weight'\n  hint: there are: layer.weight, layer.bias",
    ),
    "a parameter that is set": (
        lambda ex: ex.parameters.update(weight=1),
        "there is no parameter 'weight'\n  hint: there are: layer.weight, layer.bias",
    ),
    "a hyper-parameter": (
        lambda ex: ex.hyper["rate"],
        "there is no hyper-parameter 'rate'\n  hint: there are: lr",
    ),
    "a state": (
        lambda ex: ex.state["layer.weights"],
        "there is no state 'layer.weights'\n  hint: did you mean layer.weight",
    ),
    "a value of a net": (
        lambda ex: net()["layer.weights"],
        "net 'n' has no value 'layer.weights'\n  hint: did you mean layer.weight",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_an_unknown_name_is_a_key_error_that_reads_well(name: str) -> None:
    call, text = NAMED[name]
    with pytest.raises(KeyError) as caught:
        call(executor())
    assert isinstance(caught.value, gc.StateError)
    shown = str(caught.value).split("\n")
    without_line = "\n".join(
        line for line in shown if "  at " not in line and "called at" not in line
    )
    assert without_line.startswith(text)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value) and str(again) == str(caught.value)


def test_a_node_of_a_graph_by_a_wrong_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        executor().plan.declared["no such"]


@pytest.mark.parametrize(
    ("value", "lost"), [(1e39, "infinite"), (1e-60, "0"), (10**40, "infinite")]
)
def test_a_rate_that_its_dtype_cannot_hold_is_refused(value: float, lost: str) -> None:
    ex = executor()
    with pytest.raises(gc.StateError, match=f"'lr' is .*, which is {lost} in float32"):
        ex.hyper["lr"] = value
    assert ex.hyper["lr"] == np.float32(0.1)
    double = executor(dtype="float64")
    double.hyper["lr"] = value
    assert double.hyper["lr"] == float(value)


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (gc.Adam(lr=1e39), r"Adam: lr is 1e\+39, which is infinite in float32"),
        (gc.SGD(lr=1e-50), "SGD: lr is 1e-50, which is 0 in float32"),
        (gc.Adam(eps=1e-60), "Adam: eps is 1e-60, which is 0 in float32"),
        (gc.SGD(lr=1.0, clip_norm=1e40), r"SGD: clip_norm is 1e\+40, which is infinite"),
        (gc.SGD(lr=1.0, groups=gc.Group("*", lr=1e39)), r"Group: lr is 1e\+39, which is infinite"),
    ],
)
def test_numbers_of_an_optimizer_are_refused_when_it_is_compiled(optimizer: Any, text: str) -> None:
    with pytest.raises(gc.GraphError, match=text):
        executor(optimizer)
    executor(optimizer, "float64")


@pytest.mark.parametrize("what", ["parameters", "load_flat", "state", "copy_from"])
def test_values_that_overflow_are_refused_and_nothing_is_changed(what: str) -> None:
    ex = executor()
    before = copy.deepcopy(dict(ex.state))
    large = {"layer.bias": np.array([1.0, 1e39])}
    calls: dict[str, Callable[[], Any]] = {
        "parameters": lambda: ex.parameters.update(large),
        "load_flat": lambda: ex.parameters.load_flat(np.full(8, 1e39)),
        "state": lambda: setattr(ex, "state", large),
        "copy_from": lambda: ex.parameters.copy_from(large),
    }
    with pytest.raises(gc.GraphError, match="float32"):
        calls[what]()
    assert all(np.array_equal(before[name], ex.state[name]) for name in before)


def test_infinite_values_that_are_meant_are_kept() -> None:
    ex = executor()
    ex.parameters["layer.bias"] = np.array([1.0, np.inf])
    assert ex.parameters["layer.bias"][1] == np.inf


@pytest.mark.parametrize("value", [-1, -(2**63), 2**62])
@pytest.mark.parametrize("name", ["updates", "draws"])
def test_counters_count_from_0(name: str, value: int, tmp_path: Path) -> None:
    """Adam would divide by 0 in the update of a counter of -1."""
    made = gc.Net("n")
    x = gc.dropout(made.input("x", (gc.N, 3)), keep_prob=0.5)
    made.loss("loss", gc.mean(gc.affine(x, 2) ** 2))
    ex = gc.Executor(gc.compile(made, batch=4, optimizer=gc.Adam(), backend="numpy"))
    with pytest.raises(gc.StateError, match=f"^'{name}' counts from 0 to below 2.*is {value}\n"):
        ex.state = {name: value}
    assert ex.state[name] == 0
    ex.state.arrays[name][...] = value
    gc.save(tmp_path / "odd.gc", ex)
    with pytest.raises(gc.ModelFileError, match=f"'{name}' counts from 0"):
        gc.load(tmp_path / "odd.gc")
