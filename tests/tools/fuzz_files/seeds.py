"""The files that are changed: models of all kinds, texts, tables, and descriptions of runs."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

import graphc as gc
from graphc.backends.native.target import available
from graphc.files.serialize import to_bytes
from graphc.ir.text import graph_text
from tests.backends.native.nets import NETS, OPTIMIZERS, feeds_of

Kind = Literal["model", "text", "table", "run", "journal", "weights", "onnx"]


LARGEST = 30_000
"""The bytes of a model whose structure is changed."""


@dataclass(frozen=True)
class Seed:
    """A whole file of some kind."""

    kind: Kind
    data: bytes


@cache
def seeds() -> tuple[Seed, ...]:
    """Whole files of every kind, small ones; the same in every call."""
    found = [Seed("table", table.encode()) for table in TABLES]
    backends = ("numpy",) if available() is not None else ("numpy", "native")
    names = [name for name in NETS if name not in ("deep", "wide", "chain_of_concats")]
    for i, name in enumerate(names):
        net = NETS[name]("float32")
        optimizer = list(OPTIMIZERS.values())[i % len(OPTIMIZERS)]()
        plan = gc.compile(net, batch=8, optimizer=optimizer, backend=backends[i % len(backends)])
        ex = gc.Executor(plan, seed=i)
        thing = (ex, plan, net, ex)[i % 4]
        found.append(Seed("model", to_bytes(thing)))
        found.append(Seed("text", graph_text(net.graph()).encode()))
    programs = plan.programs
    trained = programs.get("step") or programs["accumulate"]
    found.append(Seed("text", graph_text(trained.graph).encode()))
    found.append(Seed("model", to_bytes(gc.freeze(ex, batch=1))))
    found.append(own_constant())
    found.append(Seed("weights", weights()))
    found.extend(_of_a_run())
    return tuple(found)


@cache
def structured_seeds() -> tuple[Seed, ...]:
    """Small models of graphc and of ONNX, whose structure is changed."""
    from tests.onnx.test_load import perceptron
    from tests.onnx.test_save import NETS as EXPORTED
    from tests.onnx.test_save import made, to_proto

    models = [seed for seed in seeds() if seed.kind == "model" and len(seed.data) < LARGEST]
    protos = [perceptron(), *(to_proto(made(declare)) for declare in EXPORTED)]
    theirs = [Seed("onnx", perceptron().SerializeToString())]
    for proto in protos:
        theirs.append(Seed("onnx", proto.SerializeToString()))
        proto.producer_name = "another"  # which is read in another way
        theirs.append(Seed("onnx", proto.SerializeToString()))
    return (*models, *theirs)


@cache
def normed() -> gc.Executor:
    """A small net of what PyTorch has, too."""
    net = gc.Net("normed")
    h = gc.batchnorm(gc.affine(net.input("x", (gc.N, 3)), 4))
    net.output("y", gc.affine(gc.relu(h), 2))
    return gc.Executor(gc.compile(net, batch=2, backend="numpy"))


def weights() -> bytes:
    """Its weights as PyTorch's."""
    with tempfile.TemporaryDirectory() as folder:
        return gc.save_torch_state(Path(folder, "w.safetensors"), normed()).read_bytes()


TABLES = (
    "a,b,y\n1,2.5,0\n3,4,1\n5,-1e3,1\n",
    'name,"x, y",label\n"a",1,yes\n"b ""c""",2,no\n',
)


def _of_a_run() -> list[Seed]:
    """A checkpoint, a state and a description, as a run leaves them."""
    net = NETS["mlp"]("float32")
    plan = gc.compile(net, batch=8, optimizer=gc.Adam(), backend="numpy")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder)
        feeds = feeds_of(net, 16)
        gc.fit(gc.Executor(plan), feeds, record=path / "run", checkpoint=path / "checkpoint")
        files = {
            *path.glob("checkpoint/step-*.gc"),
            *path.glob("run/state-*.gc"),
        }
        models = [Seed("model", file.read_bytes()) for file in sorted(files)]
        run = Seed("run", (path / "run" / "run.json").read_bytes())
        return [*models, run, Seed("journal", (path / "run" / "journal").read_bytes())]


def own_constant() -> Seed:
    """A model with a large constant and a parameter from an array."""
    net = gc.Net("own")
    x = net.input("x", (gc.N, 4))
    weight = net.parameter("w", (4, 20), init=np.ones((4, 20), np.float32))
    net.output("out", gc.matmul(x, weight) + net.constant(np.arange(20, dtype=np.float32)))
    return Seed("model", to_bytes(net))
