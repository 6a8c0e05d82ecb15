"""`gc.onnx.save`: an ONNX model of a net, with its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx import FunctionProto, ModelProto, checker, helper

from graphc.base import __version__
from graphc.base.errors import GraphError, ModelFileError
from graphc.compiler.plan import Plan
from graphc.declare.net import Net
from graphc.declare.selection import select_outputs
from graphc.files.disk import write_file
from graphc.files.graph_file import check_names
from graphc.ir.graph import Graph, Node, joint_results
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import TensorType
from graphc.ir.text.graph import op_text, word_of
from graphc.onnx.export import IR_VERSION, OPSET, Writer, next_of, tensor, value_info
from graphc.onnx.export.functions import BODIES
from graphc.onnx.export.loops import write_loop
from graphc.onnx.export.precision import only_rounded, with_precision
from graphc.onnx.export.standard import STANDARD
from graphc.onnx.load import LOSSES, STATES, UPDATES
from graphc.onnx.model_file import LARGEST_FILE, names_read, path_of
from graphc.onnx.scope import DOMAIN
from graphc.ops import OPS
from graphc.ops.autodiff import Gradient
from graphc.ops.loops.lengths import within_lengths
from graphc.ops.random_numbers import Noise
from graphc.ops.source import Constant
from graphc.runtime.executor import Executor
from graphc.runtime.reference import expanded, initial_state, operand_names
from passes.dead_code import dead_code

SAVE = "the net, plan or executor, then the path: gc.onnx.save(ex, 'model.onnx')"


def save(
    thing: Net | Plan | Executor, path: str | Path, *, train: bool = False, losses: bool = True
) -> Path:
    """Write an ONNX model, all or nothing; the same net and weights give the same bytes.

    The model has all outputs, losses among them, the inputs that they need, and the batch as the
    dimension `N`.  An op that ONNX does not have becomes a function of the domain `graphc`, whose
    body consists of ONNX's ops; `load` makes the same layer from it.

    Parameters
    ----------
    thing
        An executor, written with its weights, or a net or plan, with its initial ones.
    path
        The file to write.
    train
        Whether to write the forward part of a training step: batch statistics, whose next running
        values become additional outputs, and dropout.  By default the model is for inference.
    losses
        Whether to write the losses, and the inputs that only they need.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    GraphError
        If the net has an op of your own, a gradient, no output, or a name that is not printable.
    ModelFileError
        If the file cannot be written, or would be larger than 2 GB.

    Examples
    --------
    >>> net = gc.Net("small")
    >>> y = net.output("y", gc.relu(gc.affine(net.input("x", (gc.N, 4)), 8)))
    >>> gc.onnx.save(net, "small.onnx").name
    'small.onnx'
    """
    path = path_of("save", path, SAVE)
    model = to_proto(thing, train=train, losses=losses)
    data = model.SerializeToString(deterministic=True)
    if len(data) >= LARGEST_FILE:
        raise ModelFileError("the model is larger than the 2 GB of a protocol buffer")
    return write_file(path, [data])


def to_proto(
    thing: Net | Plan | Executor, *, train: bool = False, losses: bool = True
) -> ModelProto:
    """Return the model that `save` writes.

    Parameters
    ----------
    thing, train, losses
        As for `save`, whose errors it raises.

    Returns
    -------
    ModelProto
        The model, which `onnx.checker` has accepted.

    Examples
    --------
    >>> net = gc.Net("small")
    >>> y = net.output("y", gc.relu(gc.affine(net.input("x", (gc.N, 4)), 8)))
    >>> [node.op_type for node in gc.onnx.to_proto(net).graph.node]
    ['Gemm', 'Relu', 'Identity']
    """
    if isinstance(thing, Executor):
        graph, state = thing.plan.declared, dict(thing.state)
        state = initial_state(graph, thing.state.seed) | state
    elif isinstance(thing, (Net, Plan)):
        graph = thing.graph() if isinstance(thing, Net) else thing.declared
        state = initial_state(graph, 0)
    else:
        raise GraphError(
            f"save takes a net, a plan or an executor, not {type(thing).__name__}", hint=SAVE
        )
    if not losses:
        graph = select_outputs(graph, [], None)
    if not isinstance(thing, Net):
        plan = thing.plan if isinstance(thing, Executor) else thing
        graph = with_precision(graph, plan.options.precision)
    if not graph.outputs:
        raise GraphError(f"net {graph.name!r} has no output to export")
    check_names(graph)
    model = export(graph, state, train)
    checker.check_model(model, full_check=True)
    return model


def export(graph: Graph, state: Mapping[str, Array], train: bool) -> ModelProto:
    """Return a model of what the outputs need; raise GraphError for ops ONNX cannot express."""
    functions, graph = Functions(), within_lengths(graph)
    written = dead_code(graph)
    kept = written.forward()
    fed = [node for node in graph if node.op.is_input]
    fed.sort(key=lambda node: node.name not in kept)  # count rows by an exported input first
    types = {node.name: node.type for node in graph}
    w = Writer(types, [node.name for node in fed], train, graph.outputs)
    w.narrow = only_rounded(written)
    functions.write_nodes(w, [node for node in written if node.name in kept])
    read = {*names_read(w.nodes), *graph.outputs.values()}
    initializers = [
        tensor(node.name, state[node.name])
        for node in graph
        if node.op.persistent and node.name in read
    ]
    for public, name in graph.outputs.items():
        if public != name:
            _write_output(w, public, name)
    _check_updated(w)
    needed = [node for node in graph if node.op.is_input and node.name in kept | read]
    inputs = [value_info(node.name, node.type) for node in needed]
    outputs = [value_info(public, graph[name].type) for public, name in graph.outputs.items()]
    outputs += [value_info(next_of(name), graph[name].type) for name in w.updated]
    made = helper.make_graph(w.nodes, graph.name, inputs, outputs, initializers)
    return _model(made, functions, graph, w.updated)


def _write_output(w: Writer, public: str, name: str) -> None:
    """Write an output whose name is not its node's; raise GraphError if another node has it."""
    if public in w.types:
        raise GraphError(
            f"the output {public!r} has the name of another node, but names in ONNX are unique",
            hint="give the output another name",
        )
    w.prefix = public
    w.emit("Identity", [name], public)


def _check_updated(w: Writer) -> None:
    for name in w.updated:
        if next_of(name) in w.taken:
            raise GraphError(
                f"the next value of {name!r} is called {next_of(name)!r} in ONNX; the net has a "
                "value or an output of that name",
                hint="give that one another name",
            )


def _model(made: Any, functions: Functions, graph: Graph, moved: Sequence[str]) -> ModelProto:
    opsets = [helper.make_opsetid("", OPSET)]
    if functions.made:
        opsets.append(helper.make_opsetid(DOMAIN, 1))
    model: ModelProto = helper.make_model(
        made, opset_imports=opsets, functions=list(functions.made.values())
    )
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = DOMAIN, __version__
    states = [t.name for t in made.initializer if graph[t.name].op.is_state]
    names_of = {LOSSES: graph.losses, STATES: states, UPDATES: [next_of(name) for name in moved]}
    helper.set_model_props(
        model, {key: "\n".join(names) for key, names in names_of.items() if names}
    )
    return model


class Functions:
    """The functions of a model: one for each op that ONNX does not have, and its operand types."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, tuple[TensorType, ...]], FunctionProto] = {}
        self._count: Counter[str] = Counter()
        """The number of functions of each op, by the op's name."""

    def write_nodes(self, w: Writer, nodes: Sequence[Node]) -> None:
        """Write nodes, and all results of a loop where the first one is."""
        joint = {node.name: loop for loop in joint_results(nodes) for node in loop}
        for node in nodes:
            w.prefix = node.name
            loop = joint.get(node.name)
            if loop is None:
                self._write(w, node.op, node.inputs, node.name, node)
            elif node is loop[0]:
                write_loop(w, loop, self.write_nodes)

    def _write(
        self, w: Writer, op: Op, ins: tuple[str, ...], out: str, node: Node | None = None
    ) -> None:
        """Write an op as a node of ONNX, or as a call of a function."""
        if isinstance(op, Constant):
            w.constant(op.array(), "bfloat16" if out in w.narrow else None, out)
        elif op.is_source:
            return
        elif type(op) not in STANDARD or STANDARD[type(op)](w, op, ins, out) is None:
            self._check(op, node)
            text = op_text(op)
            ins = ins[:1] if isinstance(op, Noise) else ins  # ONNX's random numbers have no keys
            function = self._function(w, op, ins, text)
            w.emit(function.name, ins, out, domain=DOMAIN, graphc=text)

    def _check(self, op: Op, node: Node | None) -> None:
        own = type(op) in OPS.values()
        layer = op.is_layer and not isinstance(op, Gradient)
        if own and (layer or word_of(type(op)) in BODIES):
            return
        what = "form of it" if own else "ops of your own"
        what = "random numbers by a counter" if op.is_random else what
        what = "gradients" if isinstance(op, Gradient) else what
        raise GraphError(
            f"{op.name} {node.name if node else ''!r} is not exported to ONNX, which has no {what}",
            loc=node.loc if node else None,
            hint="a plan without it is: gc.compile(net, batch=..., outputs=[...], losses=[])",
        )

    def _function(self, w: Writer, op: Op, ins: tuple[str, ...], text: str) -> FunctionProto:
        types = tuple(w.types[name] for name in ins)
        key = text, types
        if key not in self.made:
            body = self._body(w, op, types)
            self._count[op.name] += 1
            same = self._count[op.name]
            self.made[key] = helper.make_function(
                DOMAIN,
                f"{op.name}_{same}" if same > 1 else op.name,
                list(operand_names(op, len(types))),
                ["result"],
                body.nodes,
                [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
                attributes=[DOMAIN],
            )
        return self.made[key]

    def _body(self, w: Writer, op: Op, types: tuple[TensorType, ...]) -> Writer:
        word = word_of(type(op))
        if word in BODIES:
            names = operand_names(op, len(types))
            inner = Writer(dict(zip(names, types, strict=True)), names, w.train)
            BODIES[word](inner, op, names, "result")
            return inner
        graph = expanded(op, types)
        fed = [node.name for node in graph if node.op.is_input]
        w = Writer({node.name: node.type for node in graph}, fed, False)
        self.write_nodes(w, list(graph))
        if graph.outputs["out"] != "result":
            w.emit("Identity", [graph.outputs["out"]], "result")
        return w
