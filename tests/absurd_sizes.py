"""Arguments that are sizes or counts, each as a function of its value; absurd ones are refused."""

from __future__ import annotations

import resource
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc

VALUES: tuple[Any, ...] = (
    0, -1, 2**31, 2**32, 2**47, 2**63, 2**64, 10**20, -(2**63), -(10**20), True, 1.5, float("nan"),
    float("inf"), np.int8(-1), np.uint64(2**64 - 1), np.float32(2), "3", None, (), [3], 10**400,
)  # fmt: skip


def net(columns: Any = 4) -> tuple[gc.Net, gc.Value]:
    made = gc.Net("net")
    return made, made.input("x", (gc.N, columns))


def op(
    apply: Callable[[gc.Value, Any], Any], shape: tuple[int, ...] = (4,)
) -> Callable[[Any], None]:
    """A layer or op of a size: declared, compiled and run for two rows."""

    def call(size: Any) -> None:
        made = gc.Net("net")
        x = made.input("x", (gc.N, *shape))
        found = apply(x, size)
        for number, value in enumerate(found if isinstance(found, tuple | list) else [found]):
            made.output(f"o{number}", value)
        plan = gc.compile(made, batch=2, backend="numpy")
        gc.Executor(plan).forward(x=np.ones((2, *shape), np.float32))

    return call


@cache
def trained() -> gc.Plan:
    made, x = net()
    made.output("scores", gc.affine(x, 3, name="scores"))
    y = made.input("y", (gc.N,), dtype="int64")
    made.loss("loss", gc.softmax_loss(made["scores"], y))
    return gc.compile(made, batch=8, optimizer=gc.SGD(lr=0.1), backend="numpy")


def executor() -> gc.Executor:
    return gc.Executor(trained())


def data(rows: int = 8) -> tuple[Any, Any]:
    return np.ones((rows, 4), np.float32), np.zeros(rows, np.int64)


def compiled(**options: Any) -> None:
    made, x = net()
    made.loss("loss", gc.mean(gc.affine(x, 3)))
    plan = gc.compile(
        made, **{"batch": 2, "optimizer": gc.SGD(lr=0.1), "backend": "numpy"} | options
    )
    gc.Executor(plan).step(x=np.ones((2, 4), np.float32))


def buffer(capacity: Any, **options: Any) -> gc.ReplayBuffer:
    made = gc.ReplayBuffer(trained(), capacity, **options)
    made.add(x=np.ones((3, 4)), y=np.zeros(3, np.int64))
    return made


def population(**options: Any) -> None:
    gc.Population(trained(), **options).step(x=data()[0], y=data()[1])


def few(count: Any) -> Any:
    """The count, or 1 in place of so many that the work would not end, as it was asked for."""
    return 1 if isinstance(count, int | np.unsignedinteger) and count > 1000 else count


CALLS: dict[str, Callable[[Any], Any]] = {
    "input": lambda n: net(n),
    "input rows": lambda n: gc.Net("n").input("x", (n,)),
    "parameter": lambda n: gc.Net("n").parameter("p", (n, 3)),
    "state": lambda n: gc.Net("n").state("p", (n, 3)),
    "compile batch": lambda n: compiled(batch=n),
    "compile threads": lambda n: compiled(threads=n),
    "compile budget": lambda n: compiled(budget=n),
    "compile shards": lambda n: compiled(shards=n),
    "compile ranks": lambda n: compiled(ranks=n),
    "plan.memory.at": lambda n: trained().memory.at(n),
    "plan.memory.population": lambda n: trained().memory.population(n),
    "Executor seed": lambda n: gc.Executor(trained(), seed=n),
    "Population members": lambda n: population(members=n),
    "Population seeds": lambda n: population(seeds=[n]),
    "Population index": lambda n: gc.Population(trained(), members=2)[n],
    "Population keep": lambda n: gc.Population(trained(), members=2).keep([n]),
    "Population copy": lambda n: gc.Population(trained(), members=2).copy(0, n),
    "ReplayBuffer capacity": buffer,
    "ReplayBuffer seed": lambda n: buffer(3, seed=n),
    "ReplayBuffer draw": lambda n: buffer(3).draw(n),
    "ReplayBuffer sample": lambda n: buffer(3).sample(n),
    "fit epochs": lambda n: gc.fit(executor(), data(), epochs=few(n)),
    "fit batch": lambda n: gc.fit(executor(), data(), epochs=1, batch=n),
    "fit seed": lambda n: gc.fit(executor(), data(), epochs=1, seed=n),
    "fit folds": lambda n: gc.fit(gc.Population(trained(), members=2), data(), epochs=1, folds=n),
    "fit validation": lambda n: gc.fit(executor(), data(), epochs=1, validation=n),
    "freeze batch": lambda n: gc.freeze(executor(), batch=n),
    "quantize batch": lambda n: gc.quantize(executor(), data()[0], batch=n),
    "predict batch": lambda n: executor().predict(data()[0], batch=n),
    "EarlyStopping": lambda n: gc.EarlyStopping(patience=n),
    "Checkpoints": lambda n: gc.Checkpoints("folder", every=n),
    "Step every": lambda n: gc.Step(n, 0.5),
    "Cosine total": lambda n: gc.Cosine(n),
    "Cosine warmup": lambda n: gc.Cosine(9, warmup=n),
    "WarmUp": lambda n: gc.WarmUp(n),
    "SGD accumulate": lambda n: compiled(optimizer=gc.SGD(lr=0.1, accumulate=n)),
    "SGD lr": lambda n: compiled(optimizer=gc.SGD(lr=n)),
    "grad_check seed": lambda n: gc.grad_check(net()[0], {}, seed=n),
    "check_pass nets": lambda n: gc.check_pass(lambda g: g, nets=few(n)),
    "check_pass seed": lambda n: gc.check_pass(lambda g: g, nets=1, seed=n),
    "affine": op(lambda x, n: gc.affine(x, n)),
    "affine axis": op(lambda x, n: gc.affine(x, 2, axis=n)),
    "conv2d channels": op(lambda x, n: gc.conv2d(x, n, 1), (2, 3, 3)),
    "conv2d size": op(lambda x, n: gc.conv2d(x, 2, n), (2, 3, 3)),
    "conv2d stride": op(lambda x, n: gc.conv2d(x, 2, 1, stride=n), (2, 3, 3)),
    "conv2d padding": op(lambda x, n: gc.conv2d(x, 2, 1, padding=n), (2, 3, 3)),
    "conv2d dilation": op(lambda x, n: gc.conv2d(x, 2, 2, dilation=n), (2, 3, 3)),
    "conv2d groups": op(lambda x, n: gc.conv2d(x, 2, 1, groups=n), (2, 3, 3)),
    "conv1d channels": op(lambda x, n: gc.conv1d(x, n, 1), (2, 3)),
    "conv_transpose2d stride": op(lambda x, n: gc.conv_transpose2d(x, 2, 2, stride=n), (2, 3, 3)),
    "conv_transpose2d padding": op(lambda x, n: gc.conv_transpose2d(x, 2, 2, padding=n), (2, 3, 3)),
    "max_pool": op(lambda x, n: gc.max_pool(x, n), (2, 3, 3)),
    "max_pool stride": op(lambda x, n: gc.max_pool(x, 2, stride=n), (2, 3, 3)),
    "max_pool padding": op(lambda x, n: gc.max_pool(x, 2, padding=n), (2, 3, 3)),
    "avg_pool": op(lambda x, n: gc.avg_pool(x, n), (2, 3, 3)),
    "adaptive_avg_pool": op(lambda x, n: gc.adaptive_avg_pool(x, n), (2, 3, 3)),
    "groupnorm": op(lambda x, n: gc.groupnorm(x, n), (4, 3, 3)),
    "embedding count": op(lambda x, n: gc.embedding(gc.cast(x, "int64"), n, 2)),
    "embedding width": op(lambda x, n: gc.embedding(gc.cast(x, "int64"), 3, n)),
    "one_hot": op(lambda x, n: gc.one_hot(gc.cast(x, "int64"), n)),
    "length_mask": op(lambda x, n: gc.length_mask(gc.cast(gc.sum(x, axis=1), "int64"), n)),
    "gru width": op(lambda x, n: gc.gru(x, n), (3, 2)),
    "lstm width": op(lambda x, n: gc.lstm(x, n), (3, 2)),
    "lstm projection": op(lambda x, n: gc.lstm(x, 3, projection=n), (3, 2)),
    "rnn layers": op(lambda x, n: gc.rnn(x, 2, layers=n), (3, 2)),
    "mlp hidden": op(lambda x, n: gc.mlp(x, [n], 2)),
    "mlp units": op(lambda x, n: gc.mlp(x, [2], n)),
    "multi_head_attention": op(lambda x, n: gc.multi_head_attention(x, heads=n), (3, 4)),
    "broadcast_to": op(lambda x, n: gc.broadcast_to(gc.sum(x, axis=1, keepdims=True), (gc.N, n))),
    "expand": op(lambda x, n: gc.expand(gc.sum(x, axis=1, keepdims=True), (gc.N, n))),
    "random_normal": op(lambda x, n: x + gc.sum(gc.random_normal((n, 4)), axis=0)),
    "repeat": op(lambda x, n: gc.repeat(x, n, axis=1)),
    "tile": op(lambda x, n: gc.tile(x, (1, n))),
    "pad": op(lambda x, n: gc.pad(x, ((0, 0), (n, 0)))),
    "reshape": op(lambda x, n: gc.reshape(x, (gc.N, n))),
    "resize sizes": op(lambda x, n: gc.resize(x, sizes=(n, 3)), (2, 3, 3)),
    "resize scales": op(lambda x, n: gc.resize(x, scales=(n, 1)), (2, 3, 3)),
    "roll": op(lambda x, n: gc.roll(x, n, axis=1)),
    "split": op(lambda x, n: gc.split(x, n, axis=1)),
    "split parts": op(lambda x, n: gc.split(x, (n, 2), axis=1)),
    "topk": op(lambda x, n: gc.topk(x, n)),
    "transpose": op(lambda x, n: gc.transpose(x, (0, n))),
    "tril": op(lambda x, n: gc.tril(x, diagonal=n)),
    "sum axis": op(lambda x, n: gc.sum(x, axis=n)),
    "slice": op(lambda x, n: x[:, :n]),
    "slice start": op(lambda x, n: x[:, n:]),
    "slice step": op(lambda x, n: x[:, ::n]),
    "index": op(lambda x, n: x[:, n]),
    "flip": op(lambda x, n: gc.flip(x, n)),
    "squeeze": op(lambda x, n: gc.squeeze(x, n)),
    "unsqueeze": op(lambda x, n: gc.unsqueeze(x, n)),
    "flatten": op(lambda x, n: gc.flatten(x, n)),
    "cumsum": op(lambda x, n: gc.cumsum(x, axis=n)),
    "gather": op(lambda x, n: gc.gather(x, np.array([0]), axis=n)),
    "concat": op(lambda x, n: gc.concat([x, x], axis=n)),
    "stack": op(lambda x, n: gc.stack([x, x], axis=n)),
    "scan steps": op(lambda x, n: gc.scan(lambda h: (h, h * 0.5), carried=x, steps=n)),
    "dropout": op(lambda x, n: gc.dropout(x, keep_prob=n)),
    "export_c batch": lambda n: gc.export_c(executor(), "model.c", batch=n),
    "export_c budget": lambda n: gc.export_c(executor(), "model.c", budget=n),
}


def wrong(name: str, value: Any) -> str | None:
    """What a call does other than to work, or to refuse the value in words of graphc's own."""
    try:
        CALLS[name](value)
    except gc.GraphError:
        return None
    except (TypeError, ValueError, IndexError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = "graphc" in Path(last.filename).parts and (last.line or "").startswith("raise ")
        return None if own else f"{name}: {type(error).__name__}: {error}"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    return None


def limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)  # it may be lower already
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(what, (most, hard))


def main(every: int) -> None:
    """Print what goes wrong in one of so many calls, within a time and 5 GB of addresses.

    The most memory is this process's own: `ru_maxrss` has that of the process that started it.
    """
    limit(resource.RLIMIT_AS, 5 << 30)
    limit(resource.RLIMIT_CPU, 60)
    pairs = [(name, value) for name in CALLS for value in VALUES][::every]
    found = [text for name, value in pairs if (text := wrong(name, value)) is not None]
    status = Path("/proc/self/status").read_text().splitlines()
    (most,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    sys.stdout.write("\n".join([*found, f"{len(pairs)} calls", f"{most} kB", ""]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
