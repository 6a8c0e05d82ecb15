"""Small files by hand that ask for all the time or memory there is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

import graphc as gc
from graphc.files.serialize import to_bytes
from tests.tools.fuzz_files.mutate import assembled
from tests.tools.fuzz_files.seeds import Kind
from tests.tools.fuzz_files.structured_onnx import body_of

Make = Callable[[], bytes]
LARGE = (3000, 10**6, 10**9, 2**31, 2**40, 2**60)

# ---------------------------------------------------------------------- graphc's own files


def base(backend: str = "numpy") -> bytes:
    net = gc.Net("g")
    x, y = net.input("x", (gc.N, 8)), net.input("y", (gc.N,), dtype="int64")
    net.output("s", gc.affine(x, 3, name="s"))
    net.loss("l", gc.softmax_loss(net["s"], y))
    return to_bytes(gc.Executor(gc.compile(net, batch=4, optimizer=gc.Adam(), backend=backend)))


def own(
    lines: Sequence[str], output: str | None = None, backend: str = "numpy", **plan: Any
) -> bytes:
    """The base with more lines before its outputs, another output, and other choices."""
    data = base(backend)
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    about = header["__metadata__"]
    more = "\n".join(lines)
    about["graph"] = about["graph"].replace("output s = s", f"{more}\noutput s = {output or 's'}")
    notes = json.loads(about["model"])
    notes["plan"].update(plan)
    about["model"] = json.dumps(notes)
    return assembled(header, body, Random(0))


def nested(depth: int, function: str, backend: str) -> bytes:
    lines = ["t0: float32[N, 8] = tanh(x)", "h0: float32[] = sum(t0)  axes=(0, 1) keepdims=False"]
    for i in range(1, depth + 1):
        lines += [
            f"d{i}: float32[N, 8] = layer grad(h{i - 1}, x)",
            f"f{i}: float32[N, 8] = {function}(d{i})",
            f"p{i}: float32[N, 8] = mul(f{i}, d{i})",
            f"h{i}: float32[] = sum(p{i})  axes=(0, 1) keepdims=False",
        ]
    return own(lines, f"h{depth}", backend)


def pool(op: str, kernel: int, dilation: int) -> bytes:
    pad = (kernel - 1) * dilation
    out = 4 + 2 * pad - (kernel - 1) * dilation
    return own(
        [
            "r: float32[N, 1, 2, 4] = reshape(x)  shape=(N, 1, 2, 4)",
            f"p: float32[N, 1, 2, {out}] = layer {op}(r)  kernel=(1, {kernel}) stride=(1, 1) "
            f"padding=((0, 0), ({pad}, {pad})) dilation=(1, {dilation})",
        ],
        "p",
    )


def chain(count: int, budget: int, backend: str) -> bytes:
    """A loss behind many layers, in a plan that must make do with few bytes."""
    data = base(backend)
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    about = header["__metadata__"]
    names = ["s", *(f"g{i}" for i in range(count))]
    lines = [f"{b}: float32[N, 3] = tanh({a})" for a, b in itertools.pairwise(names)]
    text = about["graph"].replace("softmax_loss(s, y)", f"softmax_loss({names[-1]}, y)")
    about["graph"] = text.replace("softmax_loss_1:", "\n".join([*lines, "softmax_loss_1:"]))
    notes = json.loads(about["model"])
    notes["plan"].update(budget=budget)
    about["model"] = json.dumps(notes)
    return assembled(header, body, Random(0))


def doubled(times: int) -> bytes:
    names = ["x", *(f"h{i}" for i in range(times))]
    lines = [
        f"{b}: float32[N, {16 << i}] = concat({a}, {a})  axis=1"
        for i, (a, b) in enumerate(itertools.pairwise(names))
    ]
    return own(lines, names[-1])


def wide(size: int) -> bytes:
    return own(
        [
            "c: float32[] = constant()  data=[2.0]",
            f"b: float32[{size}] = broadcast_to(c)  shape=({size},)",
            "t: float32[] = sum(b)  axes=(0,) keepdims=False",
            "u: float32[N, 8] = mul(x, t)",
        ],
        "u",
    )


def padded(size: int) -> bytes:
    line = f"p: float32[N, {8 + size}] = pad(x)  pads=((0, 0), (0, {size})) value=0.0"
    return own([line], "p")


def own_files() -> Iterator[tuple[str, Kind, Make]]:
    for depth in (2, 4, 6, 8, 12, 30):
        for function in ("sin", "tanh", "exp"):
            how = partial(nested, depth, function, "numpy")
            yield f"nested grad {depth} {function}", "model", how
    yield "nested grad native", "model", partial(nested, 12, "sin", "native")
    for size in LARGE:
        for dilation in (1, 3):
            for op in ("max_pool", "avg_pool"):
                how = partial(pool, op, size, dilation)
                yield f"{op} {size} {dilation}", "model", how
        yield f"wide {size}", "model", partial(wide, size)
        yield f"pad {size}", "model", partial(padded, size)
        yield f"batch {size}", "model", partial(own, (), batch=size)
        yield f"shards {size}", "model", partial(own, (), shards=size)
        yield f"threads {size}", "model", partial(own, (), threads=size)
    for count in (100, 300):
        for budget in (1, 5000, 20_000):
            yield f"budget {count} {budget}", "model", partial(chain, count, budget, "numpy")
    yield "budget native", "model", partial(chain, 100, 9000, "native")
    for times in (10, 20, 30, 60):
        yield f"doubled {times}", "model", partial(doubled, times)


# ---------------------------------------------------------------------- ONNX


class Model:
    """A model in the making: y is x plus the sum of what is made last."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.functions: list[Any] = []

    def known(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"k{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, op: str, *inputs: str, **more: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **more))
        return name

    def bytes(self, last: str, shape: Sequence[Any] = ("N", 4), opset: int = 17) -> bytes:
        total = self.add("ReduceSum", self.add("Cast", last, to=TensorProto.FLOAT), keepdims=0)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        self.nodes.append(helper.make_node("Add", ["x", total], ["y"]))
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.weights)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("d", 1)]
        more = {"opset_imports": opsets, "functions": self.functions, "ir_version": 9}
        return bytes(helper.make_model(graph, **more).SerializeToString())


def one(op: str, *values: Any, opset: int = 17, **more: Any) -> bytes:
    """One node over what is known: "x" is the input, numbers are of floats or whole."""
    m = Model()
    names = [
        v if isinstance(v, str) else m.known(v, np.float32 if _floats(v) else np.int64)
        for v in values
    ]
    return m.bytes(m.add(op, *names, **more), opset=opset)


def _floats(value: Any) -> bool:
    return np.asarray(value).dtype.kind == "f"


def image(op: str, *values: Any, known: bool = False, **more: Any) -> bytes:
    """One node over an image, known or fed."""
    m = Model()
    if known:
        x = m.known(np.ones((1, 1, 4, 4)), np.float32)
    else:
        x = m.add("Reshape", "x", m.known((0, 1, 4, 4)))
    names = [m.known(v, np.float32) if not isinstance(v, str) else v for v in values]
    return m.bytes(m.add(op, x, *names, **more), ("N", 16))


def chained(op: str, start: Any, times: int, **more: Any) -> bytes:
    """A chain of nodes, each of which reads the one before twice."""
    m = Model()
    last = "x" if start is None else m.known(start, np.float32)
    for _ in range(times):
        last = m.add(op, last, last, **more)
    return m.bytes(last)


def looped(turns: Sequence[int | None], op: str, start: Any, **more: Any) -> bytes:
    """Loops in loops: so many turns of each, None without an end."""
    m = Model()
    yes = m.known(True, bool)
    made = helper.make_node(op, ["acc", "acc"], ["acc2"], **more)
    for count in turns:
        same = helper.make_node("Identity", ["ci"], ["co"])
        body = body_of([same, made], ["it", "ci", "acc"], ["co", "acc2"])
        limit = "" if count is None else m.known(count)
        made = helper.make_node("Loop", [limit, yes, "acc"], ["acc2"], body=body)
    made.input[2] = "x" if start is None else m.known(start, np.float32)
    m.nodes.append(made)
    return m.bytes("acc2")


def scanned(turns: int) -> bytes:
    m = Model()
    steps = [
        helper.make_node("Add", ["s", "e"], ["s2"]),
        helper.make_node("Identity", ["s2"], ["o"]),
    ]
    body = body_of(steps, ["s", "e"], ["s2", "o"])
    operands = [m.known(0.0, np.float32), "x"]
    how = {"body": body, "num_scan_inputs": 1, "scan_input_axes": [1]}
    m.nodes.append(helper.make_node("Scan", operands, ["f", "o"], **how))
    return m.bytes("o", ("N", turns))


def functions(depth: int, calls: int) -> bytes:
    m = Model()
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    for i in range(depth):
        inner, domain = (f"f{i + 1}", "d") if i < depth - 1 else ("Relu", "")
        nodes = [
            helper.make_node(inner, [f"a{j}"], [f"a{j + 1}"], domain=domain) for j in range(calls)
        ]
        made = helper.make_function("d", f"f{i}", ["a0"], [f"a{calls}"], nodes, opsets)
        m.functions.append(made)
    return m.bytes(m.add("f0", "x", domain="d"))


def branches(depth: int) -> bytes:
    m = Model()
    yes = m.known(True, bool)
    leaf = [helper.make_node("Relu", ["x"], ["q"])]
    for _ in range(depth):
        graph = body_of(leaf, [], ["q"])
        leaf = [helper.make_node("If", [yes], ["q"], then_branch=graph, else_branch=graph)]
    m.nodes.extend(leaf)
    return m.bytes("q")


def recurrent(op: str, steps: int) -> bytes:
    m = Model()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    x = m.add("Reshape", "x", m.known((steps, -1, 1)))
    w = m.known(np.ones((1, gates * 2, 1)), np.float32)
    r = m.known(np.ones((1, gates * 2, 2)), np.float32)
    m.nodes.append(helper.make_node(op, [x, w, r], ["h"], hidden_size=2))
    return m.bytes("h", (1, steps))


def fed(op: str, shape: Sequence[Any], *values: Any, **more: Any) -> bytes:
    """One node over an input of this shape."""
    m = Model()
    return m.bytes(m.add(op, "x", *(m.known(v) for v in values), **more), shape)


def onnx_files() -> Iterator[tuple[str, Kind, Make]]:
    for name, make in _onnx():
        yield name, "onnx", make


def _onnx() -> Iterator[tuple[str, Make]]:
    two = [1.0, 2.0]
    for size in LARGE:
        yield f"expand {size}", partial(one, "Expand", two[:1], [size])
        yield f"tile {size}", partial(one, "Tile", two, [size])
        yield f"tile x {size}", partial(one, "Tile", "x", [1, size])
        yield f"range {size}", partial(one, "Range", 0, size, 1)
        yield f"constant of shape {size}", partial(one, "ConstantOfShape", [size, 2])
        yield f"one hot {size}", partial(one, "OneHot", [0], size, two)
        yield f"top k {size}", partial(one, "TopK", "x", [size])
        yield f"split {size}", partial(fed, "SplitToSequence", ("N", size), 1, axis=1)
        yield f"window {size}", partial(one, "HannWindow", size)
        yield f"transform {size}", partial(fed, "DFT", ("N", size, 1), axis=1)
        yield f"cumulative {size}", partial(fed, "CumSum", ("N", size), 1)
        yield f"triangle {size}", partial(fed, "Trilu", (size, 4), 0)
        for mode in ("constant", "edge", "wrap"):
            more = {"mode": mode, "opset": 19}
            yield f"pad {mode} {size}", partial(one, "Pad", two, [0, size], **more)
        yield f"pad x {size}", partial(one, "Pad", "x", [0, 0, 0, size], mode="edge")
        for mode in ("nearest", "linear", "cubic"):
            scales = [1, 1, float(size), float(size)]
            how = partial(image, "Resize", "", scales, known=True, mode=mode)
            yield f"resize {mode} {size}", how
        for op in ("MaxPool", "AveragePool"):
            more = {"kernel_shape": [size] * 2, "pads": [size - 1] * 4}
            yield f"{op} {size}", partial(image, op, **more)
        far = {"dilations": [size] * 2, "pads": [size] * 4}
        yield f"conv {size}", partial(image, "Conv", np.ones((1, 1, 2, 2)), **far)
        yield f"depth to space {size}", partial(image, "DepthToSpace", blocksize=size)
        yield f"loop {size}", partial(looped, (size,), "Add", None)
        yield f"known loop {size}", partial(looped, (size,), "Add", two)
        yield f"scan {size}", partial(scanned, size)
        for op in ("LSTM", "GRU"):
            yield f"{op} {size}", partial(recurrent, op, size)
        for op in ("Gather", "Reshape", "Gemm", "Cast", "Resize"):
            yield f"{op} by one number {size}", partial(repeated, op, size)
        yield f"input {size}", partial(fed, "Relu", ("N", size, size))
    for times in (20, 60):
        yield f"concat {times}", partial(chained, "Concat", two, times, axis=0)
        yield f"concat x {times}", partial(chained, "Concat", None, times, axis=1)
        yield f"outer {times}", partial(chained, "Einsum", two, times, equation="i,j->ij")
        yield f"product {times}", partial(chained, "MatMul", np.ones((300, 300)), times)
    for depth in (8, 16, 30):
        yield f"functions {depth}", partial(functions, depth, 2)
        yield f"functions by 5 {depth}", partial(functions, depth, 5)
    yield "eye", partial(_eye, 10**5)
    yield "loop without an end", partial(looped, (None,), "Add", two)
    yield "loops in loops", partial(looped, (100, 100, 100, 100), "Add", None)
    yield "a loop that doubles", partial(looped, (60,), "Concat", two, axis=0)
    yield "branches", partial(branches, 12)
    weights = np.ones((1, 1, 400, 400))
    yield "convolution", partial(image, "Conv", weights, known=True, pads=[399] * 4)


def repeated(op: str, size: int) -> bytes:
    """A node over one number that is broadcast to many."""
    m = Model()
    kind = TensorProto.INT64 if op in ("Gather", "Reshape") else TensorProto.FLOAT
    value = helper.make_tensor("v", kind, [1], [1])
    shape = m.known([size, 4] if op == "Gemm" else [size])
    many = m.add("ConstantOfShape", shape, value=value)
    if op == "Cast":
        return m.bytes(m.add("Cast", many, to=TensorProto.INT64))
    operands = ["x", "", many] if op == "Resize" else ["x", many]
    return m.bytes(m.add(op, *operands, **({"transB": 1} if op == "Gemm" else {})))


def _eye(size: int) -> bytes:
    m = Model()
    return m.bytes(m.add("EyeLike", m.add("ConstantOfShape", m.known([size, size])), dtype=1))


CASES: dict[str, tuple[Kind, Make]] = {
    f"{kind}: {name}": (kind, make)
    for files in (own_files, onnx_files)
    for name, kind, make in files()
}
"""By name; each is made when it is called for."""
