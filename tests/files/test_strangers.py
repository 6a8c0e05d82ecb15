"""Models from strangers: made by hand for one weakness each, with checksums that are right.

Headers of the container that cannot be are in test_serialize.py.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import graphc as gc
from graphc.cli import main
from graphc.files import model_file
from graphc.files.serialize import from_bytes, to_bytes
from graphc.ir.text import parse_graph
from graphc.ir.text.graph import bytes_value
from tests.extras import needs
from tests.tools.fuzz_files.mutate import assembled
from tests.tools.fuzz_files.read import checkpoint
from tests.train.nets import classes, executor

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def whole() -> bytes:
    return to_bytes(executor(classes(), backend="numpy"))


def made(whole: bytes, change: Change) -> bytes:
    """The model with its metadata and notes changed, and its checksum made right."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    about = header["__metadata__"]
    notes = json.loads(about["model"])
    change(about, notes)
    if not isinstance(about["model"], bytes):
        about["model"] = json.dumps(notes)
    else:
        about["model"] = about["model"].decode()
    return assembled(header, whole[8 + length :], Random(0))


def refused(data: bytes, words: str) -> None:
    with pytest.raises(gc.ModelFileError) as caught:
        from_bytes(data)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


def plan_says(**said: Any) -> Change:
    return lambda about, notes: notes["plan"].update(said)


def notes_say(**said: Any) -> Change:
    return lambda about, notes: notes.update(said)


def text_says(old: str, new: str) -> Change:
    def change(about: dict[str, Any], notes: dict[str, Any]) -> None:
        assert old in about["graph"]
        about["graph"] = about["graph"].replace(old, new)

    return change


def raw_notes(text: str) -> Change:
    def change(about: dict[str, Any], notes: dict[str, Any]) -> None:
        about["model"] = text.encode()

    return change


HOSTILE: dict[str, tuple[Change, str]] = {
    "a batch of 100 million rows": (plan_says(batch=10**8), "takes too much work: more than"),
    "a batch beyond all memory": (plan_says(batch=10**18), "if that is intended, say so"),
    "a batch that is a fraction": (plan_says(batch=1.5), "must be a whole number"),
    "threads that are a text": (plan_says(threads="x"), "threads is 'x'"),
    "an optimizer with more behind it": (
        plan_says(optimizer="Cosine(lr=0.1, steps=3) 7"),
        "a plan cannot be made from it",
    ),
    "an optimizer that is a number": (plan_says(optimizer="7"), "not an optimizer of graphc"),
    "a pass that is a path": (plan_says(without=7), "a plan cannot be made"),
    "a seed that is NaN": (raw_notes('{"kind": "executor", "seed": NaN}'), "not a JSON number"),
    "a key that appears twice": (raw_notes('{"kind": "net", "kind": "plan"}'), "appears twice"),
    "lists in lists": (raw_notes("[" * 100_000), "a model cannot be made from it"),
    "a number of 5,000 digits": (
        raw_notes('{"kind": ' + "9" * 5000 + "}"),
        "cannot be made from it",
    ),
    "another kind": (notes_say(kind="pickle"), "cannot be made from it"),
    "a layer of 10^15 units": (text_says("8]", "1000000000000000]"), "cannot be made from it"),
    "a graph that reads itself": (
        text_says("relu_1: float32[N, 8] = relu(norm)", "relu_1: float32[N, 8] = relu(relu_1)"),
        "'relu_1' is not declared above",
    ),
    "a name with an escape": (text_says("graph classes", 'graph "\\u001b[2J"'), "not printable"),
    "a name from right to left": (text_says("graph classes", 'graph "\\u202e"'), "not printable"),
    "a name of 2,000 letters": (text_says("graph classes", "graph " + "a" * 2000), "2000 char"),
    "an attribute of another type": (text_says("keep_prob=0.8", 'keep_prob="x"'), "line"),
    "an attribute that is NaN": (text_says("keep_prob=0.8", "keep_prob=nan"), "line"),
    "an attribute of 400 digits": (
        text_says("keep_prob=0.8", "keep_prob=1" + "0" * 400),
        "not of type float",
    ),
    "a probability beyond 1": (text_says("keep_prob=0.8", "keep_prob=1.5"), "lie in (0, 1]"),
    "a probability of 0": (text_says("keep_prob=0.8", "keep_prob=0"), "lie in (0, 1]"),
    "a stream that is true": (text_says("keep_prob=0.8", "keep_prob=True"), "not of type float"),
    "an attribute that there is not": (text_says("keep_prob=0.8", "__class__=0.8"), "line"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_is_refused(kind: str, whole: bytes) -> None:
    change, words = HOSTILE[kind]
    refused(made(whole, change), words)


def test_a_large_batch_may_be_asked_for(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gc"
    path.write_bytes(made(whole, plan_says(batch=10**8)))
    assert gc.load(path, batch=4).plan.batch == 4


def test_memory_that_there_is_not(whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all limits of graphc: the system refuses, and the error says so."""

    def refuses(plan: gc.Plan, **options: Any) -> gc.Executor:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(model_file, "Executor", refuses)
    refused(whole, "an executor cannot be made from it: Unable to allocate 9 TiB")


# ---------------------------------------------------------------------- few bytes for many


def zeros(count: int) -> str:
    """So many bytes, compressed."""
    return base64.b64encode(zlib.compress(bytes(count), 9)).decode()


def test_a_hundred_megabytes_in_a_few_letters(whole: bytes) -> None:
    line = f'c: float32[26214400] = constant()  data=zlib"{zeros(100 << 20)}"\noutput scores'
    refused(made(whole, text_says("output scores", line)), "takes too much work: more than")


def test_many_that_are_each_allowed() -> None:
    small = zeros(20 << 20)
    lines = [f'c{i}: uint64[2621440] = constant()  data=zlib"{small}"' for i in range(4)]
    with pytest.raises(gc.GraphError, match=r"the text takes too much work: more than .* bytes"):
        parse_graph("\n".join(["graph g", *lines]), {"constant": constant_op()})


def constant_op() -> Any:
    from graphc.ops.source import Constant

    return Constant


def test_compressed_bytes_end_where_they_should() -> None:
    packed = zlib.compress(b"abc")
    assert bytes_value(base64.b64encode(packed).decode()) == b"abc"
    for data in (packed[:-1], packed + b"x", b""):
        with pytest.raises(ValueError, match="damaged"):
            bytes_value(base64.b64encode(data).decode())


# ---------------------------------------------------------------------- files and names


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", ["../../stolen", "/tmp/stolen", "..", "a/b", "\\x"])
def test_a_net_named_like_a_path_writes_where_it_should(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("renderer")
    net = gc.Net(name)
    x, y = net.input("x", (gc.N, 64)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(x, 10, name="scores"), y))
    net.output("scores", net["scores"])
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    gc.save("model.gc", executor(net, batch=128))
    assert main(["train", "model.gc", "--data", "digits", "--epochs", "1"]) == 0
    assert main(["render", "model.gc"]) == 0
    capsys.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(inner) for path in files)
    assert len(list(inner.glob("graphc-run/*.gc"))) == 1
    assert len(list(inner.glob("*.svg"))) == 1


@pytest.mark.needs("POSIX")
def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(gc.ModelFileError, match="it is not a regular file"):
            gc.load(path)


def test_a_net_with_a_name_that_cannot_be_seen_is_not_saved(tmp_path: Path) -> None:
    net = gc.Net("n")
    net.output("o", gc.relu(net.input("a\x1b[2J", (gc.N, 2))))
    with pytest.raises(gc.GraphError, match="has characters that are not printable"):
        to_bytes(net)


def test_a_model_is_not_a_checkpoint(whole: bytes) -> None:
    assert not checkpoint(whole)
