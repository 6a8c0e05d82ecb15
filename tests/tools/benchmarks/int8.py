"""Inference of an MLP in int8 beside its float32, ONNX Runtime and OpenVINO, one thread each.

    python -m tests.tools.benchmarks.int8 [--batch 128] [--seconds 5]

The net has the layers 784-256-128-10, and every side the same trained weights.  Both others get the
ONNX file of the net, prepared as ONNX Runtime advises; ONNX Runtime quantizes it by its own
`quantize_static` (int8 weights by column), OpenVINO reads that file, and by itself quantizes with
NNCF.  The sides take turns in one process; a figure is the median over calls, of wall time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import graphc as gc
from graphc.data import load_digits

Array = NDArray[Any]
Infer = Callable[[Array], Array]
ROUND_SECONDS = 0.05


def images() -> tuple[Array, Array]:
    """Return the bundled digits, enlarged to 28 x 28, and their labels."""
    x, y = load_digits()
    large = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((1, 4, 4), np.float32))[:, 2:30, 2:30]
    return large.reshape(-1, 784).astype(np.float32), y


def trained(x: Array, y: Array) -> gc.Executor:
    """Return a trained net."""
    net = gc.Net("mlp")
    h = net.input("x", (gc.N, 784))
    for width in (256, 128):
        h = gc.relu(gc.affine(h, width))
    labels = net.input("y", (gc.N,), dtype="int64")
    scores = net.output("scores", gc.affine(h, 10))
    net.loss("loss", gc.softmax_loss(scores, labels))
    ex = gc.Executor(gc.compile(net, batch=128, optimizer=gc.Adam(), threads=1), seed=0)
    gc.fit(ex, (x, y), epochs=10, progress=False)
    return ex


def own(ex: gc.Executor) -> Infer:
    """Return inference by an executor."""
    return lambda x: ex.forward(x=x, copy=False)["scores"]


def onnx_runtime(float_path: Path, x: Array, batch: int) -> tuple[Infer, Infer, Path]:
    """Return inference by ONNX Runtime in float32 and in int8, and the file of the latter."""
    import onnxruntime as ort
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter([{"x": x[i : i + batch]} for i in range(0, 1024, batch)])

        def get_next(self) -> Any:
            return next(self.parts, None)

    prepared, path = float_path.with_name("prepared.onnx"), float_path.with_name("int8.onnx")
    quant_pre_process(str(float_path), str(prepared))
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(path), Reader(), QuantFormat.QDQ, per_channel=True, **kinds)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def session(file: Path) -> Infer:
        made = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return lambda x: np.asarray(made.run(["scores"], {"x": x})[0])

    return session(prepared), session(path), path


def openvino(quantized: Path, x: Array, batch: int) -> Iterator[tuple[str, Infer]]:
    """Yield inference by OpenVINO in int8, as quantized by NNCF and by ONNX Runtime."""
    import openvino as ov

    core = ov.Core()
    yield "OpenVINO int8, ORT's", compiled(core, core.read_model(quantized), batch)
    import nncf

    parts = [x[i : i + batch] for i in range(0, 1024, batch)]
    floats = core.read_model(quantized.with_name("prepared.onnx"))
    yield "OpenVINO int8, NNCF's", compiled(core, nncf.quantize(floats, nncf.Dataset(parts)), batch)


def compiled(core: Any, model: Any, batch: int) -> Infer:
    """Return inference by OpenVINO on one thread, for this batch alone."""
    model.reshape([batch, 784])
    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", hints).create_infer_request()

    def infer(x: Array) -> Array:
        request.infer([x], share_inputs=True)
        return np.asarray(request.get_output_tensor(0).data)

    return infer


def sides(batch: int, folder: Path) -> Iterator[tuple[str, Infer]]:
    """Yield all sides that are installed, by name."""
    x, y = images()
    ex = trained(x, y)
    frozen = gc.freeze(ex, batch=batch)
    yield "graphc float32", own(frozen)
    yield "graphc int8", own(gc.quantize(ex, x[:1024], batch=batch))
    path = Path(gc.onnx.save(frozen, folder / "float.onnx"))
    try:
        of_float, of_int8, quantized = onnx_runtime(path, x, batch)
        yield "ONNX Runtime float32", of_float
        yield "ONNX Runtime int8", of_int8
        yield from openvino(quantized, x, batch)
    except ImportError as error:
        print(f"left out: {error}")


def timed(found: dict[str, Infer], x: Array, seconds: float) -> dict[str, float]:
    """Return the median microseconds of a call of each side."""
    times: dict[str, list[float]] = {name: [] for name in found}
    start = perf_counter()
    while perf_counter() - start < seconds * len(found):
        for name, infer in found.items():
            infer(x)
            began = last = perf_counter()
            while last - began < ROUND_SECONDS:
                infer(x)
                now = perf_counter()
                times[name].append(now - last)
                last = now
    return {name: median(each) * 1e6 for name, each in times.items()}


def main() -> None:
    """Print time and accuracy of each side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    x, y = images()
    with tempfile.TemporaryDirectory() as folder:
        found = dict(sides(args.batch, Path(folder)))
        right = {}
        for name, infer in found.items():
            blocks = range(0, len(x) // args.batch * args.batch, args.batch)
            classes = [infer(x[i : i + args.batch]).argmax(axis=1) for i in blocks]
            right[name] = float(np.mean(np.concatenate(classes) == y[: blocks.stop]))
        times = timed(found, np.ascontiguousarray(x[: args.batch]), args.seconds)
    for name, time in times.items():
        print(f"{name:22}{time:9.1f} us   accuracy {right[name]:.4f}")


if __name__ == "__main__":
    main()
