"""Weights of PyTorch modules, without PyTorch and with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.files.container import read_tensors
from graphc.ops.row_norm import LayerNorm
from tests.extras import needs

by_safetensors = needs("safetensors.numpy")
load_file, save_file = by_safetensors.load_file, by_safetensors.save_file

FILE = Path(__file__).with_name("sequential.safetensors")
"""torch 2.13, seed 0: Sequential(Linear(3, 4), BatchNorm1d(4), ReLU(), Linear(4, 2)), after three
training batches; written by safetensors.torch.save."""
X = np.linspace(-1, 1, 6).reshape(2, 3).astype(np.float32)
OUT = [[-0.011890433728694916, 0.1914864033460617], [-0.08395709097385406, 0.05188542231917381]]


def executor(hidden: int = 4) -> gc.Executor:
    net = gc.Net("small")
    h = gc.relu(gc.batchnorm(gc.affine(net.input("x", (gc.N, 3)), hidden)))
    net.output("y", gc.affine(h, 2))
    return gc.Executor(gc.compile(net, batch=2, backend="numpy"))


def test_a_sequential_in_order() -> None:
    ex = executor()
    found = gc.load_torch_state(ex, FILE)
    assert found.names == {"0": "affine_1", "1": "batchnorm_1", "3": "affine_2"}
    assert found.missing == found.unexpected == ()
    np.testing.assert_allclose(ex.predict(X), OUT, rtol=1e-5)
    np.testing.assert_array_equal(ex.parameters["affine_1.weight"], load_file(FILE)["0.weight"].T)


def test_written_and_read_by_others(tmp_path: Path) -> None:
    ex = executor()
    names = gc.load_torch_state(ex, FILE).names
    path = gc.save_torch_state(tmp_path / "again.safetensors", ex, names=names)
    theirs, ours = load_file(FILE), load_file(path)
    assert theirs.keys() == ours.keys()
    for name, array in theirs.items():
        if name != "1.num_batches_tracked":
            np.testing.assert_array_equal(ours[name], array)
        assert ours[name].dtype == array.dtype
    other = executor()
    gc.load_torch_state(other, path)
    np.testing.assert_array_equal(other.predict(X), ex.predict(X))


def test_layers_names_are_matched_before_the_order(tmp_path: Path) -> None:
    net = gc.Net("named")
    x = net.input("x", (gc.N, 3))
    with net.block("body"):
        h = gc.affine(x, 3, name="one")
        h = gc.prelu(gc.layernorm(gc.affine(h, 3, name="two"), name="norm"), name="act")
    net.output("y", h * net.parameter("scale", ()))
    ex = gc.Executor(gc.compile(net, batch=2), seed=1)
    path = gc.save_torch_state(tmp_path / "named.safetensors", ex)
    found = load_file(path)
    assert set(found) == {
        *(f"body.{layer}.{leaf}" for layer in ("one", "two", "norm") for leaf in LEAVES),
        "body.act.weight",
        "scale",
    }
    other = gc.Executor(ex.plan, seed=2)
    backwards = {name: found[name] for name in reversed(found)}
    assert gc.load_torch_state(other, backwards).names["body.two"] == "body/two"
    for name, w in ex.parameters.items():
        np.testing.assert_array_equal(other.parameters[name], w)


LEAVES = ("weight", "bias")


def test_named_modules_of_a_file_need_names(tmp_path: Path) -> None:
    arrays = load_file(FILE)
    named = {f"{WORDS[name[0]]}{name[1:]}": array for name, array in arrays.items()}
    path = tmp_path / "named.safetensors"
    save_file(named, path)
    ex = executor()
    before = ex.snapshot()
    with pytest.raises(gc.StateError, match="a file does not record their order") as caught:
        gc.load_torch_state(ex, path)
    assert "names={'fc': 'affine_1', ...}" in caught.value.hint
    same(ex, before)
    names = {"fc": "affine_1", "norm": "batchnorm_1", "head": "affine_2"}
    gc.load_torch_state(ex, path, names=names)
    np.testing.assert_allclose(ex.predict(X), OUT, rtol=1e-5)
    ordered = executor()
    gc.load_torch_state(ordered, named_in_order(named))
    np.testing.assert_allclose(ordered.predict(X), OUT, rtol=1e-5)


WORDS = {"0": "fc", "1": "norm", "3": "head"}


def named_in_order(named: dict[str, Any]) -> dict[str, Any]:
    """As a state_dict has them: in the order of the modules."""
    return {name: named[name] for word in WORDS.values() for name in named if word in name}


def test_ten_and_more_modules_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    net = gc.Net("deep")
    h = net.input("x", (gc.N, 2))
    for _ in range(12):
        h = gc.affine(h, 2)
    net.output("y", h)
    ex = gc.Executor(gc.compile(net, batch=1))
    arrays = {}
    for i in range(12):
        arrays[f"layers.{2 * i}.weight"] = np.full((2, 2), float(i), np.float32)
        arrays[f"layers.{2 * i}.bias"] = np.full(2, -float(i), np.float32)
    save_file(arrays, tmp_path / "deep.safetensors")
    gc.load_torch_state(ex, tmp_path / "deep.safetensors")
    for i in range(12):
        assert ex.parameters[f"affine_{i + 1}.weight"][0, 0] == i


def test_a_shared_weight_is_one_module() -> None:
    net = gc.Net("tied", dtype="float64")
    x = net.input("x", (gc.N, 3))
    h = gc.affine(x, 3, name="one")
    net.output("y", gc.affine(h, weight=net["one.weight"], bias=net["one.bias"], name="two"))
    ex = gc.Executor(gc.compile(net, batch=1))
    w = np.arange(9.0).reshape(3, 3)
    assert gc.load_torch_state(ex, {"0.weight": w, "0.bias": np.ones(3)}).names == {"0": "one"}
    np.testing.assert_array_equal(ex.parameters["one.weight"], w.T)


def same(ex: gc.Executor, before: dict[str, Any]) -> None:
    for name, array in ex.snapshot().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("3.bias"), "nothing for 'affine_2.bias'"),
        (lambda a: a.update({"3.scale": np.ones(2)}), "no layer for '3.scale'"),
        (lambda a: a.update({"4.weight": np.ones(2)}), "no layer for '4.weight'"),
        (
            lambda a: a.update({"0.weight": np.ones((3, 4))}),
            "'0.weight' is (3, 4), affine_1.weight takes (4, 3)",
        ),
        (lambda a: a.update({"0.weight": object()}), "'0.weight' is object, not numbers"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    change: Callable[[dict[str, Any]], object], words: str
) -> None:
    ex = executor()
    arrays: dict[str, Any] = dict(sorted(load_file(FILE).items()))
    change(arrays)
    before = ex.snapshot()
    with pytest.raises(gc.StateError) as caught:
        gc.load_torch_state(ex, arrays)
    assert words in caught.value.sentence
    assert caught.value.loc is not None
    assert caught.value.loc.file == __file__
    same(ex, before)


def test_without_strict_what_fits_is_taken() -> None:
    arrays = dict(sorted(load_file(FILE).items()))
    del arrays["3.weight"]
    arrays["7.weight"] = np.ones(3, np.float32)
    ex = executor()
    found = gc.load_torch_state(ex, arrays, strict=False)
    assert found.missing == ("affine_2.weight",)
    assert found.unexpected == ("7.weight",)
    np.testing.assert_array_equal(ex.parameters["affine_2.bias"], arrays["3.bias"])
    with pytest.raises(gc.StateError, match=r"affine_1.weight takes \(5, 3\)"):
        gc.load_torch_state(executor(hidden=5), FILE, strict=False)


def test_wrong_names_are_refused() -> None:
    for names, words in (
        ({"9": "affine_1"}, "no module '9' in the weights"),
        ({"0": "affine_9"}, "no layer 'affine_9' with parameters"),
        ({"0": "affine_1", "3": "affine_1"}, "layer 'affine_1' appears twice"),
    ):
        with pytest.raises(gc.StateError, match=words):
            gc.load_torch_state(executor(), FILE, names=names)
    with pytest.raises(gc.StateError, match="there is no layer 'affine_9'"):
        gc.save_torch_state("never", executor(), names={"0": "affine_9"})


def raw(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(kind: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


def test_half_precision_is_widened_and_arrays_lie_in_any_order() -> None:
    values = np.array([1.0, -2.5, 3.0], np.float32)
    half = values.astype(np.float16).tobytes()
    brain = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = {"b": entry("BF16", [3], 6, 12), "a": entry("F16", [3], 0, 6)}
    found = read_tensors(raw(header, half + brain))
    for name in "ab":
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 a zip", "it is a pickle"),
        (b"\x80\x02 a pickle", "it is a pickle"),
        ((10**9).to_bytes(8, "little"), "it is cut short"),
        (raw({"a": entry("F32", [2], 0, 8)}, b"1234"), "it is cut short"),
        (raw({"a": entry("F32", [1], 0, 4)}, b"12345678"), "its header describes"),
        (
            raw({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12)),
            "'b' does not have the offsets that its shape requires",
        ),
        (raw({"a": entry("F32", [2**62], 0, 2**64)}), "larger than any memory"),
        (raw({"a": entry("F8_E4M3", [1], 0, 1)}, b"1"), "which graphc does not have"),
        (raw({"a": entry("F32", [-1], 0, -4)}), "an impossible shape"),
        (raw({"a": 7}), "not described as the format requires"),
        (raw([1]), "its header is not a table"),  # type: ignore[arg-type]
        (b"\x02" + bytes(7) + b"{]", "its header cannot be read"),
    ],
)
def test_files_that_cannot_be(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    ex = executor()
    before = ex.snapshot()
    with pytest.raises(gc.ModelFileError) as caught:
        gc.load_torch_state(ex, path)
    assert words in str(caught.value)
    assert "safetensors.torch.save_file" in caught.value.hint
    same(ex, before)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(gc.ModelFileError, match="cannot read nowhere"):
        gc.load_torch_state(executor(), "nowhere")


def test_square_weights_are_transposed_on_any_axis(tmp_path: Path) -> None:
    net = gc.Net("square")
    h = gc.affine(net.input("x", (gc.N, 3, 4)), 4, axis=-1, name="steps")
    net.output("y", gc.affine(gc.reshape(h[:, 0], (gc.N, 4)), 4, name="row"))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    given = dict.fromkeys(("steps.weight", "row.weight"), weights)
    given |= dict.fromkeys(("steps.bias", "row.bias"), np.zeros(4, np.float32))
    names = gc.load_torch_state(ex, given).names
    back = load_file(gc.save_torch_state(tmp_path / "back.safetensors", ex, names=names))
    for layer in ("steps.weight", "row.weight"):
        np.testing.assert_array_equal(ex.parameters[layer], weights.T)
        np.testing.assert_array_equal(back[layer], weights)


def test_there_and_back_with_torch(tmp_path: Path) -> None:
    torch = needs("torch")
    from safetensors import torch as safetensors_torch

    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4),
        torch.nn.BatchNorm1d(4),
        torch.nn.PReLU(4),
        torch.nn.LayerNorm(4),
        torch.nn.Linear(4, 2, bias=False),
    )
    for _ in range(3):
        model(torch.randn(8, 3))
    net = gc.Net("same")
    h = gc.prelu(gc.batchnorm(gc.affine(net.input("x", (gc.N, 3)), 4)))
    net.output("y", gc.affine(gc.layernorm(h), 2, bias=False))
    ex = gc.Executor(gc.compile(net, batch=8))
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    wanted = model.eval()(torch.tensor(x)).detach().numpy()
    names = gc.load_torch_state(ex, model.state_dict()).names
    np.testing.assert_allclose(ex.predict(x), wanted, rtol=1e-4, atol=1e-6)
    other = torch.nn.Sequential(*(type(m)(*sizes(m)) for m in model[:4]), model[4]).eval()
    path = gc.save_torch_state(tmp_path / "back.safetensors", ex, names=names)
    other.load_state_dict(safetensors_torch.load_file(path))
    np.testing.assert_allclose(other(torch.tensor(x)).detach(), wanted, rtol=1e-4, atol=1e-6)


def sizes(module: Any) -> tuple[int, ...]:
    return (3, 4) if hasattr(module, "out_features") else (4,)


class Tensor:
    """An array as PyTorch has it: with a place in memory."""

    def __init__(self, array: Any, place: int) -> None:
        self._array, self._place = np.asarray(array, np.float32), place

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self._array

    def data_ptr(self) -> int:
        return self._place


def of_a_file(seed: int = 0) -> gc.Executor:
    """A net whose parameters have names of their own, as those of an ONNX file."""
    net = gc.Net("file")
    h = net.input("x", (gc.N, 3))
    gamma, beta = (net.parameter(f"enc.0.norm.{leaf}", (3,)) for leaf in LEAVES)
    h = gc.apply(LayerNorm(1e-5), h, gamma, beta)
    h = gc.affine(h, weight=net.parameter("enc.0.fc.weight", (3, 3)), bias=False)
    h = h @ net.parameter("enc.0.square.weight", (3, 3)) + net.state("places", (3,))
    net.output("y", h * net.parameter("scale", ()))
    return gc.Executor(gc.compile(net, batch=2, backend="numpy"), seed=seed)


def test_parameters_with_names_of_their_own_keep_them(tmp_path: Path) -> None:
    ex = of_a_file()
    found = load_file(gc.save_torch_state(tmp_path / "own.safetensors", ex))
    assert set(found) == {*ex.parameters, "places"}
    np.testing.assert_array_equal(found["enc.0.fc.weight"], ex.parameters["enc.0.fc.weight"].T)
    square = "enc.0.square.weight"
    np.testing.assert_array_equal(found[square], ex.parameters[square])
    other = of_a_file(seed=1)
    result = gc.load_torch_state(other, tmp_path / "own.safetensors")
    assert result.missing == result.unexpected == ()
    for name, array in ex.parameters.items():
        np.testing.assert_array_equal(other.parameters[name], array)
    del found["places"]  # a state of your own may be a buffer, or not
    gc.load_torch_state(other, {**found, "position_ids": np.arange(3)[None]})
    del found["enc.0.norm.weight"]
    with pytest.raises(gc.StateError, match=r"nothing for 'enc\.0\.norm\.weight'"):
        gc.load_torch_state(other, found)


def tied(ex: gc.Executor, place: int, head: Any = None) -> dict[str, Any]:
    """A state_dict in which `head.weight` is another name of `enc.0.square.weight`."""
    square = np.asarray(ex.parameters["enc.0.square.weight"])
    state = {name: Tensor(array, -i) for i, (name, array) in enumerate(ex.parameters.items(), 2)}
    return {
        **state,
        "enc.0.square.weight": Tensor(square, 1),
        "head.weight": Tensor(square if head is None else head, place),
    }


def test_a_tied_weight_has_several_names(tmp_path: Path) -> None:
    ex = of_a_file()
    other = of_a_file(seed=1)
    found = gc.load_torch_state(other, tied(ex, 1))
    assert found.unexpected == ()
    w = ex.parameters["enc.0.square.weight"]
    np.testing.assert_array_equal(other.parameters["enc.0.square.weight"], w)
    with pytest.raises(gc.StateError, match=r"no layer for 'head\.weight'"):
        gc.load_torch_state(other, tied(ex, 0))  # the same numbers elsewhere are not tied
    like = {**tied(ex, 1), "mask": np.ones((2, 2), bool), "places": np.zeros(3, np.float32)}
    other.parameters["enc.0.square.weight"] = w + 1
    path = gc.save_torch_state(tmp_path / "tied.safetensors", other, like=like)
    written = load_file(path)
    assert set(written) == set(like)
    for name in ("enc.0.square.weight", "head.weight"):
        np.testing.assert_array_equal(written[name], w + 1)
    np.testing.assert_array_equal(written["mask"], True)
    gc.load_torch_state(other, path)  # equal numbers in a file
    written["head.weight"] = w
    with pytest.raises(gc.StateError, match=r"no layer for 'head\.weight'"):
        gc.load_torch_state(other, written)
    written["enc.0.square.weight"] = written["head.weight"] = 0 * w  # equal by chance
    with pytest.raises(gc.StateError, match=r"no layer for 'head\.weight'"):
        gc.load_torch_state(other, written)
    like = {name: array for name, array in like.items() if name != "scale"}
    with pytest.raises(gc.StateError, match=r"its 'scale' \(\) is not there"):
        gc.save_torch_state(tmp_path / "never.safetensors", other, like=like)
    assert not (tmp_path / "never.safetensors").exists()


def test_a_counter_of_batches_goes_on(tmp_path: Path) -> None:
    ex = executor()
    names = gc.load_torch_state(ex, FILE).names
    theirs = load_file(FILE)["1.num_batches_tracked"]
    path = gc.save_torch_state(tmp_path / "on.safetensors", ex, names=names, like=FILE)
    assert load_file(path)["1.num_batches_tracked"] == theirs == 3
    trained = dict(load_file(FILE))
    assert load_file(path).keys() == trained.keys()
