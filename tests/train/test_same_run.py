"""A run is resumed only as it began; the error names what is other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.train.checkpoints import choices_mismatch
from tests.plans import compiled
from tests.train.nets import bits, table

X, Y = table(45)
HELD = table(20, seed=1)
ADAM = gc.Adam(lr=0.01)


@dataclass(frozen=True)
class Twice(gc.Op):
    """A user's own op."""

    def infer(self, ins):
        return ins[0]

    def reference(self, ins):
        return ins[0] * ins[0].dtype.type(2)

    def grad(self, b, ins, out, dout):
        return [b.apply(Twice(), dout)]


def declare(
    act: Callable[..., Any] = gc.relu,
    width: int = 6,
    keep: float | None = 0.8,
    loss: Callable[..., Any] = gc.softmax_loss,
    dtype: str = "float32",
    more: bool = False,
    offset: float = 0.5,
    init: Any = "he",
) -> gc.Net:
    net = gc.Net("net", dtype=dtype)
    x = net.input("x", (gc.N, 4))
    y = net.input("y", (gc.N,), dtype="int64")
    h = act(gc.affine(x, width, init=init, name="hidden"))
    h = h if keep is None else gc.dropout(h, keep_prob=keep, name="drop")
    scores = gc.affine(h, 3, name="scores")
    scores = scores + net.constant(np.full(3, offset, dtype))
    net.output("scores", scores)
    net.output("accuracy", gc.accuracy(scores, y))
    if more:
        net.output("shares", gc.softmax(scores))
    net.loss("loss", loss(scores, y))
    return net


def executor(net: gc.Net | None = None, seed: int = 0, **choices: Any) -> gc.Executor:
    options = {"optimizer": ADAM, "batch": 8, "backend": "numpy", **choices}
    plan = gc.compile(net, **options) if net else compiled(declare, **options)
    return gc.Executor(plan, seed=seed)


def train(ex: gc.Executor, folder: Path, **options: Any) -> gc.History:
    options = {"epochs": 2, "validation": HELD, **options}
    return gc.fit(ex, options.pop("data", (X, Y)), checkpoint=folder, progress=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run of two epochs."""
    path = tmp_path_factory.mktemp("run")
    train(executor(), path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(ex: gc.Executor, folder: Path, **options: Any) -> str:
    """The words of the refusal, which changes neither executor nor folder."""
    before = bits(ex), content(folder)
    with pytest.raises(gc.GraphError) as caught:
        train(ex, folder, **{"epochs": 3, "resume": True, **options})
    assert (bits(ex), content(folder)) == before
    assert len(str(caught.value).splitlines()) <= 15
    return str(caught.value)


OTHER_NETS: dict[str, tuple[dict[str, Any], str]] = {
    "activation": (
        {"act": gc.tanh},
        "fit: the run to resume trained another net: relu 'relu_1' is tanh 'tanh_1' now\n"
        "  before  relu_1: float32[N, 6] = relu(hidden)\n"
        "  now     tanh_1: float32[N, 6] = tanh(hidden)  declared at test_same_run.py:",
    ),
    "loss": (
        {"loss": gc.svm_loss},
        "had another loss: layer softmax_loss 'softmax_loss_1' is layer svm_loss 'svm_loss_1'",
    ),
    "width": (
        {"width": 7},
        "trained another net: parameter 'hidden.weight' is different now\n"
        "  before  hidden.weight: float32[4, 6] = parameter()",
    ),
    "no dropout": ({"keep": None}, "trained another net: layer dropout 'drop' is gone"),
    "dropout": (
        {"keep": 0.5},
        "trained another net: layer dropout 'drop' is different now\n"
        "  before  drop: float32[N, 6] = layer dropout(relu_1, seed, draws)  keep_prob=0.8",
    ),
    "constant": ({"offset": 0.25}, "trained another net: constant 'constant_1' is different now"),
    "output": ({"more": True}, "trained another net: softmax 'softmax_1' is new"),
    "dtype": ({"dtype": "float64"}, "trained another net: input 'x' is different now"),
    "own op": ({"act": lambda x: gc.apply(Twice(), x)}, "trained another net: relu 'relu_1' is"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("what", OTHER_NETS)
def test_another_net_is_reported_with_its_difference(folder: Path, what: str) -> None:
    changes, words = OTHER_NETS[what]
    said = refused(executor(declare(**changes)), folder)
    assert words in said


OTHER_OPTIMIZERS: dict[str, tuple[gc.optim.Optimizer, str]] = {
    "class": (gc.SGD(0.01), "had the optimizer Adam, now it is SGD"),
    "rate": (gc.Adam(lr=0.5), "had lr 0.01, now it is 0.5"),
    "beta": (gc.Adam(lr=0.01, beta1=0.8), "had beta1 0.9, now it is 0.8"),
    "decay": (gc.Adam(lr=0.01, weight_decay=0.1), "had weight_decay 0.0, now it is 0.1"),
    "clip": (gc.Adam(lr=0.01, clip_norm=1.0), "had clip_norm None, now it is 1.0"),
    "accumulate": (gc.Adam(lr=0.01, accumulate=2), "had accumulate 1, now it is 2"),
    "schedule": (gc.Adam(lr=0.01, schedule=gc.Cosine(total=9)), "had schedule None, now it is Co"),
    "group": (gc.Adam(lr=0.01, groups=[gc.Group("scores.*", lr=0.1)]), "had groups"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("what", OTHER_OPTIMIZERS)
def test_another_optimizer_is_reported_with_its_difference(folder: Path, what: str) -> None:
    optimizer, words = OTHER_OPTIMIZERS[what]
    assert words in refused(executor(optimizer=optimizer), folder)


OTHER_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 9}, "had seed 0, now it is 9"),
    "order": ({"shuffle": False}, "had shuffle True, now it is False"),
    "batch": ({"batch": 4}, "had batch 8, now it is 4"),
    "rows": ({"data": (X[:40], Y[:40])}, "had rows 45, now it is 40"),
    "numbers": (
        {"data": (X + 1, Y)},
        "had other data: x float32[45, 4], y int64[45], with other numbers",
    ),
    "one label": (
        {"data": (X, np.where(np.arange(45) == 20, (Y + 1) % 3, Y))},
        "had other data: x float32[45, 4], y int64[45], with other numbers",
    ),
    "no validation": ({"validation": None}, "had validation data, now it has none"),
    "validation": (
        {"validation": table(21, seed=1)},
        "had other validation data: x float32[20, 4], y int64[20], now x float32[21, 4]",
    ),
    "epochs": ({"epochs": 1}, "already has 2 epochs, epochs is 1"),
}


@pytest.mark.parametrize("what", OTHER_OPTIONS)
def test_other_data_and_options_are_reported(folder: Path, what: str) -> None:
    options, words = OTHER_OPTIONS[what]
    assert words in refused(executor(), folder, **options)


def test_validation_data_that_come_later_are_reported(tmp_path: Path) -> None:
    train(executor(), tmp_path, validation=None)
    assert "had no validation data, now it has" in refused(executor(), tmp_path)


def test_other_weights_of_classes_are_reported(tmp_path: Path) -> None:
    net = gc.Net("weighted")
    x, y, w = net.input("x", (gc.N, 4)), net.input("y", gc.N, dtype="int64"), net.input("w", gc.N)
    net.loss("loss", gc.softmax_loss(gc.affine(x, 3), y, weight=w))
    options = {"validation": None, "data": {"x": X, "y": Y}}
    train(executor(net), tmp_path, class_weight={0: 2.0, 1: 1.0, 2: 1.0}, **options)
    words = refused(executor(net), tmp_path, class_weight={0: 3.0, 1: 1.0, 2: 1.0}, **options)
    assert "had class_weight {'0': 2.0, '1': 1.0, '2': 1.0}, now it is {'0': 3.0" in words


def test_other_parameters_to_train_are_reported(tmp_path: Path) -> None:
    sgd = gc.SGD(0.1)
    train(executor(optimizer=sgd), tmp_path)
    words = refused(executor(optimizer=sgd, wrt=["scores.*"]), tmp_path)
    assert "trained the parameter 'hidden.bias', wrt says otherwise" in words


# ---------------------------------------------------------------------- what may change


def resumed(ex: gc.Executor, folder: Path, **options: Any) -> dict[str, bytes]:
    train(ex, folder, **{"epochs": 4, "resume": True, **options})
    return bits(ex)


def test_what_a_checkpoint_replaces_may_be_other(tmp_path: Path) -> None:
    straight = executor()
    train(straight, tmp_path / "straight", epochs=4)
    others = [
        executor(seed=7),
        executor(declare(init="glorot")),
        executor(declare(init=np.random.default_rng().normal(size=(4, 6)))),
        executor(declare(act=lambda x: gc.relu(x, name="another_name"))),
    ]
    for number, ex in enumerate(others):
        train(executor(), tmp_path / str(number))
        assert resumed(ex, tmp_path / str(number)) == bits(straight)


@pytest.mark.slow
def test_the_backend_may_be_another(tmp_path: Path) -> None:
    train(executor(), tmp_path)
    train(executor(backend=None), tmp_path, epochs=3, resume=True)


class Halve(gc.Callback):
    """Lowers the rate after each epoch."""

    def __call__(self, epoch: gc.Epoch) -> None:
        epoch.ex.hyper["lr"] /= 2


def test_a_rate_that_callbacks_lowered_goes_on(tmp_path: Path) -> None:
    straight = executor()
    train(straight, tmp_path / "straight", epochs=4, callbacks=[Halve()])
    ex = executor()
    train(ex, tmp_path / "run", callbacks=[Halve()])
    train(ex, tmp_path / "run", epochs=3, callbacks=[Halve()], resume=True)  # the same executor
    assert resumed(executor(), tmp_path / "run", callbacks=[Halve()]) == bits(straight)


def test_a_rate_that_is_set_by_hand_is_reported(folder: Path) -> None:
    ex = executor()
    ex.hyper["lr"] = 0.25
    assert "had lr 0.01, now it is 0.25" in refused(ex, folder)


def test_a_rate_of_an_optimizer_with_a_name_is_compared_as_well(tmp_path: Path) -> None:
    named = gc.Adam(lr=0.01, name="second")
    train(executor(optimizer=named), tmp_path)
    ex = executor(optimizer=named)
    ex.hyper["lr"] = 0.25
    assert "had lr 0.01, now it is 0.25" in refused(ex, tmp_path)


def test_the_way_to_another_rate_that_the_error_names(folder: Path, tmp_path: Path) -> None:
    said = refused(executor(optimizer=gc.Adam(lr=0.5)), folder)
    newest = gc.Checkpoints(folder).last
    assert f"gc.load({str(newest)!r}, optimizer=...)" in said
    assert newest is not None
    ex = gc.load(newest, optimizer=gc.Adam(lr=0.5))
    assert ex.hyper["lr"] == 0.5
    before = executor()
    train(before, tmp_path / "before")
    assert bits(ex)["hidden.weight"] == bits(before)["hidden.weight"]
    assert len(train(ex, tmp_path / "on").epochs) == 2


def test_a_checkpoint_of_an_older_version(tmp_path: Path, monkeypatch) -> None:
    straight = executor()
    train(straight, tmp_path / "straight", epochs=4)
    fit_module = sys.modules["graphc.train.fit"]
    with monkeypatch.context() as older:
        older.setattr(fit_module, "kind_of_run", lambda *args: {})
        train(executor(), tmp_path / "run", callbacks=[Halve()])
        train(executor(), tmp_path / "same")
    assert "relu 'relu_1' is tanh" in refused(executor(declare(gc.tanh)), tmp_path / "run")
    assert "had lr 0.01, now it is 0.5" in refused(
        executor(optimizer=gc.Adam(0.5)), tmp_path / "run"
    )
    train(executor(), tmp_path / "run", epochs=3, resume=True)
    assert resumed(executor(), tmp_path / "same") == bits(straight)


@pytest.mark.parametrize("notes", [{"epochs": 3}, {"odd": []}])
def test_a_checkpoint_that_says_what_cannot_be(tmp_path: Path, notes, monkeypatch) -> None:
    from graphc.files import serialize
    from graphc.train import checkpoints

    real = serialize.write_checkpoint
    monkeypatch.setattr(
        checkpoints,
        "write_checkpoint",
        lambda path, ex, said, arrays: real(path, ex, {**said, "history": notes}, arrays),
    )
    train(executor(), tmp_path)
    monkeypatch.undo()
    assert "a run cannot be made from it" in refused(executor(), tmp_path)


# ---------------------------------------------------------------------- folders


def test_a_folder_that_another_run_has(tmp_path: Path) -> None:
    straight, inner = executor(), executor(seed=1)
    said = []

    def meanwhile(epoch: gc.Epoch) -> None:
        with pytest.raises(gc.GraphError) as caught:
            train(inner, tmp_path, resume=True)
        said.append(str(caught.value))

    before = bits(inner)
    train(straight, tmp_path, callbacks=[meanwhile])
    assert len(said) == 2
    assert f"{tmp_path} is in use by process" in said[0]
    assert bits(inner) == before
    assert sorted(content(tmp_path)) == ["best.gc", "step-000000006.gc", "step-000000012.gc"]
    assert resumed(executor(), tmp_path, epochs=2) == bits(straight)


@pytest.mark.parametrize("failing", ["callback", "refusal", "interrupt"])
def test_a_run_that_fails_lets_go_of_its_folder(tmp_path: Path, failing: str) -> None:
    def fail(epoch: gc.Epoch) -> None:
        raise KeyboardInterrupt if failing == "interrupt" else RuntimeError

    if failing == "refusal":
        train(executor(), tmp_path)
        refused(executor(declare(gc.tanh)), tmp_path)
    else:
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            train(executor(), tmp_path, callbacks=[fail])
    assert not list(tmp_path.glob(".*"))
    train(executor(), tmp_path, resume=True)


def test_checkpoints_and_a_record_in_one_folder(tmp_path: Path) -> None:
    train(executor(), tmp_path, record=tmp_path)
    train(executor(), tmp_path, record=tmp_path, epochs=3, resume=True)
    assert gc.replay(tmp_path, step=18).unlike is None


def interrupted_at(count: int, folder: Path) -> bool:
    """Train, with an interrupt before one instruction of what looks after files; whether it was."""
    watched = {
        sys.modules[name].__file__ for name in ("graphc.files.disk", "graphc.train.checkpoints")
    }
    left = count

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in watched:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    ex = executor()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        train(ex, folder, epochs=1, resume=True)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_data_are_the_same_by_their_digest_however_they_are_described() -> None:
    was = {"kind": "shards", "digest": "0a", "described": "3 shards"}
    now = {**was, "described": "3 part files"}
    assert choices_mismatch({"data": was}, {"data": now}) is None
    mismatch = choices_mismatch({"data": was}, {"data": {**now, "digest": "0b"}})
    assert mismatch is not None
    assert mismatch.words == "had other data: 3 shards, now 3 part files"


@pytest.mark.slow
def test_an_interrupt_at_every_fifth_instruction_lets_go_of_the_folder(tmp_path: Path) -> None:
    straight = executor()
    train(straight, tmp_path / "straight", epochs=1)
    count = 1
    while interrupted_at(count, tmp_path / str(count)):
        assert resumed(executor(), tmp_path / str(count), epochs=1) == bits(straight)
        assert not list((tmp_path / str(count)).glob(".*"))
        shutil.rmtree(tmp_path / str(count))
        count += 5
    assert count > 1000
