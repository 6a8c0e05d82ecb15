"""Change what an ONNX model means: nest, repeat, enlarge, exchange, through ONNX's own classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from graphc.onnx.convert import CONVERTERS
from tests.tools.fuzz_files.structured import FLOATS, SIZES, times

OPS = sorted(op for domain, op in CONVERTERS if not domain)
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def changed_onnx(data: bytes, rng: Random) -> bytes:
    """A model with one to three changes."""
    model = ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(WAYS)(model, rng)
    try:
        return bytes(model.SerializeToString())
    except Exception:  # nested deeper than ONNX lets one write
        return data


def _node(model: ModelProto, rng: Random) -> NodeProto | None:
    return rng.choice(model.graph.node) if model.graph.node else None


def _name(rng: Random) -> str:
    return f"m{rng.randrange(10**9)}"


def _ask(model: ModelProto, name: str, rng: Random) -> None:
    """Have an output depend on a value, by itself or in its sum with an input."""
    if not model.graph.output:
        return
    if rng.random() < 0.5:
        last = _name(rng)
        total = helper.make_node("ReduceSum", [name], [last], keepdims=0)
        source = model.graph.input[0].name if model.graph.input else name
        y = _name(rng)
        model.graph.node.extend([total, helper.make_node("Add", [source, last], [y])])
        name = y
    model.graph.output[rng.randrange(len(model.graph.output))].name = name


def _value(model: ModelProto, rng: Random) -> str:
    """The name of any value."""
    names = [v.name for v in model.graph.input]
    names += [n for node in model.graph.node for n in node.output if n]
    names += [t.name for t in model.graph.initializer]
    return rng.choice(names or ["x"])


def _known(model: ModelProto, values: Any, dtype: Any, rng: Random) -> str:
    """The name of a constant that is put before all nodes."""
    name = _name(rng)
    try:
        array = np.asarray(values, dtype)
    except (OverflowError, ValueError):
        array = np.zeros(np.shape(values), dtype)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


SINGLE = ("axis", "group", "keepdims", "to", "k", "blocksize", "size", "auto_pad", "mode")
LISTS = ("axes", "pads", "kernel_shape", "strides", "dilations", "perm")


def _attribute(model: ModelProto, rng: Random) -> None:
    """Other numbers in an attribute, many of them, one more attribute, or one less."""
    node = _node(model, rng)
    if node is None:
        return
    if not node.attribute or rng.random() < 0.2:
        name = rng.choice((*SINGLE, *LISTS))
        numbers = [rng.choice(SIZES) for _ in range(rng.choice((1, 2, 4)))]
        value = numbers if name in LISTS else numbers[0]
        node.attribute.append(helper.make_attribute(name, value))
        return
    at = rng.randrange(len(node.attribute))
    if rng.random() < 0.15:
        del node.attribute[at]
    else:
        _changed(node.attribute[at], rng)


def _changed(attribute: AttributeProto, rng: Random) -> None:
    if attribute.HasField("i"):
        attribute.i = rng.choice(SIZES)
    elif attribute.HasField("f"):
        attribute.f = rng.choice(FLOATS)
    elif len(attribute.ints) and rng.random() < 0.2:
        attribute.ints.extend(list(attribute.ints) * times(rng, (1, 2), (30, 400)))
    elif len(attribute.ints):
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIZES)
    elif attribute.HasField("t"):
        _renumber(attribute.t, rng)
    elif attribute.HasField("g"):
        inner = ModelProto(graph=attribute.g)
        rng.choice(SIMPLE)(inner, rng)
        attribute.g.CopyFrom(inner.graph)


def _renumber(tensor: TensorProto, rng: Random) -> None:
    """Other numbers, another shape, or another dtype than its data are for."""
    kind = rng.randrange(4)
    if kind == 0:
        tensor.dims.append(rng.choice(SIZES))
    elif kind == 1 and len(tensor.dims):
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    else:
        try:
            array = np.array(numpy_helper.to_array(tensor))
        except Exception:
            return
        if array.size:
            choices: Sequence[Any] = FLOATS if array.dtype.kind == "f" else SIZES
            try:
                array.reshape(-1)[rng.randrange(array.size)] = rng.choice(choices)
            except (OverflowError, ValueError, TypeError):
                return
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _initializer(model: ModelProto, rng: Random) -> None:
    if model.graph.initializer:
        _renumber(rng.choice(model.graph.initializer), rng)


def _input(model: ModelProto, rng: Random) -> None:
    """Another size, or another name of one, in an input's shape."""
    if not model.graph.input:
        return
    dims = rng.choice(model.graph.input).type.tensor_type.shape.dim
    if rng.random() < 0.2 or not dims:
        dims.add().dim_value = rng.choice(SIZES)
    elif rng.random() < 0.8:
        rng.choice(dims).dim_value = rng.choice(SIZES)
    else:
        rng.choice(dims).dim_param = rng.choice(("N", "M", "2*N", f"{2**60}*N", ""))


def _operand(model: ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    if node is None or not node.input:
        return
    kind = rng.randrange(4)
    if kind == 0:
        inputs = list(node.input)
        rng.shuffle(inputs)
        node.ClearField("input")
        node.input.extend(inputs)
    elif kind == 1:
        node.input.append(_value(model, rng))
    elif kind == 2:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input[rng.randrange(len(node.input))] = _value(model, rng)


def _drop(model: ModelProto, rng: Random) -> None:
    if model.graph.node:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def _exchange(model: ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    if node is not None:
        node.op_type = rng.choice(OPS)


def _opset(model: ModelProto, rng: Random) -> None:
    if model.opset_import:
        model.opset_import[0].version = rng.choice((1, 6, 8, 10, 11, 13, 17, 19, 21, 2**40))


def _repeat(model: ModelProto, rng: Random) -> None:
    """A node again and again, each over the one before."""
    node = _node(model, rng)
    if node is None or not node.output or not node.input:
        return
    name = node.output[0]
    for _ in range(times(rng, (1, 2, 3), (30, 100, 400))):
        copy = NodeProto()
        copy.CopyFrom(node)
        inputs = [name if i == 0 or rng.random() < 0.5 else old for i, old in enumerate(node.input)]
        copy.ClearField("input")
        copy.ClearField("output")
        copy.input.extend(inputs)
        name = _name(rng)
        copy.output.append(name)
        model.graph.node.append(copy)
    _ask(model, name, rng)


def _double(model: ModelProto, rng: Random) -> None:
    """A value with itself, and that with itself, ..."""
    name = _value(model, rng)
    if rng.random() < 0.4:
        name = _known(model, np.ones(rng.choice((1, 2, 100))), np.float32, rng)
    op = rng.choice(("Concat", "Concat", "Add", "MatMul", "Mul", "Tile", "Einsum"))
    for _ in range(times(rng, (1, 2, 4), (10, 22, 40, 70))):
        more: dict[str, Any] = {"axis": rng.choice((0, -1))} if op == "Concat" else {}
        second = name
        if op == "Tile":
            second = _known(model, [2], np.int64, rng)
        if op == "Einsum":
            more = {"equation": rng.choice(("i,j->ij", "i,i->i", "...i,...j->...ij", "ij,jk->ik"))}
        last = _name(rng)
        model.graph.node.append(helper.make_node(op, [name, second], [last], **more))
        name = last
    _ask(model, name, rng)


def body_of(
    nodes: Sequence[NodeProto], inputs: Sequence[str], outputs: Sequence[str]
) -> GraphProto:
    """A graph inside a node."""

    def info(name: str, kind: int) -> Any:
        return helper.make_tensor_value_info(name, kind, None if kind == FLOAT else [])

    kinds = {"it": INT, "ci": BOOL, "co": BOOL}
    return helper.make_graph(
        list(nodes),
        "body",
        [info(name, kinds.get(name, FLOAT)) for name in inputs],
        [info(name, kinds.get(name, FLOAT)) for name in outputs],
    )


def _loop(model: ModelProto, rng: Random) -> None:
    """Loops in loops, whose turns are known."""
    op = rng.choice(("Add", "Mul", "Concat", "MatMul", "Identity", "Relu"))
    start = _value(model, rng)
    if rng.random() < 0.4:
        start = _known(model, [1.0, 2.0], np.float32, rng)
    yes = _known(model, True, bool, rng)
    more = {"axis": rng.choice((0, 1))} if op == "Concat" else {}
    operands = ["acc"] if op in ("Identity", "Relu") else ["acc", rng.choice(("acc", start))]
    inner = [helper.make_node(op, operands, ["acc2"], **more)]
    outs = ["co", "acc2"]
    for _ in range(times(rng, (0, 0, 0, 1), (2, 5))):
        turns = _known(model, times(rng, (0, 1, 2, 3), SIZES), np.int64, rng)
        same = helper.make_node("Identity", ["ci"], ["co"])
        body = body_of([same, *inner], ["it", "ci", "acc"], outs)
        inner = [helper.make_node("Loop", [turns, yes, "acc"], ["acc2"], body=body)]
    same = helper.make_node("Identity", ["ci"], ["co"])
    scans = rng.random() < 0.3
    nodes = [same, *inner] + ([helper.make_node("Identity", ["acc2"], ["row"])] if scans else [])
    body = body_of(nodes, ["it", "ci", "acc"], outs + (["row"] if scans else []))
    last, rows = _name(rng), _name(rng)
    turns = _known(model, times(rng, (0, 1, 2, 3), SIZES), np.int64, rng)
    turns = "" if rng.random() < 0.01 else turns
    results = [last, rows] if scans else [last]
    model.graph.node.append(helper.make_node("Loop", [turns, yes, start], results, body=body))
    _ask(model, rng.choice(results), rng)


def _branches(model: ModelProto, rng: Random) -> None:
    """Branches in branches."""
    yes = _known(model, rng.random() < 0.5, bool, rng)
    name = _value(model, rng)
    leaf = [helper.make_node("Relu", [name], ["q"])]
    for _ in range(times(rng, (1, 2, 3), (9, 20, 25))):
        other = body_of([helper.make_node("Neg", [name], ["q"])], [], ["q"])
        deep = body_of(leaf, [], ["q"])
        leaf = [helper.make_node("If", [yes], ["q"], then_branch=deep, else_branch=other)]
    last = _name(rng)
    leaf[0].output[0] = last
    model.graph.node.append(leaf[0])
    _ask(model, last, rng)


def _functions(model: ModelProto, rng: Random) -> None:
    """Functions that call the next one several times."""
    depth, calls = times(rng, (1, 2, 3), (8, 20, 40)), rng.choice((1, 2, 2, 3))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    prefix = _name(rng)
    for i in range(depth):
        inner = f"{prefix}_{i + 1}" if i < depth - 1 else "Relu"
        domain = "d" if i < depth - 1 else ""
        names = ["a", *(f"b{j}" for j in range(calls))]
        nodes = [
            helper.make_node(inner, [names[j]], [names[j + 1]], domain=domain) for j in range(calls)
        ]
        model.functions.append(
            helper.make_function("d", f"{prefix}_{i}", ["a"], [names[-1]], nodes, opsets)
        )
    if not any(o.domain == "d" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("d", 1))
    last = _name(rng)
    call = helper.make_node(f"{prefix}_0", [_value(model, rng)], [last], domain="d")
    model.graph.node.append(call)
    _ask(model, last, rng)


def _large(model: ModelProto, rng: Random) -> None:
    """An op that makes as much as its attributes ask for."""
    made = Large(model, rng)
    op = rng.choice(tuple(LARGE))
    inputs, more = LARGE[op](made)
    results = [_name(rng) for _ in range(more.get("num_outputs", 1))]
    model.graph.node.append(helper.make_node(op, inputs, results, **more))
    _ask(model, results[0], rng)


Told = tuple[list[str], dict[str, Any]]
"""The operands and attributes of a node."""


class Large:
    """The attributes of ops that make as much as these ask for."""

    def __init__(self, model: ModelProto, rng: Random) -> None:
        self.model, self.rng = model, rng
        self.two = self.known([1.0, 2.0], np.float32)
        self.x = self.two if rng.random() < 0.6 else _value(model, rng)

    def known(self, values: Any, dtype: Any = np.int64) -> str:
        return _known(self.model, values, dtype, self.rng)

    def size(self) -> int:
        return self.rng.choice(SIZES)

    def sizes(self, *counts: int) -> str:
        return self.known([self.size() for _ in range(self.rng.choice(counts))])

    def image(self) -> str:
        shape = (1, 1, 4, 4)
        return self.known(np.ones(shape), np.float32) if self.rng.random() < 0.7 else self.x

    def shape(self) -> Told:
        return [self.sizes(1, 1, 2, 3)], {}

    def shaped(self) -> Told:
        return [self.x, self.sizes(1, 1, 2, 3)], {}

    def padded(self) -> Told:
        modes = ("constant", "edge", "reflect", "wrap")
        return [self.x, self.sizes(2, 4)], {"mode": self.rng.choice(modes)}

    def counted(self) -> Told:
        step = self.rng.choice((1, 1, self.size()))
        return [self.known(self.rng.choice((0, 5))), self.known(self.size()), self.known(step)], {}

    def hot(self) -> Told:
        axis = self.rng.choice((-1, 0, 1, self.size()))
        return [self.known([0, 1]), self.known(self.size()), self.two], {"axis": axis}

    def eye(self) -> Told:
        shape = _name(self.rng)
        node = helper.make_node("ConstantOfShape", [self.sizes(2)], [shape])
        self.model.graph.node.append(node)
        return [shape], {"dtype": FLOAT, "k": self.rng.choice((0, 1, self.size()))}

    def resized(self) -> Told:
        scales = self.known([1, 1, *(float(self.size()) for _ in range(2))], np.float32)
        mode = self.rng.choice(("nearest", "linear", "cubic"))
        return [self.image(), "", scales], {"mode": mode}

    def pooled(self) -> Told:
        kernel = [self.size(), self.rng.choice((1, self.size()))]
        pads = [max(k - 1, 0) for k in kernel] * 2
        if self.rng.random() < 0.4:
            pads = [self.size()] * 4
        more = {"kernel_shape": kernel, "pads": pads}
        more["strides"] = [self.rng.choice((1, 2, self.size()))] * 2
        more["dilations"] = [self.rng.choice((1, 1, self.size()))] * 2
        return [self.image()], more

    def convolved(self) -> Told:
        (x,), more = self.pooled()
        del more["kernel_shape"]
        return [x, self.known(np.ones((1, 1, 3, 2)), np.float32)], more

    def length(self) -> Told:
        return [self.known(self.size())], {}

    def numbered(self) -> Told:
        return [self.x, self.known(self.size())], {}

    def listed(self) -> Told:
        return [self.x, self.known([self.size()])], {}

    def split(self) -> Told:
        return [self.x], {"num_outputs": max(1, min(self.size(), 300))}

    def blocks(self) -> Told:
        return [self.image()], {"blocksize": self.size()}

    def neighbours(self) -> Told:
        return [self.image()], {"size": self.size()}


LARGE: dict[str, Callable[[Large], Told]] = {
    **dict.fromkeys(("Expand", "Tile", "Reshape"), Large.shaped),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), Large.pooled),
    **dict.fromkeys(("Conv", "ConvTranspose"), Large.convolved),
    **dict.fromkeys(("DFT", "CumSum", "Trilu", "SplitToSequence"), Large.numbered),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), Large.blocks),
    "ConstantOfShape": Large.shape,
    "EyeLike": Large.eye,
    "HannWindow": Large.length,
    "LRN": Large.neighbours,
    "OneHot": Large.hot,
    "Pad": Large.padded,
    "Range": Large.counted,
    "Resize": Large.resized,
    "Split": Large.split,
    "TopK": Large.listed,
}
SIMPLE: tuple[Callable[[ModelProto, Random], None], ...] = (_operand, _drop, _exchange, _repeat)
WAYS = (
    *SIMPLE,
    *(_attribute, _attribute, _attribute, _initializer, _initializer, _input, _opset),
    *(_double, _loop, _branches, _functions, _large, _large, _large),
)
