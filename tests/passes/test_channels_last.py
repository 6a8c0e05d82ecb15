from __future__ import annotations

import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.init import Normal
from graphc.ops.conv import Conv
from graphc.ops.shape import Transpose
from graphc.ops.source import Parameter
from passes.channels_last import channels_last
from passes.dead_code import dead_code
from passes.fold_constants import fold_constants
from tests.passes.same import assert_preserved, specialized
from tests.tools.generate import nets

BEFORE = """\
graph net
p: float32[N, 4, 3, 2] = input()
v: float32[1, 1, 2, 5] = parameter()  init=Zeros()
c: float32[N, 4, 3, 5] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
a: float32[N, 5, 4, 3] = transpose(c)  axes=(0, 3, 1, 2)
b: float32[N, 5, 4, 3] = relu(a)
d: float32[N, 4, 3, 5] = transpose(b)  axes=(0, 2, 3, 1)
output d = d
"""

AFTER = """\
graph net
p: float32[N, 4, 3, 2] = input()
v: float32[1, 1, 2, 5] = parameter()  init=Zeros()
c: float32[N, 4, 3, 5] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
a.pixels: float32[12*N, 5] = reshape(c)
b.pixels: float32[12*N, 5] = relu(a.pixels)
b.channels_last: float32[N, 4, 3, 5] = reshape(b.pixels)
output d = b.channels_last
"""


def turned(graph: Graph) -> int:
    """How many images of the batch are turned."""
    return sum(isinstance(node.op, Transpose) and node.type.batched for node in graph)


def simplified(graph: Graph) -> Graph:
    return dead_code(fold_constants(dead_code(assert_preserved(channels_last, graph, 3))))


def image(net: gc.Net, channels: int = 2) -> gc.Value:
    """A convolution of an input, whose image is turned once on the way in."""
    x = net.input("x", (gc.N, 2, 4, 3))
    return gc.conv2d(x, channels, 2, name="first")


def after(net: gc.Net, y: gc.Value) -> Graph:
    """With one more convolution behind."""
    net.output("y", gc.flatten(gc.global_avg_pool(gc.conv2d(y, 3, 1, name="last"))))
    return simplified(specialized(net))


def test_golden() -> None:
    net = gc.Net("net")
    x, w = net.input("p", (gc.N, 4, 3, 2)), net.parameter("v", (1, 1, 2, 5), init="zeros")
    c = gc.apply(Conv((1, 1), (1, 1)), x, w, name="c")
    b = gc.relu(gc.transpose(c, (0, 3, 1, 2), name="a"), name="b")
    net.output("d", gc.transpose(b, (0, 2, 3, 1), name="d"))
    graph = net.graph()
    assert str(graph) == BEFORE
    assert str(dead_code(channels_last(graph))) == AFTER


def test_nets_without_images_are_left() -> None:
    net = gc.Net("net")
    net.output("y", gc.relu(gc.transpose(net.input("x", (gc.N, 2, 3, 4)), (0, 3, 1, 2))))
    graph = net.graph()
    assert channels_last(graph) is graph


def test_a_residual_net_turns_its_input_alone() -> None:
    net = gc.Net("net")
    h = gc.relu(gc.batchnorm(image(net)))
    r = gc.batchnorm(gc.conv2d(gc.relu(gc.conv2d(h, 2, 3, padding=1)), 2, 3, padding=1))
    h = gc.max_pool(gc.relu(r + h), 2, padding=1)
    assert turned(after(net, h)) == 1
    assert turned(simplified(specialized(net, train=False))) == 1


@pytest.mark.parametrize(
    "middle",
    [
        lambda h: gc.tanh(h) * 2.0 + 1.0,
        lambda h: gc.concat([gc.relu(h), h], axis=1),
        lambda h: gc.relu(h)[:, 1:],
        lambda h: gc.pad(h, (0, 0, 1, 1), 0.5),
        lambda h: gc.relu(h)[:, :, ::2],
        lambda h: gc.where(h > 0, h, 0.5 * h),
        lambda h: h * gc.sigmoid(gc.global_avg_pool(h)),
        lambda h: gc.avg_pool(gc.gelu(h), 2, padding=1) + 1.0,
        lambda h: gc.stop_gradient(h) + h,
        lambda h: h + h.builder.apply(parameter(2, 1, 1), name="v"),
        lambda h: h * h.builder.apply(parameter(3, 2), name="v"),
    ],
)
def test_what_an_image_passes_without_being_turned(middle) -> None:  # type: ignore[no-untyped-def]
    net = gc.Net("net")
    assert turned(after(net, middle(image(net)))) == 1


def parameter(*shape: int) -> Parameter:
    return Parameter(shape, "float32", Normal())


def test_a_mask_is_turned_only_where_the_image_goes_on() -> None:
    net = gc.Net("net")
    graph = after(net, gc.dropout(image(net), keep_prob=0.5, name="drop"))
    assert turned(graph) == 2
    assert graph["drop.pixels"].type.rank == 2
    net = gc.Net("net")
    net.output("y", gc.flatten(gc.dropout(image(net), keep_prob=0.5, name="drop")))
    graph = simplified(specialized(net))
    assert turned(graph) == 2
    assert "drop.pixels" not in graph


def test_a_value_that_a_gradient_is_asked_of_stays() -> None:
    net = gc.Net("net")
    h = gc.relu(image(net), name="h")
    net.loss("loss", gc.mean(gc.conv2d(gc.relu(h), 3, 1) ** 2))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy", wrt=["h", "first.weight"]), seed=0)
    ex.forward(x=[[[[1.0, 2, 3]] * 4] * 2], train=True)
    found = ex.backward()
    assert found["h"].shape == (1, 2, 3, 2)
    assert found["h"].any()


def test_bias_and_relu_stand_behind_their_convolution() -> None:
    """So that a kernel can do them on the way out."""
    net = gc.Net("net")
    graph = after(net, gc.relu(image(net), name="r"))
    assert graph["r.pixels"].inputs == ("first.biased",)
    rows, bias = graph["first.biased"].inputs
    assert bias == "first.bias"
    assert isinstance(graph[graph[rows].inputs[0]].op, Conv)


@settings(max_examples=12, deadline=None)
@given(net=nets())
def test_random_graphs_keep_their_results(net: gc.Net) -> None:
    for train in (True, False):
        assert_preserved(channels_last, specialized(net, train), 3)
