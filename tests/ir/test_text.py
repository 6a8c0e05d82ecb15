"""The text form: exact there and back, and every malformed line is told by its number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.init import FromArray
from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ir.text import graph_text, op_text, parse_graph
from graphc.kernels.text import program_text
from graphc.ops import OPS
from graphc.ops.source import Constant
from passes.pipeline import run_passes
from tests.passes.same import training_passes
from tests.together import together
from tests.tools.generate import nets

SCALAR = TensorType((), "float32")


@dataclass(frozen=True)
class Pair:
    """A value that a user's op has as its attribute."""

    left: Any
    right: Any = None


@dataclass(frozen=True)
class Holder(Op):
    """A user's op with one attribute of any kind."""

    value: Any
    on: bool = False
    note: str = ""

    def infer(self, ins: Any) -> TensorType:
        return SCALAR


class Bare(Op):
    """A user's op that is no dataclass."""

    name = "bare op"

    def infer(self, ins: Any) -> TensorType:
        return SCALAR

    def __eq__(self, other: object) -> bool:
        return type(other) is Bare

    def __hash__(self) -> int:
        return 1


OWN = {**OPS, "holder": Holder, "bare": Bare}


def same(a: Graph, b: Graph) -> None:
    """Equal in all but the user's lines; 1, 1.0 and True are three values."""
    assert (a.name, a.losses) == (b.name, b.losses)
    for roots in ("outputs", "gradients", "updates"):
        assert list(getattr(a, roots).items()) == list(getattr(b, roots).items())
    for p, q in zip(a, b, strict=True):
        assert (p.name, p.inputs, p.type, type(p.op)) == (q.name, q.inputs, q.type, type(q.op))
        assert repr(attributes(p.op)) == repr(attributes(q.op))
        if isinstance(p.op, Constant):
            assert p.op == q.op


def there_and_back(graph: Graph, locs: bool = False) -> Graph:
    text = graph_text(graph, locs=locs)
    back = parse_graph(text, OWN, values=[Pair])
    same(graph, back)
    assert graph_text(back) == graph_text(graph)
    return back


def held(value: Any, **more: Any) -> Graph:
    return Graph("g", [Node("a", Holder(value, **more), (), SCALAR)])


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_with_gradients_and_updates(net: gc.Net) -> None:
    graph = net.graph()
    there_and_back(graph, locs=True)
    there_and_back(run_passes(graph, training_passes(graph))[0])


texts = st.text(st.characters(exclude_categories=["Cs"]))  # without: texts of UTF-8, found slowly
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=40)
    | st.integers(1, 9).map(Batch),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.builds(Pair, inner, inner),
    max_leaves=6,
)


@given(value=values)
def test_any_attribute(value: Any) -> None:
    there_and_back(held(value))


@given(name=texts, other=texts, public=texts)
def test_any_names(name: str, other: str, public: str) -> None:
    if name != other:
        nodes = [Node(name, Bare(), (), SCALAR), Node(other, Bare(), (name,), SCALAR)]
        roots = {public: other, public + "2": name}
        there_and_back(
            Graph(
                public,
                nodes,
                outputs=roots,
                losses=[public],
                gradients=roots,
                updates={name: other},
            )
        )


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int64", "int32", "uint64", "uint32", "bool"]
)
@together("size", [0, 1, 5, 1000])
def test_constants_keep_every_bit(dtype: str, size: int) -> None:
    rng = np.random.default_rng(size)
    width = np.dtype(dtype).itemsize
    raw = rng.integers(0, 2 if dtype == "bool" else 256, size * width, np.uint8).tobytes()
    op = Constant((size,), dtype, raw)
    there_and_back(Graph("g", [Node("a", op, (), TensorType((size,), dtype))]))


def test_constants_of_special_numbers() -> None:
    numbers = np.array([0.0, -0.0, 0.1, 1e-45, 3.4e38, np.inf, -np.inf, np.nan], np.float32)
    op = Constant((8,), "float32", numbers.tobytes())
    graph = Graph("g", [Node("a", op, (), TensorType((8,), "float32"))])
    there_and_back(graph)
    assert "data=[0.0, -0.0, 0.1, 1e-45, 3.4e+38, inf, -inf, nan]" in str(graph)


def test_large_constants_are_bytes() -> None:
    op = Constant((100,), "float32", np.zeros(100, np.float32).tobytes())
    text = str(Graph("g", [Node("a", op, (), TensorType((100,), "float32"))]))
    assert 'data=zlib"' in text
    assert len(text) < 100


def test_initialisers_from_arrays() -> None:
    net = gc.Net("net")
    start = np.arange(6, dtype=np.float32).reshape(2, 3)
    net.output("y", net.input("x", (gc.N, 2)) @ net.parameter("w", (2, 3), init=start))
    back = there_and_back(net.graph())
    init = attributes(back["w"].op)["init"]
    assert isinstance(init, FromArray)
    np.testing.assert_array_equal(init.sample(np.random.default_rng(0), (2, 3), "float32"), start)


def test_one_line_a_node_and_what_the_type_says_is_left_out() -> None:
    net = gc.Net("my net")
    x = net.input("x", (gc.N, 2, 3))
    net.output("y", gc.reshape(x, (gc.N, 6), name="block 1/y"))
    assert str(net.graph()) == (
        'graph "my net"\n'
        "x: float32[N, 2, 3] = input()\n"
        '"block 1/y": float32[N, 6] = reshape(x)\n'
        'output y = "block 1/y"\n'
    )


def test_a_layer_and_the_op_of_its_name_are_told_apart() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 2)), 3))
    graph = net.graph()
    assert "= layer affine(x, affine_1.weight, affine_1.bias)" in str(graph)
    result = run_passes(graph, training_passes(graph)[:1])[0]
    assert "= affine(x, affine_1.weight, affine_1.bias)" in str(result)
    there_and_back(graph)
    there_and_back(result)


def test_locs_are_comments() -> None:
    net = gc.Net("net")
    net.output("y", gc.tanh(net.input("x", (gc.N,)), name="y"))
    line = graph_text(net.graph(), locs=True).splitlines()[2]
    assert line.startswith("y: float32[N] = tanh(x)  # test_text.py:")
    assert line.endswith(" in test_locs_are_comments")


def test_op_text() -> None:
    assert op_text(gc.ops.elementwise.Power(2.0)) == "power(exponent=2.0)"
    assert op_text(gc.ops.select.Relu()) == "relu"
    assert op_text(Holder(math.inf, on=True)) == "holder(value=inf, on=True)"


def test_what_text_cannot_hold_is_refused() -> None:
    with pytest.raises(GraphError, match="an attribute of type set cannot be written as text"):
        graph_text(held({1}))


def test_program_text_has_instructions_and_memory() -> None:
    net = gc.Net("net")
    h = gc.affine(net.input("x", (gc.N, 4)), 3, name="h")
    net.output("y", gc.relu(h, name="y"))
    plan = gc.compile(net, batch=8, backend="numpy")
    program = plan.programs["infer"]
    text = program_text(program)
    assert text == str(program)
    assert text.startswith("program infer for up to 8 rows, numpy\n")
    assert text.splitlines()[1:4] == [
        "  0  gemm N x 3  float32 partition=columns  product = x @ h.weight over 4",
        "       %1 = product + h.bias[j]",
        "       y = select(0 > %1, 0, %1)",
    ]
    assert f"memory: arena {program.arena.nbytes} bytes" in text
    row = next(line for line in text.splitlines() if line.startswith("  y "))
    assert row.split()[1:4] == ["float32[N,", "3]", "12*N"]
    assert len(program.instrs) == 1
    assert len(text.splitlines()) == 1 + 3 + 1 + len(program.buffers)


GOOD = [
    "graph g",
    "x: float32[N, 4] = input()",
    "w: float32[4, 3] = parameter()  init=He()",
    "y: float32[N, 3] = matmul(x, w)",
    "c: float32[2] = constant()  data=[1.0, 2.0]",
    "output y = y",
    "losses y",
]

BAD = [
    (1, "", "'graph' is expected where there is 'x'"),
    (1, "graph", "a name is expected where the line ends"),
    (1, "graph g h", "the end of the line is expected where there is 'h'"),
    (
        2,
        "x float32[N, 4] = input()",
        "a line begins with a node's name and ':', or with output, gradient, update",
    ),
    (2, "x: float33[N, 4] = input()", "dtype 'float33' is not one of"),
    (2, "x: float32[N, 2*N, N] = input()", "shape (N, 2*N, N) has the batch dimension 3 times"),
    (2, "x: float32[N, 4*N*N] = input()", "shape (N, 4*N*N) has the batch dimension 3 times"),
    (2, "x: float32[N, -4] = input()", "dimension -4 is neither a whole number"),
    (2, "x: float32[N, 4.0] = input()", "4.0 is not a dimension"),
    (2, "x: float32[N, 0*N] = input()", "the batch dimension is multiplied by whole numbers"),
    (2, "x: float32[N, 4 = input()", "']' is expected where there is '='"),
    (2, "x: float32[N, 4] = inputs()", "there is no op 'inputs'"),
    (2, "x: float32[N, 4] = layer input()", "there is no op 'layer input'"),
    (2, "x: float32[N, 4] = input(", "a name is expected where the line ends"),
    (
        2,
        "x: float32[N, 4] = input() shape=(3,)",
        "its type is float32[N, 4], input gives float32[3]",
    ),
    (2, "x: float32[N, 4] = input() shape=3", "shape is '3', not of type tuple"),
    (2, "x: float32[N, 4] = input() shape=[3]", "shape is '[3]', not of type tuple"),
    (2, "x: float32[N, 4] = input() size=3", "Input has no attribute 'size'"),
    (2, "x: float32[N, 4] = input() @", "'@' cannot be read"),
    (2, 'x: float32[N, 4] = input() dtype="float32', "'\"float32' cannot be read"),
    (3, "w: float32[4, 3] = parameter()", "Parameter lacks the attribute 'init'"),
    (3, "w: float32[4, 3] = parameter()  init=He", "'(' is expected where the line ends"),
    (
        3,
        "w: float32[4, 3] = parameter()  init=Open()",
        "'Open' is neither a value nor a class of values",
    ),
    (3, "w: float32[4, 3] = parameter()  init=He(a=1)", "He has no attribute 'a'"),
    (3, "w: float32[4, 3] = parameter()  init=Normal(std=-1.0, mean=0.0)", "Normal needs a std"),
    (3, "w: float32[4, 3] = parameter()  init=He() init=He()", "attribute 'init' appears twice"),
    (3, "x: float32[4, 3] = parameter()  init=He()", "there is a node 'x' already"),
    (4, "y: float32[N, 3] = matmul(x, v)", "'v' is not declared above"),
    (4, "y: float32[N, 3] = matmul(x)", "it has 1 operands, matmul takes at least 2"),
    (4, "y: float32[N, 4] = matmul(x, w)", "its type is float32[N, 4], matmul gives float32[N, 3]"),
    (4, "y: float32[N, 3] = matmul(w, x)", "a has 3 columns, b has N rows"),
    (5, "c: float32[2] = constant()  data=[1.0]", "its data has 4 bytes, float32[2] has 8"),
    (5, "c: float32[2] = constant()  data=[1.0, None]", "do not fit float32"),
    (5, "c: float32[2] = constant()  data=[1.0, True]", "do not fit float32"),
    (5, "c: int64[2] = constant()  data=[1, 2.5]", "do not fit int64"),
    (5, "c: bool[2] = constant()  data=[True, 1]", "do not fit bool"),
    (5, "c: int32[2] = constant()  data=[1, 3000000000]", "do not fit int32"),
    (5, 'c: float32[2] = constant()  data=zlib"AAAA"', "the compressed bytes are damaged"),
    (5, 'c: float32[2] = constant()  data=zlib"A"', ""),
    (5, f"c: float32[2] = constant()  data={'(' * 500}", "values are nested too deeply"),
    (
        6,
        "outputs y = y",
        "a line begins with a node's name and ':', or with output, gradient, update",
    ),
    (6, "output y = z", "'z' is not declared above"),
    (6, "output y: y", "'=' is expected where there is ':'"),
    (6, "update w = y", "'w' and 'y' are of different types"),
    (6, "update z = y", "'z' is not declared above"),
    (7, "losses z", "loss 'z' is not an output above"),
    (7, "output y = x", "there is output 'y' already"),
]


def test_the_good_lines_are_good() -> None:
    graph = parse_graph("\n".join(GOOD), OPS)
    assert len(graph) == 4
    assert parse_graph("\n\n# a comment\n".join(GOOD) + "\n", OPS).losses == ("y",)


@pytest.mark.parametrize(("number", "line", "sentence"), BAD)
def test_a_malformed_line_is_told_by_its_number(number: int, line: str, sentence: str) -> None:
    lines = [*GOOD[: number - 1], *([line] if line else []), *GOOD[number:]]
    with pytest.raises(GraphError) as caught:
        parse_graph("\n".join(lines), OPS)
    told = str(caught.value).splitlines()
    assert told[0].startswith(f"line {number}: ")
    assert sentence in told[0]
    assert len(told) <= 3


def test_an_empty_text_is_told() -> None:
    with pytest.raises(GraphError, match="line 1: the text is empty"):
        parse_graph("\n# nothing\n", OPS)


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_text_is_a_graph_or_a_graph_error(data: st.DataObject) -> None:
    text = "\n".join(GOOD)
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 3))
    new = data.draw(st.text(alphabet='abN019.*"\\()[]=:,#\n -', max_size=3))
    try:
        parse_graph(text[:at] + new + text[at + cut :], OPS)
    except GraphError as error:
        assert str(error).startswith("line ")


def test_an_op_of_graphc_takes_no_more_operands_than_it_has_words_for() -> None:
    lines = "graph g\nx: float32[N, 2] = input()\ny: float32[N, 2] = cast(x, x)"
    with pytest.raises(GraphError, match=r"line 3: it has 2 operands, cast takes at most 1"):
        parse_graph(lines, OPS)
