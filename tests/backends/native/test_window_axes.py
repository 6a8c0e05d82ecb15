"""Convolutions whose strides, paddings and dilations differ by axis, by windows in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.cli.installation import plain

pytestmark = pytest.mark.needs("native")

CONVOLUTIONS: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((7, 5), (3, 1), {"padding": ((1, 1), (0, 0))}),
    ((5, 6), (1, 3), {"padding": ((0, 0), (2, 0)), "stride": (2, 1)}),
    ((9, 5), (2, 2), {"stride": (3, 1), "dilation": (1, 2)}),
    ((6, 7), (3, 2), {"padding": ((1, 2), (0, 1)), "dilation": (2, 3)}),
    ((5, 4), (2, 3), {"padding": ((0, 3), (1, 0)), "dilation": (3, 1), "stride": (1, 2)}),
    ((3, 4, 4), (2, 1, 2), {"padding": ((1, 0), (0, 0), (1, 1)), "dilation": (2, 1, 1)}),
    ((4, 3, 4), (2, 2, 1), {"stride": (1, 1, 3), "padding": ((2, 0), (1, 0), (0, 0))}),
)
"""The pixels of images, the size of filters, and options."""
CHANNELS, UNITS = 2, 3


def test_each_axis_is_its_own() -> None:
    """Narrow ones, whose tiles have several lines; all in one net, which is compiled once."""
    net, rng = gc.Net("axes"), np.random.default_rng(0)
    feeds, weights = dict[str, Any](), dict[str, Any]()
    for number, (space, kernel, options) in enumerate(CONVOLUTIONS):
        x = net.input(f"x{number}", (gc.N, CHANNELS, *space))
        w = net.parameter(f"w{number}", (UNITS, CHANNELS, *kernel), init="zeros")
        net.output(f"y{number}", gc.conv(x, w, **options))
        feeds[x.name] = rng.normal(size=(2, *x.type.shape[1:])).astype("float32")
        weights[w.name] = rng.normal(size=w.type.shape).astype("float32")
    ex = gc.Executor(gc.compile(net, batch=2, backend="native"))
    ex.state.assign(weights)
    found = ex.forward(feeds)
    for number, (space, kernel, options) in enumerate(CONVOLUTIONS):
        ones, none = (1,) * len(space), ((0, 0),) * len(space)
        stride, dilation = options.get("stride", ones), options.get("dilation", ones)
        x, w = (a.astype("float64") for a in (feeds[f"x{number}"], weights[f"w{number}"]))
        right = plain.conv(x, w, None, stride, options.get("padding", none), dilation)
        case = f"{space} {kernel} {options}"
        np.testing.assert_allclose(found[f"y{number}"], right, rtol=1e-4, atol=1e-5, err_msg=case)
