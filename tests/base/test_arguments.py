"""Numbers of NumPy, as every search over an array gives them, mean what Python's mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import layers
from graphc.base.arguments import checked_number, checked_whole, listed, sizes_of, whole
from graphc.data import stratified_split
from graphc.kernels.philox import key_of
from graphc.train.callbacks import EarlyStopping
from graphc.train.checkpoints import Checkpoints
from tests.together import together

Whole = Callable[[int], Any]
ARRAY = np.asarray
KINDS: list[Whole] = [np.int64, np.int16, np.uint8, ARRAY]
FLAT, SEQUENCE, IMAGE, IDS = (gc.N, 6), (gc.N, 5, 6), (gc.N, 4, 8, 8), (gc.N, 3)

OPS: dict[str, tuple[tuple[Any, ...], Callable[[gc.Value, Whole], Any]]] = {
    "affine": (FLAT, lambda x, w: gc.affine(x, w(3))),
    "affine, axis": (SEQUENCE, lambda x, w: gc.affine(x, w(3), axis=w(2))),
    "mlp": (FLAT, lambda x, w: gc.mlp(x, [w(3), w(4)], w(2))),
    "argmax": (FLAT, lambda x, w: gc.argmax(x, w(1))),
    "topk": (FLAT, lambda x, w: gc.topk(x, w(2), w(1))),
    "sort": (FLAT, lambda x, w: gc.sort(x, w(1))),
    "concat": (FLAT, lambda x, w: gc.concat([x, x], w(1))),
    "stack": (FLAT, lambda x, w: gc.stack([x, x], w(1))),
    "conv2d": (
        IMAGE,
        lambda x, w: gc.conv2d(x, w(8), w(3), w(2), padding=w(1), dilation=w(1), groups=w(2)),
    ),
    "conv2d, pairs": (IMAGE, lambda x, w: gc.conv2d(x, 8, (w(3), w(2)), padding=((w(1), 0), 2))),
    "conv_transpose2d": (IMAGE, lambda x, w: gc.conv_transpose2d(x, 8, 3, 2, output_padding=w(1))),
    "max_pool": (IMAGE, lambda x, w: gc.max_pool(x, w(2), w(2), padding=w(1))),
    "adaptive_avg_pool": (IMAGE, lambda x, w: gc.adaptive_avg_pool(x, w(2))),
    "groupnorm": (IMAGE, lambda x, w: gc.groupnorm(x, w(2))),
    "softmax": (FLAT, lambda x, w: gc.softmax(x, w(1))),
    "sum": (SEQUENCE, lambda x, w: gc.sum(x, (w(1), w(2)))),
    "mean": (FLAT, lambda x, w: gc.mean(x, w(1))),
    "cumsum": (FLAT, lambda x, w: gc.cumsum(x, w(1))),
    "cosine_similarity": (FLAT, lambda x, w: gc.cosine_similarity(x, x, w(1))),
    "embedding": (IDS, lambda x, w: gc.embedding(x, w(9), w(4))),
    "one_hot": (IDS, lambda x, w: gc.one_hot(x[:, 0], w(9))),
    "gather": (FLAT, lambda x, w: gc.gather(x, w(2), w(1))),
    "slice": (FLAT, lambda x, w: x[:, w(1) : w(5) : w(2)]),
    "index": (FLAT, lambda x, w: x[:, w(1)]),
    "reshape": (FLAT, lambda x, w: gc.reshape(x, (gc.N, w(2), w(3)))),
    "broadcast_to": (FLAT, lambda x, w: gc.broadcast_to(x, (w(2), gc.N, w(6)))),
    "expand": (FLAT, lambda x, w: gc.expand(x, (w(2), gc.N, w(6)))),
    "split": (FLAT, lambda x, w: gc.split(x, w(2), w(1))),
    "split, lengths": (FLAT, lambda x, w: gc.split(x, [w(2), w(4)], w(1))),
    "tile": (FLAT, lambda x, w: gc.tile(x, (w(1), w(2)))),
    "repeat": (FLAT, lambda x, w: gc.repeat(x, w(2), w(1))),
    "flip": (FLAT, lambda x, w: gc.flip(x, w(1))),
    "roll": (FLAT, lambda x, w: gc.roll(x, w(2), w(1))),
    "unsqueeze": (FLAT, lambda x, w: gc.unsqueeze(x, w(1))),
    "tril": (SEQUENCE, lambda x, w: gc.tril(x, w(1))),
    "transpose": (SEQUENCE, lambda x, w: gc.transpose(x, (w(0), w(2), w(1)))),
    "resize": (IMAGE, lambda x, w: gc.resize(x, (w(4),), axes=(w(2),))),
    "pad": (FLAT, lambda x, w: gc.pad(x, (w(0), (w(1), w(2))))),
    "clip": (FLAT, lambda x, w: gc.clip(x, w(0), w(2))),
    "gru": (SEQUENCE, lambda x, w: gc.gru(x, w(4))),
    "multi_head_attention": (SEQUENCE, lambda x, w: gc.multi_head_attention(x, w(2))),
    "softmax_loss": (FLAT, lambda x, w: gc.softmax_loss(x, gc.argmax(x), ignore=w(1))),
    "input": (FLAT, lambda x, w: x.builder and gc.Net().input("z", (gc.N * w(2), w(4)))),
    "parameter": (FLAT, lambda x, w: gc.Net().parameter("z", w(4))),
}


def declared(name: str, kind: Whole) -> str:
    """The graph that a call gives, as text."""
    shape, call = OPS[name]
    net = gc.Net("n")
    found = call(net.input("x", shape, dtype="int64" if shape is IDS else None), kind)
    first = found[0] if isinstance(found, (list, tuple)) else found
    return f"{first.type} {net.graph() if net.builder.outputs else net.builder.nodes}"


@together("name", OPS)
def test_ops_take_whole_numbers_of_any_library(name: str) -> None:
    for kind in KINDS:
        assert declared(name, kind) == declared(name, int)


def test_lists_of_whole_numbers_may_be_arrays() -> None:
    x = gc.Net().input("x", IMAGE)
    assert gc.conv2d(x, 4, np.array([3, 2]), np.array([2, 1])).shape == (gc.N, 4, 3, 7)
    assert gc.pad(x, np.array([[0, 0], [0, 0], [1, 2], [0, 0]])).shape == (gc.N, 4, 11, 8)
    assert [part.shape[1] for part in gc.split(x, np.array([1, 3]), 1)] == [1, 3]
    assert gc.mlp(x, np.array([3, 4]), 2).shape == (gc.N, 2)
    assert gc.Net().input("x", np.array([3, 4])).shape == (3, 4)


def test_a_type_holds_plain_sizes() -> None:
    type = gc.TensorType((np.int64(3), gc.N * np.int8(2)), "float32")  # type: ignore[operator]
    assert [kind.__class__ for kind in type.shape[:1]] == [int]
    assert type is gc.TensorType((3, gc.N * 2), "float32")


def net() -> gc.Net:
    made = gc.Net("n")
    x, y = made.input("x", (gc.N, 4)), made.input("y", (gc.N,), dtype="int64")
    scores = made.output("scores", gc.affine(x, 3))
    made.loss("loss", gc.softmax_loss(scores, y))
    return made


DATA = np.linspace(-1, 1, 48).reshape(12, 4), np.arange(12) % 3


def trained(w: Whole, folder: Path) -> bytes:
    """The parameters after training with all numbers of one kind."""
    schedule = gc.WarmUp(w(2), then=gc.Cosine(w(30), warmup=w(3)))
    optimizer = gc.SGD(lr=0.1, accumulate=w(2), schedule=schedule)
    plan = gc.compile(net(), batch=w(8), optimizer=optimizer, backend="numpy", budget=w(10**5))
    ex = gc.Executor(plan, seed=w(1))
    assert type(plan.batch) is int and plan.memory.at(w(3)).total == plan.memory.at(3).total
    saved = Checkpoints(folder, every=w(2))
    gc.fit(
        ex,
        DATA,
        epochs=w(2),
        batch=w(4),
        seed=w(3),
        checkpoint=saved,
        callbacks=[EarlyStopping(w(2), watch="loss")],
    )
    ex.profile(x=DATA[0][:4], y=DATA[1][:4], rounds=w(1))
    gc.save(folder / "n.gc", ex)
    assert gc.load(folder / "n.gc", batch=w(3)).plan.batch == gc.freeze(ex, batch=w(3)).plan.batch
    return ex.parameters.flat().tobytes()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", [np.int64, np.int32, ARRAY])
def test_training_takes_whole_numbers_of_any_library(kind: Whole, tmp_path: Path) -> None:
    assert trained(kind, tmp_path / "a") == trained(int, tmp_path / "b")


@pytest.mark.parametrize("name", ["batch", "threads", "shards", "ranks", "budget"])
@together("given", [np.bool_(True), True, 2.0, np.float64(2), "2", 0])
def test_other_values_than_whole_numbers_are_refused_in_the_same_words(
    name: str, given: Any
) -> None:
    options: dict[str, Any] = {"batch": 4, "backend": "numpy", name: given}
    with pytest.raises(gc.GraphError) as refused:
        gc.compile(net(), **options)
    wanted = f"{name} is {given!r}, it must be a whole number from 1 up"
    assert refused.value.sentence == wanted


def test_rates_of_numpy_are_shown_as_numbers() -> None:
    half = np.float32(0.5)
    cosine = gc.Cosine(total=np.int64(10), floor=half)
    assert str(gc.SGD(lr=half, nesterov=np.True_, momentum=half, schedule=cosine)) == (
        "SGD(lr=0.5, momentum=0.5, nesterov=True, schedule=Cosine(total=10, floor=0.5))"
    )


def test_seeds_and_shares_of_numpy() -> None:
    rows = [stratified_split(DATA[1], 0.25, seed=kind(3))[1].tolist() for kind in KINDS]
    assert rows == [rows[0]] * len(KINDS)
    kept = {"p": np.float32(0.5), "mode": "train", "seed": np.int64(3)}
    ours = {"p": 0.5, "mode": "train", "seed": 3}
    x = np.ones((3, 4))
    assert (layers.dropout_forward(x, kept)[0] == layers.dropout_forward(x, ours)[0]).all()
    assert key_of(np.int8(-1)) == key_of(-1)  # type: ignore[arg-type]


def test_whole() -> None:
    assert [type(whole(kind(3))) for kind in KINDS] == [int] * 4
    assert whole(2, 3) is None and whole(True) is None and whole(np.array([1, 2])) is None
    assert checked_whole("n", np.int8(0), 0) == 0
    with pytest.raises(gc.StateError, match=r"^n is 1.5, it must be a whole number\n"):
        checked_whole("n", 1.5, None, error=gc.StateError)


def test_listed() -> None:
    assert listed([np.int64(1), 2]) == listed(np.array([1, 2])) == (1, 2)
    assert listed("12") is None and listed(3) is None and listed(np.array(3)) is None
    assert sizes_of(np.int64(3)) == (3,) and sizes_of((gc.N, 2)) == (gc.N, 2)


@pytest.mark.parametrize(
    ("bounds", "wanted", "good", "bad"),
    [
        ({}, "a finite number", [-3, 0.5], [np.inf, np.nan, "1", True, None]),
        ({"above": 0}, "above 0", [1e-300, 2], [0, -1, np.nan, np.inf]),
        ({"least": 0}, "0 or more", [0, 7], [-1e-300, "0"]),
        ({"above": 0, "below": 1}, "above 0 and below 1", [0.5], [0, 1]),
        ({"least": 0, "below": 1}, "from 0 to below 1", [0, 0.5], [1, -1]),
        ({"least": 0, "most": 1}, "from 0 to 1", [0, 1, np.float32(0.5)], [1.5, -0.5]),
    ],
)
def test_a_number_within_bounds_becomes_a_float(
    bounds: dict[str, float], wanted: str, good: list[Any], bad: list[Any]
) -> None:
    for number in good:
        found = checked_number("share", number, **bounds)
        assert type(found) is float
        assert found == number
    for number in bad:
        with pytest.raises(gc.GraphError) as caught:
            checked_number("share", number, hint="so", **bounds)
        assert str(caught.value).startswith(f"share is {number!r}, it must be {wanted}\n")
        assert caught.value.hint == "so"
