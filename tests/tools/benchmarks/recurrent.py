"""A training step of a recurrent layer beside its peers, and inference of one sequence.

    python -m tests.tools.benchmarks.recurrent             an LSTM of 128 units, 64 steps, batch 32
    python -m tests.tools.benchmarks.recurrent --cell gru --steps 16,64,256,512 --width 64,128,256
    python -m tests.tools.benchmarks.recurrent --infer             batch 1, beside ONNX Runtime

The net is one layer over (batch, steps, width), and its loss is the mean square of all states and
the cross-entropy of an affine map of the last one.  Each side runs in a process of its own, with
the same number of threads; the sides take turns, and a figure is the median of the turns.  Sides
whose package is missing are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

Step = Callable[[], object]
CLASSES = 10
TURNS = 7


def data(batch: int, steps: int, width: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, steps, width)).astype(np.float32)
    return x, rng.integers(0, CLASSES, batch)


def graphc(cell: str, steps: int, width: int, batch: int, threads: int, infer: bool) -> Step:
    import graphc as gc

    net = gc.Net("recurrent")
    x = net.input("x", (gc.N, steps, width))
    states, last = getattr(gc, cell)(x, width)
    net.output("states", states)
    if not infer:
        y = net.input("y", (gc.N,), dtype="int64")
        h = last[0] if cell == "lstm" else last
        scores = gc.affine(h, CLASSES)
        net.loss("loss", gc.softmax_loss(scores, y) + gc.mean(states * states))
    optimizer = None if infer else gc.SGD(lr=0.01)
    ex = gc.Executor(gc.compile(net, batch=batch, optimizer=optimizer, threads=threads))
    given, labels = data(batch, steps, width)
    if infer:
        return lambda: ex.forward(x=given)["states"]
    return lambda: ex.step(x=given, y=labels)


def torch(cell: str, steps: int, width: int, batch: int, threads: int, infer: bool) -> Step:
    return _torch(cell, steps, width, batch, threads, infer, compiled=False)


def torch_compile(cell: str, steps: int, width: int, batch: int, threads: int, infer: bool) -> Step:
    return _torch(cell, steps, width, batch, threads, infer, compiled=True)


def _torch(
    cell: str, steps: int, width: int, batch: int, threads: int, infer: bool, compiled: bool
) -> Step:
    import torch

    torch.set_num_threads(threads)
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](width, width, batch_first=True)
    head = torch.nn.Linear(width, CLASSES)
    given, labels = map(torch.from_numpy, data(batch, steps, width))
    if infer:
        layer.eval()
        with torch.inference_mode():
            return torch.inference_mode()(lambda: layer(given)[0].numpy())

    def loss() -> Any:
        states, last = layer(given)
        h = last[0][0] if cell == "lstm" else last[0]
        return torch.nn.functional.cross_entropy(head(h), labels) + (states * states).mean()

    run = torch.compile(loss) if compiled else loss
    optimizer = torch.optim.SGD([*layer.parameters(), *head.parameters()], lr=0.01)

    def step() -> float:
        optimizer.zero_grad()
        value = run()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def jax(cell: str, steps: int, width: int, batch: int, threads: int, infer: bool) -> Step:
    import jax
    import jax.numpy as jnp

    del threads  # JAX takes all cores of the process
    gates = 4 if cell == "lstm" else 3
    rng = np.random.default_rng(1)
    scale = width**-0.5
    shapes = {"w": (width, gates * width), "u": (width, gates * width), "b": (gates * width,)}
    shapes |= {"v": (width, CLASSES)}
    start = {k: jnp.asarray(rng.uniform(-scale, scale, s), jnp.float32) for k, s in shapes.items()}

    def lstm(p: Any, state: Any, fed: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(fed + h @ p["u"], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(p: Any, state: Any, fed: Any) -> Any:
        (h,) = state
        (a, b, c), (d, e, f) = jnp.split(fed, 3, axis=1), jnp.split(h @ p["u"], 3, axis=1)
        r, z = jax.nn.sigmoid(a + d), jax.nn.sigmoid(b + e)
        h = (1 - z) * jnp.tanh(c + r * f) + z * h
        return (h,), h

    one = lstm if cell == "lstm" else gru

    def states(p: Any, x: Any) -> Any:
        fed = jnp.swapaxes(x @ p["w"] + p["b"], 0, 1)
        zero = jnp.zeros((x.shape[0], width), jnp.float32)
        first = (zero,) * (2 if cell == "lstm" else 1)
        return jax.lax.scan(lambda s, f: one(p, s, f), first, fed)

    def loss(p: Any, x: Any, y: Any) -> Any:
        last, ys = states(p, x)
        logs = jax.nn.log_softmax(last[0] @ p["v"])
        return -jnp.take_along_axis(logs, y[:, None], 1).mean() + (ys * ys).mean()

    @jax.jit
    def update(p: Any, x: Any, y: Any) -> Any:
        value, slope = jax.value_and_grad(loss)(p, x, y)
        return value, {k: p[k] - 0.01 * slope[k] for k in p}

    given, labels = data(batch, steps, width)
    if infer:
        forward = jax.jit(lambda p, x: states(p, x)[1])
        return lambda: np.asarray(forward(start, given))
    held = [start]

    def step() -> float:
        value, held[0] = update(held[0], given, labels)
        return float(value)

    return step


def onnxruntime(cell: str, steps: int, width: int, batch: int, threads: int, infer: bool) -> Step:
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper

    if not infer:
        raise ImportError("it does not train")
    gates, rng = (4 if cell == "lstm" else 3), np.random.default_rng(1)
    shape = (1, gates * width, width)
    weights = {k: rng.uniform(-0.1, 0.1, shape).astype(np.float32) for k in ("W", "R")}
    bias = np.zeros((1, 2 * gates * width), np.float32)
    values = [
        helper.make_tensor(k, TensorProto.FLOAT, v.shape, v.ravel())
        for k, v in {**weights, "B": bias}.items()
    ]
    node = helper.make_node(cell.upper(), ["x", "W", "R", "B"], ["y"], hidden_size=width)
    kind = TensorProto.FLOAT
    ends = [
        helper.make_tensor_value_info("x", kind, (steps, batch, width)),
        helper.make_tensor_value_info("y", kind, (steps, 1, batch, width)),
    ]
    graph = helper.make_graph([node], "recurrent", ends[:1], ends[1:], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options)
    given = np.ascontiguousarray(data(batch, steps, width)[0].swapaxes(0, 1))
    return lambda: session.run(None, {"x": given})[0]


SIDES = {f.__name__: f for f in (graphc, torch, torch_compile, jax, onnxruntime)}


def serve() -> None:
    """Make a step of a side, and time as many calls as each line asks for."""
    side, *rest = json.loads(sys.stdin.readline())
    try:
        step = SIDES[side](*rest)
        begun = time.perf_counter()
        step()
        print(json.dumps(time.perf_counter() - begun), flush=True)
    except ImportError as error:
        print(json.dumps(str(error)), flush=True)
        return
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
        print(json.dumps(statistics.median(times)), flush=True)


class Side:
    """A side in a process of its own."""

    def __init__(self, python: str, *of: Any) -> None:
        command = [python, "-c", "from tests.tools.benchmarks.recurrent import serve; serve()"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.first = self._ask(json.dumps(of))

    def _ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else "it failed"

    def seconds(self, calls: int) -> float:
        return float(self._ask(str(calls)))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measured(args: argparse.Namespace, steps: int, width: int) -> Iterator[tuple[str, float]]:
    """Yield the median seconds of each side."""
    batch = 1 if args.infer else args.batch
    of = args.cell, steps, width, batch, args.threads, args.infer
    sides = {name: Side(args.python, name, *of) for name in args.sides.split(",")}
    there = {name: side for name, side in sides.items() if isinstance(side.first, float)}
    calls = {name: max(1, int(0.1 / max(side.seconds(2), 1e-6))) for name, side in there.items()}
    times: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(TURNS):
        for name, side in there.items():
            times[name].append(side.seconds(calls[name]))
    for side in sides.values():
        side.end()
    yield from ((name, statistics.median(found)) for name, found in times.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--steps", default="64")
    parser.add_argument("--width", default="128")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--infer", action="store_true")
    parser.add_argument("--sides", default="graphc,torch,jax")
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    for steps, width in product(*(map(int, x.split(",")) for x in (args.steps, args.width))):
        found = dict(measured(args, steps, width))
        best = min((time for name, time in found.items() if name != "graphc"), default=np.nan)
        shown = "  ".join(f"{name} {1e3 * seconds:.3f}" for name, seconds in found.items())
        ratio = found["graphc"] / best
        print(f"{args.cell} T={steps} H={width}: {shown}  graphc/best {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
