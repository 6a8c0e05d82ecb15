"""Files, pickles and states: a net that is read goes on as if it had never stopped."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import PORTABLE
from graphc.cli.installation import plain
from graphc.cli.installation.members import OPTIMIZERS, feeds_of, trained_net
from graphc.cli.installation.trial import ROUGH, Trial, all_same, near, same


def files(trial: Trial) -> str:
    """Check nets that are saved, read and trained on, with those that never were."""
    count = 0
    for optimizer in OPTIMIZERS:
        plan = gc.compile(trained_net(), batch=5, optimizer=optimizer)
        ex = gc.Executor(plan, seed=trial.seed)
        for _ in range(3):
            ex.step(feeds_of(trial.rng, 5))
        ways: Mapping[str, Any] = {
            "gc.load": gc.load(gc.save(trial.folder / "net.gc", ex)),
            "pickle": pickle.loads(pickle.dumps(ex)),
            "a copy": copy.deepcopy(ex),
            "a state": _assigned(plan, ex),
        }
        with trial.case(f"files, by {optimizer!r}"):
            _go_on(trial, ex, ways)
            _begin_anew(trial, ex)
        count += len(ways)
    for options in OPTIONS:
        with trial.case(f"a file of a plan with {options}"):
            _options(trial, options)
    with trial.case("files of frozen weights and PyTorch's names"):
        _frozen(trial, ex)
        _torch_names(trial)
    return (
        f"{count} executors read from files, pickles and states train on: every byte; "
        f"plans with {len(OPTIONS)} options are the same"
    )


OPTIONS: tuple[dict[str, Any], ...] = (
    {"contract": "unfused"},
    {"precision": {"*": "bf16"}},
    {"precision": {"*": "bf16_blocks", "last": "float32"}},
    {"passes": gc.passes.DEFAULT.without("fuse_affine_relu")},
    {"threads": 2, "backend": PORTABLE},
    {"shards": 2},
    {"shards": 2, "sync_batchnorm": True},
    {"budget": 1 << 16},
    {"outputs": ["scores"], "wrt": ["last.weight"]},
)
"""The choices that a plan keeps in its file, each with a value that is not its default."""


def _options(trial: Trial, options: dict[str, Any]) -> None:
    """Check that a plan comes back from a file with its programs, and takes the same steps."""
    how: dict[str, Any] = {"batch": 6, "optimizer": OPTIMIZERS[0], **options}
    if "wrt" in options:
        del how["optimizer"]
    ex = gc.Executor(gc.compile(trained_net(), **how), seed=trial.seed)
    other = gc.load(gc.save(trial.folder / "options.gc", ex))
    all_same("programs", _texts(ex), _texts(other))
    for rows in (6, 3) if "wrt" not in options else ():
        fed = feeds_of(trial.rng, rows)
        same("the loss", ex.step(fed), other.step(fed))
        all_same("the state", ex.snapshot(), other.snapshot())


def _texts(ex: gc.Executor) -> dict[str, Any]:
    return {name: np.array(str(program)) for name, program in ex.plan.programs.items()}


def _begin_anew(trial: Trial, ex: gc.Executor) -> None:
    """Check that an optimizer of another class takes the weights, but no slots and counters."""
    rule = gc.NAdam(lr=0.02)
    other = gc.load(gc.save(trial.folder / "net.gc", ex), optimizer=rule)
    plan = gc.compile(trained_net(), batch=5, optimizer=rule)
    fresh, fed = gc.Executor(plan), feeds_of(trial.rng, 5)
    own = [*ex.plan.parameter_names, *(n for n in ex.state if "running" in n or n in KEY)]
    fresh.state.assign({name: ex.state[name] for name in own})
    for _ in range(2):
        same("the loss of another optimizer", fresh.step(fed), other.step(fed))


KEY = ("seed", "draws")
"""The states of random numbers."""


def _frozen(trial: Trial, ex: gc.Executor) -> None:
    """Check that frozen weights come back from a file, and take new numbers."""
    x = feeds_of(trial.rng, 5)["x"]
    served = gc.load(gc.save(trial.folder / "frozen.gc", gc.freeze(ex, batch=5)))
    right = gc.freeze(ex, batch=5).predict(x)
    same("what a file of frozen weights predicts", right, served.predict(x))
    ex.step(feeds_of(trial.rng, 5))
    served.refresh(ex)
    same("what new weights predict", gc.freeze(ex, batch=5).predict(x), served.predict(x))


def _torch_names(trial: Trial) -> None:
    """Check weights under PyTorch's names and in its layouts, by the layers in plain NumPy."""
    net, rng = gc.Net("torch", dtype="float64"), trial.rng
    y = gc.batchnorm(gc.conv2d(net.input("x", (gc.N, 2, 5, 4)), 3, 3, name="conv"), name="norm")
    y = gc.affine(gc.relu(y), 2, axis=-1, name="square")
    net.output("y", gc.affine(gc.flatten(y), 4, name="head"))
    shapes = {"conv.weight": (3, 2, 3, 3), "head.weight": (4, 18), "head.bias": (4,)}
    shapes |= {"square.weight": (2, 2), "square.bias": (2,)}
    shapes |= dict.fromkeys(("conv.bias", "norm.weight", "norm.bias", "norm.running_mean"), (3,))
    given = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    given["norm.running_var"] = rng.uniform(1, 2, 3)
    ex = gc.Executor(gc.compile(net, batch=5))
    gc.load_torch_state(ex, given)
    x = rng.normal(size=(5, 2, 5, 4))
    mean, var = (given[f"norm.running_{what}"][:, None, None] for what in ("mean", "var"))
    h = plain.conv(x, given["conv.weight"], given["conv.bias"])
    h = plain.by_channel((h - mean) / np.sqrt(var + 1e-5), given["norm.weight"], given["norm.bias"])
    h = np.maximum(h, 0) @ given["square.weight"].T + given["square.bias"]
    right = h.reshape(5, -1) @ given["head.weight"].T + given["head.bias"]
    near("what PyTorch's weights predict", right, ex.predict(x), ROUGH["float64"])


def _assigned(plan: gc.Plan, ex: gc.Executor) -> gc.Executor:
    other = gc.Executor(plan, seed=99)
    other.state = ex.snapshot()
    return other


def _go_on(trial: Trial, ex: gc.Executor, ways: Mapping[str, Any]) -> None:
    for turn in range(3):
        fed = feeds_of(trial.rng, 5 - turn)
        loss, outputs = ex.step(fed), ex.forward(fed)
        for what, other in ways.items():
            same(f"the loss of {what}", loss, other.step(fed))
            all_same(f"outputs of {what}", outputs, other.forward(fed))
            all_same(f"the state of {what}", ex.snapshot(), other.snapshot())
