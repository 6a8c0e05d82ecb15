"""Nets that the tests of this folder draw."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph
from graphc.view.profile import Profile
from graphc.view.render import page_of
from graphc.view.render.layer_scene import graph_scene
from graphc.view.render.renderer import svg_of, write_drawing

HOSTILE = (
    'a"b',
    "<b>bold</b>",
    "a:b",
    "</text><script>alert(1)</script>",
    "x" * 500,
    "\N{GRINNING FACE} emoji",
    "שלום",
    "new\nline",
    "back\\N\\G\\\\",
    "\N{RIGHT-TO-LEFT OVERRIDE}evil",
    "&amp;",
    "nul\x00 \x1b[31m",
    "half \ud800",
    "trail\\",
    '"><img src=x onerror=alert(1)>',
    "]]>",
    "-->",
    "javascript:alert(1)",
    "/" * 300,
)


def digits(normed: bool = True) -> gc.Net:
    """Two hidden layers with dropout, with or without batchnorm."""
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (100, 50):
        h = gc.affine(h, width)
        if normed:
            h = gc.batchnorm(h)
        h = gc.dropout(gc.relu(h), keep_prob=0.8)
    scores = gc.affine(h, 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def hostile() -> gc.Net:
    """A net of names that mean something to DOT, SVG, HTML or a terminal."""
    net = gc.Net('<script>alert("net")</script>')
    h = net.input('in"<>', (gc.N, 4))
    for name in HOSTILE:
        h = gc.relu(gc.affine(h, 4, name=name))
    net.output("out<script>", h)
    net.loss('l"', gc.mean(h))
    return net


def deep(layers: int) -> gc.Net:
    """A chain of pairs of affine and relu."""
    net = gc.Net("deep")
    h = net.input("x", (gc.N, 2))
    for _ in range(layers):
        h = gc.relu(gc.affine(h, 2))
    net.output("y", h)
    net.loss("loss", gc.mean(h))
    return net


def residual(blocks: int) -> gc.Net:
    """Blocks of two affine layers, each added to what it read."""
    net = gc.Net("residual")
    h = gc.relu(gc.affine(net.input("x", (gc.N, 8)), 16))
    for _ in range(blocks):
        h = h + gc.affine(gc.relu(gc.affine(h, 16)), 16)
    scores = gc.affine(h, 3)
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def compiled(net: gc.Net) -> tuple[Graph, Graph]:
    """The declared graph, and that with gradients after every pass."""
    plan = gc.compile(net, batch=4)
    return plan.declared, plan.graphs["grad"][-1].graph


def render_graph(
    graph: Graph,
    path: Path,
    *,
    backward: Graph | None = None,
    fold: bool = True,
) -> Path:
    """Write the drawing of a graph in the format of the suffix."""
    draw = partial(graph_scene, graph, backward, fold)
    return write_drawing(draw, path, partial(page_of, graph, backward))


def svg_text(graph: Graph, *, backward: Graph | None = None, fold: bool = True) -> str:
    """The drawing of a graph as SVG."""
    return svg_of(partial(graph_scene, graph, backward, fold))


def html_text(
    graph: Graph,
    *,
    backward: Graph | None = None,
    plan: Plan | None = None,
    profile: Profile | None = None,
) -> str:
    """The page of a graph, with the times of a profile if one is given."""
    return page_of(graph, backward, plan, profile)
