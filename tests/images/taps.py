"""Convolutions that read nothing of their images."""

from __future__ import annotations

from itertools import product

import graphc as gc
from graphc.ops.conv_layer import ConvLayer


def misses_an_image(net: gc.Net) -> bool:
    """Whether along an axis of some convolution no tap of any window lies inside the image."""
    graph = net.graph()
    for node in graph:
        if isinstance(node.op, ConvLayer):
            x, weight = (graph[name].type.shape[2:] for name in node.inputs[:2])
            steps = zip(node.op.stride, node.op.dilation, node.op.padding, strict=True)
            for size, taps, places, (stride, dilation, (before, _)) in zip(
                x, weight, node.type.shape[2:], steps, strict=True
            ):
                assert isinstance(size, int) and isinstance(taps, int) and isinstance(places, int)
                read = (
                    place * stride + tap * dilation - before
                    for place, tap in product(range(places), range(taps))
                )
                if not any(0 <= pixel < size for pixel in read):
                    return True
    return False
