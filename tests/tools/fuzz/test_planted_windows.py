"""Faults planted in products of windows over images: the fuzzer's judge catches each."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.ir.graph import Graph
from tests.check.validation.faults import Fault, plant
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import judge


def strided() -> gc.Net:
    """A dilated kernel; every second place of a padded image; a border that is not of zeros."""
    net = gc.Net("strided", dtype="float64")
    x = net.input("x", (gc.N, 2, 5, 4))
    h = gc.tanh(gc.conv2d(x, 3, 2, dilation=(2, 1), name="first"))
    h = gc.tanh(gc.conv2d(h, 2, 3, stride=2, padding=1, name="second"))
    h = gc.conv2d(gc.pad(h, (0, 0, 1, 1), 0.5), 2, 2, name="third")
    net.output("h", h)
    net.loss("loss", gc.mean(h**2))
    return net


CONV, BORDERS = "graphc.ops.conv", "graphc.kernels.aliases:Padding"

# fmt: off
FAULTS = (
    # the fault, a net that shows it, the function; what is right, what is wrong; the verdict
    Fault("a window begins a pixel early", strided, f"{CONV}:Convolution.window",
          "self.dilation, none, one,", "self.dilation, one, one,", "wrong: "),
    Fault("a gradient's window begins a pixel early", strided, f"{CONV}:ConvDx._window_of_dy",
          "(k - 1) * d", "(k - 1) * d + 1", "wrong: "),
    Fault("a gradient's pixels lie side by side", strided, f"{CONV}:ConvDx._window_of_dy",
          "before, self.stride,", "before, one,", "wrong: "),
    Fault("stride and dilation change places", strided, f"{CONV}:Convolution.window",
          "self.stride, self.dilation", "self.dilation, self.stride", "wrong: "),
    Fault("a filter is not transposed", strided, f"{CONV}:ConvDx.product",
          "trans_b=True, order=self.order, window=",
          "order=self.order, window=", "wrong: "),
    Fault("a filter's gradient is of images that are not transposed", strided,
          f"{CONV}:ConvDw.product",
          "trans_a=True, order=self.order, window=", "order=self.order, window=",
          "raised: a kernel touches a whole buffer and no more"),
    Fault("a border is a pixel short", strided, f"{BORDERS}.product",
          "b - at * divisor for", "b - (at + 1) * divisor for", "wrong: "),
    Fault("a border is there twice", strided, f"{BORDERS}.product",
          "replace(window, space=space, before=before)", "replace(window, before=before)",
          "raised: a kernel touches a whole buffer and no more"),
    Fault("what is cut away is the end", strided, f"{BORDERS}.product",
          "b - at for b", "b for b", "wrong: "),
    Fault("a border of halves counts as one of zeros", strided, "graphc.ops.pad:Pad.box_start",
          "self.value != 0 or", "", "wrong: "),
)
# fmt: on


def case(graph: Graph) -> Case:
    return Case(graph, 2, (Event("step", 2),), gc.SGD(lr=0.1), backend="interpreted")


@pytest.mark.one_in(6)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_caught(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(fault, monkeypatch)
    net = fault.net()
    assert isinstance(net, gc.Net)
    verdict = judge(case(net.graph()))
    kind, _, what = fault.caught.partition(": ")
    assert verdict.kind == kind
    assert what in verdict.message


def test_without_a_fault_all_is_right() -> None:
    verdict = judge(case(strided().graph()))
    assert verdict.kind == "right", verdict.message
