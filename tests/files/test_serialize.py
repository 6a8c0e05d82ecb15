"""Saving, loading, pickling and copying: the same model, bit for bit, or a clear refusal."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.files.container import pack, unpack
from graphc.files.serialize import from_bytes, to_bytes
from tests.extras import needs
from tests.plans import compiled

ROWS = 12


@dataclass(frozen=True)
class Scale(gc.Op):
    """A user's own op."""

    by: float

    def infer(self, ins):
        return ins[0]

    def reference(self, ins):
        return ins[0] * ins[0].dtype.type(self.by)

    def grad(self, b, ins, out, dout):
        return [b.apply(Scale(self.by), dout)]


def declare(own: bool = False) -> gc.Net:
    net = gc.Net("small")
    x = net.input("x", (gc.N, 5))
    y = net.input("y", (gc.N,), dtype="int64")
    start = np.linspace(-1, 1, 20, dtype=np.float64).reshape(5, 4)
    h = x @ net.parameter("first", (5, 4), init=start)
    h = gc.dropout(gc.relu(gc.batchnorm(h)), keep_prob=0.75)
    h = h * net.constant(np.linspace(0.5, 1.5, 40, dtype=np.float32).reshape(10, 4)[:1])
    h = gc.affine(h, 20) + net.constant(np.linspace(-1, 1, 20, dtype=np.float32))
    if own:
        h = gc.apply(Scale(1.25), h)
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


OPTIMIZER = gc.Adam(
    lr=0.02, clip_norm=2.0, schedule=gc.WarmUp(3, then=gc.Cosine(total=50)), decay=("*.weight",)
)


def trained(steps: int = 3, *, own: bool = False, **choices) -> gc.Executor:
    plan = compiled(declare, own, batch=ROWS, **{"optimizer": OPTIMIZER, **choices})
    ex = gc.Executor(plan, seed=2**70 + 5)
    for i in range(steps):
        ex.step(rows(i))
    return ex


def rows(i: int, n: int = ROWS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(i)
    return {"x": rng.normal(size=(n, 5)).astype(np.float32), "y": rng.integers(0, 3, n)}


def assert_same(a: gc.Executor, b: gc.Executor) -> None:
    assert list(a.state) == list(b.state)
    for name, array in a.state.items():
        assert array.dtype == b.state[name].dtype
        assert array.tobytes() == b.state[name].tobytes(), name


def assert_go_on_alike(a: gc.Executor, b: gc.Executor) -> None:
    assert_same(a, b)
    for i in range(10, 14):
        assert a.step(rows(i)) == b.step(rows(i))
    assert_same(a, b)


# ---------------------------------------------------------------------- round trips


@pytest.mark.one_in(10)
@pytest.mark.parametrize(
    "optimizer",
    [
        OPTIMIZER,
        gc.SGD(lr=0.1),
        gc.SGD(0.1, momentum=0.9, nesterov=True, schedule=gc.Step(2, 0.5)),
        gc.AdamW(accumulate=2),
        gc.RMSprop(momentum=0.5),
        gc.Lion(weight_decay=0.1),
    ],
)
def test_training_goes_on_bit_for_bit(tmp_path, optimizer):
    ex = trained(optimizer=optimizer)
    ex.hyper["lr"] = 0.0123
    assert gc.save(tmp_path / "m.gc", ex) == tmp_path / "m.gc"
    again = gc.load(tmp_path / "m.gc")
    assert again.plan.optimizer == optimizer
    assert again.plan.batch == ROWS
    assert again.state.seed == 2**70 + 5
    assert_go_on_alike(ex, again)


def test_the_graph_comes_back_with_its_numbers(tmp_path):
    ex = trained()
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc").plan.declared
    mine = ex.plan.declared
    assert [(n.name, n.op, n.inputs, n.type) for n in mine] == [
        (n.name, n.op, n.inputs, n.type) for n in again
    ]
    assert dict(mine.outputs) == dict(again.outputs)
    assert mine.losses == again.losses


def test_choices_of_compile_come_back(tmp_path):
    passes = gc.passes.without("cse", "fuse_affine_relu")
    ex = trained(wrt="scores.*", outputs=["scores", "relu_1"], passes=passes)
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc")
    assert again.plan.wrt == ex.plan.wrt == ("scores.weight", "scores.bias")
    assert set(again.plan.declared.outputs) == {"scores", "relu_1", "loss"}
    assert again.plan.options.passes.names == passes.names
    assert str(again.plan) == str(ex.plan)
    assert_go_on_alike(ex, again)


def test_synchronised_shards_come_back(tmp_path):
    net = gc.Net("shards")
    h = gc.batchnorm(gc.affine(net.input("x", (gc.N, 3)), 4))
    net.loss("loss", gc.mean(gc.tanh(h)))
    options = {"batch": 8, "shards": 2, "sync_batchnorm": True, "optimizer": gc.SGD(lr=0.1)}
    ex = gc.Executor(gc.compile(net, **options, backend="numpy"))
    again = gc.load(gc.save(tmp_path / "m.gc", ex))
    x = np.random.default_rng(0).normal(size=(8, 3)) * np.arange(1, 9)[:, None]
    assert again.step(x=x) == ex.step(x=x)
    assert_same(ex, again)


def test_an_inference_plan(tmp_path):
    ex = trained(0, optimizer=None)
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc")
    np.testing.assert_array_equal(again.predict(rows(0)["x"]), ex.predict(rows(0)["x"]))


def test_frozen_executors_are_saved_with_their_newest_weights(tmp_path):
    ex = trained()
    frozen = gc.freeze(ex, batch=4)
    x = rows(0)["x"]
    before = frozen.predict(x)
    ex.step(rows(5))
    frozen.refresh(ex)
    gc.save(tmp_path / "m.gc", frozen)
    again = gc.load(tmp_path / "m.gc")
    np.testing.assert_array_equal(again.predict(x), frozen.predict(x))
    assert not np.array_equal(again.predict(x), before)
    ex.step(rows(6))
    again.refresh(ex)
    np.testing.assert_allclose(again.predict(x), ex.predict(x), rtol=1e-5, atol=1e-6)


def test_only_the_states_of_the_plan_are_saved(tmp_path):
    ex = trained()
    act = gc.Executor(gc.compile(declare(), batch=1), state=ex.state)
    gc.save(tmp_path / "m.gc", act)
    again = gc.load(tmp_path / "m.gc")
    assert "updates" not in again.state
    np.testing.assert_array_equal(again.parameters.flat(), ex.parameters.flat())


def test_any_safetensors_reader_opens_the_file(tmp_path):
    safetensors = needs("safetensors")
    ex = trained()
    gc.save(tmp_path / "m.gc", ex)
    with safetensors.safe_open(tmp_path / "m.gc", "numpy") as file:
        assert file.metadata()["format"] == "graphc 1"
        assert file.metadata()["graph"].startswith("graph small\n")
        for name, array in ex.state.items():
            np.testing.assert_array_equal(file.get_tensor(f"state/{name}"), array)


def test_the_same_model_has_the_same_bytes():
    ex = trained()
    assert to_bytes(ex) == to_bytes(ex) == to_bytes(from_bytes(to_bytes(ex)))


# ---------------------------------------------------------------------- other choices at loading


def test_another_batch(tmp_path):
    ex = trained()
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc", batch=3)
    assert again.plan.batch == 3
    assert_same(ex, again)
    with pytest.raises(gc.FeedError, match="takes up to 3"):
        again.step(rows(0))


def test_another_precision(tmp_path):
    ex, path, x = trained(), tmp_path / "m.gc", rows(0)["x"]
    gc.save(path, ex)
    chosen = {"scores": "bf16"}
    rounding = gc.load(path, precision=chosen)
    plan = gc.compile(declare(), batch=ROWS, optimizer=OPTIMIZER, precision=chosen)
    np.testing.assert_array_equal(rounding.predict(x), gc.Executor(plan, state=ex.state).predict(x))
    assert not np.array_equal(rounding.predict(x), ex.predict(x))
    gc.save(path, rounding)
    assert gc.load(path).plan.precision == chosen
    np.testing.assert_array_equal(gc.load(path, precision={}).predict(x), ex.predict(x))
    with pytest.raises(gc.GraphError, match="no layer that multiplies float32 matches 'score'"):
        gc.load(path, precision={"score": "bf16"})


def test_another_optimizer_of_the_class_keeps_slots_and_counters(tmp_path):
    ex = trained()
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc", optimizer=gc.Adam(lr=0.5))
    assert again.hyper["lr"] == 0.5
    assert "clip_norm" not in again.hyper
    assert int(again.state["updates"]) == 3
    np.testing.assert_array_equal(again.state["first.square"], ex.state["first.square"])


def test_an_optimizer_of_another_class_begins_anew(tmp_path):
    ex = trained()
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc", optimizer=gc.SGD(0.25, momentum=0.5))
    assert int(again.state["updates"]) == 0
    assert int(again.state["draws"]) == 3
    assert again.hyper["lr"] == 0.25
    assert not again.state["first.velocity"].any()
    assert "first.square" not in again.state
    np.testing.assert_array_equal(again.parameters.flat(), ex.parameters.flat())
    again.step(rows(0))


@pytest.mark.parametrize("choice", [{"batch": 0}, {"optimizer": "adam"}, {"ops": [3]}])
def test_a_choice_that_cannot_be_is_not_the_files_fault(tmp_path, choice):
    gc.save(tmp_path / "m.gc", trained(1))
    with pytest.raises(gc.GraphError) as caught:
        gc.load(tmp_path / "m.gc", **choice)
    assert not isinstance(caught.value, gc.ModelFileError)


# ---------------------------------------------------------------------- users' own ops and passes


def test_a_users_op_is_named_when_it_is_missing(tmp_path):
    ex = trained(own=True)
    gc.save(tmp_path / "m.gc", ex)
    with pytest.raises(gc.ModelFileError) as caught:
        gc.load(tmp_path / "m.gc")
    assert "uses your op" in str(caught.value)
    assert "gc.load(path, ops=[Scale])" in str(caught.value)
    assert_go_on_alike(ex, gc.load(tmp_path / "m.gc", ops=[Scale]))


def test_an_op_named_like_one_of_graphcs_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Mine(gc.Op):
        name = "relu"

        def infer(self, ins):
            return ins[0]

        def reference(self, ins):
            return ins[0]

    net = gc.Net()
    net.output("out", gc.apply(Mine(), net.input("x", (gc.N, 2))))
    ex = gc.Executor(gc.compile(net, batch=2))
    with pytest.raises(gc.GraphError, match="two ops are called 'relu'"):
        gc.save(tmp_path / "m.gc", ex)
    assert not list(tmp_path.iterdir())


def test_passes_of_the_users_own_are_left_out_with_a_warning(tmp_path):
    def mine(graph):
        return graph

    ex = trained(passes=gc.passes.after("cse", mine))
    with pytest.warns(UserWarning, match="not saved: mine") as caught:
        gc.save(tmp_path / "m.gc", ex)
    assert caught[0].filename == __file__
    assert_go_on_alike(ex, gc.load(tmp_path / "m.gc"))


# ---------------------------------------------------------------------- all or nothing


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = gc.save(tmp_path / "m.gc", trained())
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(gc.ModelFileError, match="No space left") as caught:
        gc.save(path, trained(1))
    assert "was not changed" in str(caught.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_no_pieces(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gc.save(tmp_path / "m.gc", trained(1))
    assert not list(tmp_path.iterdir())


def test_everything_is_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    gc.save(tmp_path / "m.gc", trained(1))
    assert events == ["sync", "replace", "sync"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "m.gc"
    link.symlink_to(tmp_path / "real" / "m.gc")
    gc.save(link, trained(1))
    assert link.is_symlink()
    gc.load(tmp_path / "real" / "m.gc")


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(gc.ModelFileError, match="cannot write"):
        gc.save(tmp_path / "nowhere" / "m.gc", trained(1))


def test_a_broken_executor_is_not_saved(tmp_path):
    ex = trained(1)
    ex.state.lock.broken = True
    with pytest.raises(gc.StateError, match="half-way"):
        gc.save(tmp_path / "m.gc", ex)


def test_only_executors_are_saved(tmp_path):
    with pytest.raises(gc.GraphError, match="save takes an executor, not Net"):
        gc.save(tmp_path / "m.gc", declare())


# ---------------------------------------------------------------------- damaged and foreign files


@pytest.fixture(scope="module")
def whole() -> bytes:
    return to_bytes(trained())


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(gc.ModelFileError) as caught:
        gc.load(path)
    text = str(caught.value)
    assert str(path) in text
    assert "hint: " in text
    assert Path(__file__).name in text
    return text


def test_a_file_cut_anywhere(tmp_path, whole):
    cuts = {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}
    cuts |= {random.Random(i).randrange(len(whole)) for i in range(40)}
    for cut in cuts:
        refused(tmp_path / "m.gc", whole[:cut])


def test_bytes_behind_the_end(tmp_path, whole):
    assert "its header describes" in refused(tmp_path / "m.gc", whole + b"\0" * 8)


def test_any_bit_flipped(tmp_path, whole):
    rng = random.Random(0)
    places = {*range(10), *rng.sample(range(len(whole)), 150)}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        refused(tmp_path / "m.gc", bytes(damaged))


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=200))
def test_garbage(tmp_path_factory, garbage):
    refused(tmp_path_factory.mktemp("garbage") / "m.gc", garbage)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(gc.ModelFileError, match="No such file"):
        gc.load(tmp_path / "m.gc")
    with pytest.raises(gc.ModelFileError, match="cannot read"):
        gc.load(tmp_path)


def test_safetensors_of_others(tmp_path):
    save = needs("safetensors.numpy").save
    text = refused(tmp_path / "m.gc", save({"w": np.zeros(3)}))
    assert "not a graphc model" in text


def container(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: object) -> bytes:
    described = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return container({"__metadata__": {"sha256": "0" * 64}, "w": described}, b"\0" * 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (entry(shape=[-2]), "an impossible shape"),
        (entry(shape=[True, 2]), "an impossible shape"),
        (entry(shape=[2.0]), "an impossible shape"),
        (entry(shape=[1] * 100), "an impossible shape"),
        (entry(shape=[2**62, 2**62]), "larger than any memory"),
        (entry(shape=[0, 2**70], data_offsets=[0, 0]), "larger than any memory"),
        (entry(shape=[3]), "not have the offsets"),
        (entry(data_offsets=[4, 12]), "not have the offsets"),
        (entry(data_offsets=[0, 8, 8]), "not have the offsets"),
        (entry(shape=[4], data_offsets=[0, 16]), "cut short"),
        (entry(dtype="F4"), "which graphc does not have"),
        (entry(dtype=["F32"]), "which graphc does not have"),
        (entry(extra=1), "not described as"),
        (entry(), "checksum"),
        (entry(dtype="BOOL", shape=[8]), "checksum"),
        (container([]), "not a table"),
        (container({}), "not a graphc model"),
        (container({"__metadata__": {"sha256": 3}}), "not text"),
        (container(b'{"a": 1, "a": 2}'), "appears twice"),
        (container(b"[" * 100_000), "cannot be read"),
        (container(b"\xff\xfe"), "cannot be read"),
        ((2**63).to_bytes(8, "little") + b"{}", "cut short"),
    ],
)
def test_headers_that_cannot_be(tmp_path, data, words):
    assert words in refused(tmp_path / "m.gc", data)


def changed(whole: bytes, edit) -> bytes:
    """A file with a right checksum and wrong content."""
    metadata, tensors = unpack(whole)
    model = json.loads(metadata["model"])
    edit(metadata, model, tensors)
    metadata.setdefault("model", json.dumps(model))
    return b"".join(pack(metadata, tensors))


EDITS = {
    "another format": lambda meta, model, t: meta.update(format="graphc 2"),
    "no format": lambda meta, model, t: meta.pop("format"),
    "no graph": lambda meta, model, t: meta.pop("graph"),
    "broken graph": lambda meta, model, t: meta.update(graph="graph a\nb: float32[2 = c()\n"),
    "empty graph": lambda meta, model, t: meta.update(graph="graph a\n"),
    "model is no table": lambda meta, model, t: meta.update(model="[]"),
    "model is no JSON": lambda meta, model, t: meta.update(model="{"),
    "a net": lambda meta, model, t: model.update(kind="net"),
    "negative batch": lambda meta, model, t: model["plan"].update(batch=-1),
    "batch of text": lambda meta, model, t: model["plan"].update(batch="8"),
    "unknown parameter": lambda meta, model, t: model["plan"].update(wrt=["nobody"]),
    "no plan": lambda meta, model, t: model.pop("plan"),
    "foreign optimizer": lambda meta, model, t: model["plan"].update(optimizer="Evil(x=1)"),
    "optimizer is none": lambda meta, model, t: model["plan"].update(optimizer="3"),
    "required pass left out": lambda meta, model, t: model["plan"].update(without=["backward"]),
    "a seed of text": lambda meta, model, t: model.update(seed="x"),
    "constant is missing": lambda meta, model, t: t.pop("constant/constant_2"),
    "constant of another type": lambda meta, model, t: t.update(
        {"constant/constant_2": np.zeros(20)}
    ),
    "initial values cut": lambda meta, model, t: t.update({"initial/first": np.zeros(3, np.uint8)}),
    "initial values of objects": lambda meta, model, t: model["initials"]["first"].__setitem__(
        0, "O"
    ),
    "state is missing": lambda meta, model, t: t.pop("state/first"),
    "state too many": lambda meta, model, t: t.update({"state/extra": np.zeros(3)}),
    "state of another type": lambda meta, model, t: t.update({"state/first": np.zeros((5, 4))}),
}


@pytest.mark.parametrize("name", EDITS)
def test_content_that_cannot_be(tmp_path, whole, name):
    def edit(metadata, model, tensors):
        del metadata["model"]
        EDITS[name](metadata, model, tensors)

    refused(tmp_path / "m.gc", changed(whole, edit))


CHARACTERS = st.characters(exclude_categories=["Cs"])
"""Those that UTF-8 has, which takes Hypothesis a second to find by itself."""


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(CHARACTERS, max_size=8),
        st.tuples(
            st.sampled_from(["float32", "float64", "int64", "int32", "uint64", "uint8", "bool"]),
            st.lists(st.integers(0, 4), max_size=4),
        ),
        max_size=6,
    ),
    st.dictionaries(st.text(CHARACTERS, max_size=8), st.text(CHARACTERS, max_size=20), max_size=3),
)
def test_the_container_gives_back_what_it_was_given(described, metadata):
    described.pop("__metadata__", None)
    metadata.pop("sha256", None)
    rng = np.random.default_rng(0)
    tensors = {k: rng.integers(0, 2, shape).astype(d) for k, (d, shape) in described.items()}
    data = b"".join(pack(metadata, tensors))
    text, arrays = unpack(data)
    assert text == metadata
    assert arrays.keys() == tensors.keys()
    for name, array in tensors.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    theirs = dict(needs("safetensors").deserialize(data))
    assert {k: bytes(v["data"]) for k, v in theirs.items()} == {
        k: v.tobytes() for k, v in tensors.items()
    }


# ---------------------------------------------------------------------- pickle and deepcopy


def pickle_twice(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("twin", [pickle_twice, copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("own", [False, True])
class TestTwins:
    def test_executor(self, twin, own):
        ex = trained(own=own)
        assert_go_on_alike(ex, twin(ex))

    def test_executors_are_independent(self, twin, own):
        ex = trained(own=own)
        other = twin(ex)
        other.step(rows(0))
        assert int(ex.state["updates"]) == 3
        assert int(other.state["updates"]) == 4

    def test_frozen_executor(self, twin, own):
        frozen = gc.freeze(trained(own=own), batch=5)
        x = rows(0)["x"]
        np.testing.assert_array_equal(twin(frozen).predict(x), frozen.predict(x))

    def test_refreshed_executor(self, twin, own):
        ex = trained(own=own)
        frozen = gc.freeze(ex, batch=5)
        ex.step(rows(0))
        frozen.refresh(ex)
        x = rows(0)["x"]
        np.testing.assert_array_equal(twin(frozen).predict(x), frozen.predict(x))

    def test_plan(self, twin, own):
        plan = trained(0, own=own).plan
        other = twin(plan)
        assert str(other) == str(plan)
        assert other.memory.total == plan.memory.total

    def test_net_can_go_on_being_declared(self, twin, own):
        net = declare(own)
        other = twin(net)
        assert str(other) == str(net)
        assert other.dtype == net.dtype
        extra = other.output("extra", gc.relu(other["scores"]))
        assert extra.name == gc.relu(net["scores"]).name
        assert extra.node.locs
        assert "extra" not in net.graph().outputs
        plan = gc.compile(other, batch=ROWS, optimizer=OPTIMIZER)
        assert gc.Executor(plan).step(rows(0)) == gc.Executor(
            gc.compile(declare(own), batch=ROWS, optimizer=OPTIMIZER)
        ).step(rows(0))


def test_executors_that_share_a_state_are_copied_so():
    ex = trained()
    act = gc.Executor(gc.compile(declare(), batch=1), state=ex.state)
    ex2, act2 = copy.deepcopy([ex, act])
    assert ex2.state is act2.state
    assert ex2.state is not ex.state
    ex2.step(rows(0))
    np.testing.assert_array_equal(act2.parameters.flat(), ex2.parameters.flat())
    assert not np.array_equal(ex2.parameters.flat(), ex.parameters.flat())
