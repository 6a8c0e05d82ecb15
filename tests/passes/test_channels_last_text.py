"""Graphs of images before and after, in text."""

from __future__ import annotations

import pytest

from graphc.ir.graph import Graph
from graphc.ir.text import graph_text, parse_graph
from graphc.ir.verify import verify
from graphc.ops import OPS
from passes.channels_last import channels_last
from passes.dead_code import dead_code
from tests.passes.same import assert_preserved

# fmt: off
PIXELS = """\
p: float32[N, 4, 3, 2] = input()
z: float32[N, 2, 4, 3] = input()
v: float32[1, 1, 2, 2] = parameter()  init=Zeros()
k: float32[2, 1, 1] = parameter()  init=Zeros()
o: float32[1, 1, 1] = parameter()  init=Zeros()
s: float32[] = parameter()  init=Zeros()
c: float32[N, 4, 3, 2] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
m: float32[12*N, 2] = reshape(c)
b: float32[12*N, 2] = tanh(m)
i: float32[N, 4, 3, 2] = reshape(b)
a: float32[N, 2, 4, 3] = transpose(i)  axes=(0, 3, 1, 2)
e: float32[N, 2, 4, 3] = mul(a, k)
f: float32[N, 2, 4, 3] = mul(o, e)
g: float32[N, 2, 4, 3] = add(f, s)
h: float32[N, 2, 4, 3] = mul(g, z)
j: float32[N, 2, 4, 3] = add(h, z)
t: float32[N, 1, 4, 3] = slice(j)  cuts=((1, 1, 2, 1),)
u: float32[N, 2, 4, 3] = concat(t, t)  axis=1
d: float32[N, 4, 3, 2] = transpose(u)  axes=(0, 2, 3, 1)
y: float32[N, 4, 3, 2] = conv(d, v)  stride=(1, 1) dilation=(1, 1) groups=1
output y = y
""", """\
p: float32[N, 4, 3, 2] = input()
z: float32[N, 2, 4, 3] = input()
v: float32[1, 1, 2, 2] = parameter()  init=Zeros()
k: float32[2, 1, 1] = parameter()  init=Zeros()
o: float32[1, 1, 1] = parameter()  init=Zeros()
s: float32[] = parameter()  init=Zeros()
c: float32[N, 4, 3, 2] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
m: float32[12*N, 2] = reshape(c)
b: float32[12*N, 2] = tanh(m)
k.channels: float32[2] = reshape(k)
e.pixels: float32[12*N, 2] = mul(b, k.channels)
o.channels: float32[] = reshape(o)
f.pixels: float32[12*N, 2] = mul(o.channels, e.pixels)
g.pixels: float32[12*N, 2] = add(f.pixels, s)
z.channels_last: float32[N, 4, 3, 2] = transpose(z)  axes=(0, 2, 3, 1)
z.pixels: float32[12*N, 2] = reshape(z.channels_last)
h.pixels: float32[12*N, 2] = mul(g.pixels, z.pixels)
j.pixels: float32[12*N, 2] = add(h.pixels, z.pixels)
t.pixels: float32[12*N, 1] = slice(j.pixels)  cuts=((1, 1, 2, 1),)
u.pixels: float32[12*N, 2] = concat(t.pixels, t.pixels)  axis=1
u.channels_last: float32[N, 4, 3, 2] = reshape(u.pixels)
y: float32[N, 4, 3, 2] = conv(u.channels_last, v)  stride=(1, 1) dilation=(1, 1) groups=1
output y = y
"""
"""Numbers for each channel or for all, and an image that is turned once, however often read."""

IMAGES = """\
p: float32[N, 4, 3, 2] = input()
v: float32[1, 1, 2, 2] = parameter()  init=Zeros()
k: float32[4, 3] = parameter()  init=Zeros()
l: float32[2, 4, 1] = parameter()  init=Zeros()
s: float32[] = parameter()  init=Zeros()
c: float32[N, 4, 3, 2] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
a: float32[N, 2, 4, 3] = transpose(c)  axes=(0, 3, 1, 2)
w: bool[N, 2, 4, 3] = less(a, k)
q: float32[N, 2, 4, 3] = where(w, k, s)
r: float32[N, 2, 4, 3] = sub(q, l)
e: float32[N, 2, 4, 3] = add(r, s)
f: float32[N, 2, 8, 3] = concat(e, a)  axis=-2
g: float32[N, 2, 8, 2] = slice(f)  cuts=((3, 1, 3, 1),)
h: float32[N, 2, 8, 4] = pad(g)  pads=((0, 0), (0, 0), (0, 0), (2, 0)) value=0.5
d: float32[N, 8, 4, 2] = transpose(h)  axes=(0, 2, 3, 1)
y: float32[N, 8, 4, 2] = conv(d, v)  stride=(1, 1) dilation=(1, 1) groups=1
output y = y
""", """\
p: float32[N, 4, 3, 2] = input()
v: float32[1, 1, 2, 2] = parameter()  init=Zeros()
k: float32[4, 3] = parameter()  init=Zeros()
l: float32[2, 4, 1] = parameter()  init=Zeros()
s: float32[] = parameter()  init=Zeros()
c: float32[N, 4, 3, 2] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
k.ranked: float32[1, 1, 4, 3] = reshape(k)
k.ranked.channels_last: float32[1, 4, 3, 1] = reshape(k.ranked)
w.channels_last: bool[N, 4, 3, 2] = less(c, k.ranked.channels_last)
k.ranked_2: float32[1, 1, 4, 3] = reshape(k)
k.ranked_2.channels_last: float32[1, 4, 3, 1] = reshape(k.ranked_2)
q.channels_last: float32[N, 4, 3, 2] = where(w.channels_last, k.ranked_2.channels_last, s)
l.ranked: float32[1, 2, 4, 1] = reshape(l)
l.ranked.channels_last: float32[1, 4, 1, 2] = transpose(l.ranked)  axes=(0, 2, 3, 1)
r.channels_last: float32[N, 4, 3, 2] = sub(q.channels_last, l.ranked.channels_last)
r.pixels: float32[12*N, 2] = reshape(r.channels_last)
e.pixels: float32[12*N, 2] = add(r.pixels, s)
e.channels_last: float32[N, 4, 3, 2] = reshape(e.pixels)
f.channels_last: float32[N, 8, 3, 2] = concat(e.channels_last, c)  axis=1
g.channels_last: float32[N, 8, 2, 2] = slice(f.channels_last)  cuts=((2, 1, 3, 1),)
h.channels_last: float32[N, 8, 4, 2] = pad(g.channels_last)  pads=((0, 0), (0, 0), (2, 0), (0, 0)) value=0.5
y: float32[N, 8, 4, 2] = conv(h.channels_last, v)  stride=(1, 1) dilation=(1, 1) groups=1
output y = y
"""  # noqa: E501
"""Numbers for each pixel or line, and joins, parts and pads of images."""

LINE = """\
p: float32[N, 5, 2] = input()
v: float32[1, 2, 2] = parameter()  init=Zeros()
c: float32[N, 5, 2] = conv(p, v)  stride=(1,) dilation=(1,) groups=1
z: float32[N, 2, 5] = input()
e.pixels: float32[] = parameter()  init=Zeros()
e.pixels_2: float32[] = parameter()  init=Zeros()
a: float32[N, 2, 5] = transpose(c)  axes=(0, 2, 1)
e: float32[N, 2, 5] = add(a, z)
d: float32[N, 5, 2] = transpose(e)  axes=(0, 2, 1)
f: float32[N, 2, 5] = transpose(d)  axes=(0, 2, 1)
g: float32[N, 2, 5] = mul(f, e.pixels)
h: float32[N, 2, 5] = mul(g, e.pixels_2)
output d = d
output y = h
""", """\
p: float32[N, 5, 2] = input()
v: float32[1, 2, 2] = parameter()  init=Zeros()
c: float32[N, 5, 2] = conv(p, v)  stride=(1,) dilation=(1,) groups=1
z: float32[N, 2, 5] = input()
e.pixels: float32[] = parameter()  init=Zeros()
e.pixels_2: float32[] = parameter()  init=Zeros()
a.pixels: float32[5*N, 2] = reshape(c)
z.channels_last: float32[N, 5, 2] = transpose(z)  axes=(0, 2, 1)
z.pixels: float32[5*N, 2] = reshape(z.channels_last)
e.pixels_3: float32[5*N, 2] = add(a.pixels, z.pixels)
e.channels_last: float32[N, 5, 2] = reshape(e.pixels_3)
g.pixels: float32[5*N, 2] = mul(e.pixels_3, e.pixels)
h.pixels: float32[5*N, 2] = mul(g.pixels, e.pixels_2)
h.channels_last: float32[N, 5, 2] = reshape(h.pixels)
h: float32[N, 2, 5] = transpose(h.channels_last)  axes=(0, 2, 1)
output d = e.channels_last
output y = h
"""
"""Images of one dimension, one of which is turned back and again; names that are taken."""

POINT = """\
p: float32[N, 1, 1, 2] = input()
v: float32[1, 1, 2, 3] = parameter()  init=Zeros()
c: float32[N, 1, 1, 3] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
a: float32[N, 3, 1, 1] = reshape(c)
z: float32[N, 3, 1, 1] = input()
e: float32[N, 3, 1, 1] = mul(a, z)
d: float32[N, 1, 1, 3] = reshape(e)
output y = d
""", """\
p: float32[N, 1, 1, 2] = input()
v: float32[1, 1, 2, 3] = parameter()  init=Zeros()
c: float32[N, 1, 1, 3] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
z: float32[N, 3, 1, 1] = input()
a.pixels: float32[N, 3] = reshape(c)
z.channels_last: float32[N, 1, 1, 3] = reshape(z)
z.pixels: float32[N, 3] = reshape(z.channels_last)
e.pixels: float32[N, 3] = mul(a.pixels, z.pixels)
e.channels_last: float32[N, 1, 1, 3] = reshape(e.pixels)
output y = e.channels_last
"""
"""Images of one pixel, which turn by themselves."""

STRIP = """\
p: float32[N, 4, 1, 1] = input()
v: float32[1, 1, 1, 1] = parameter()  init=Zeros()
c: float32[N, 4, 1, 1] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
m: float32[4*N, 1] = reshape(c)
b: float32[4*N, 1] = exp(m)
i: float32[N, 4, 1, 1] = reshape(b)
a: float32[N, 1, 4, 1] = reshape(i)
e: float32[N, 1, 4, 1] = tanh(a)
d: float32[N, 4, 1, 1] = reshape(e)
output y = d
""", """\
p: float32[N, 4, 1, 1] = input()
v: float32[1, 1, 1, 1] = parameter()  init=Zeros()
c: float32[N, 4, 1, 1] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
m: float32[4*N, 1] = reshape(c)
b: float32[4*N, 1] = exp(m)
e.pixels: float32[4*N, 1] = tanh(b)
e.channels_last: float32[N, 4, 1, 1] = reshape(e.pixels)
output y = e.channels_last
"""
"""Images of one channel and one line, which are a matrix already."""

# fmt: on
CASES = {"pixels": PIXELS, "images": IMAGES, "line": LINE, "point": POINT, "strip": STRIP}


def parsed(text: str) -> Graph:
    graph = parse_graph(f"graph net\n{text}", OPS)
    verify(graph)
    return graph


@pytest.mark.parametrize("case", CASES)
def test_text(case: str) -> None:
    before, after = CASES[case]
    assert_preserved(channels_last, parsed(before.replace("float32", "float64")), 3)
    made = channels_last(parsed(before))
    assert graph_text(dead_code(made)).split("\n", 1)[1].rstrip() == after.rstrip()


CONV = """
p: float32[N, 2, 2, 2] = input()
v: float32[1, 1, 2, 2] = parameter()  init=Zeros()
c: float32[N, 2, 2, 2] = conv(p, v)  stride=(1, 1) dilation=(1, 1) groups=1
"""
DOT = CONV.replace("2, 2, 2", "1, 1, 1").replace("1, 1, 2, 2", "1, 1, 1, 1")
LEFT = {
    # Its bytes are those of c, but its pixels are where channels were.
    "no turn": f"""{CONV}
        a: float32[N, 2, 2, 2] = reshape(c)
        e: float32[N, 2, 2, 2] = tanh(a)
        d: float32[N, 2, 2, 2] = transpose(e)  axes=(0, 2, 3, 1)
        output y = d""",
    "another turn": f"""{CONV}
        a: float32[N, 2, 2, 2] = transpose(c)  axes=(0, 2, 1, 3)
        e: float32[N, 2, 2, 2] = tanh(a)
        d: float32[N, 2, 2, 2] = transpose(e)  axes=(0, 2, 3, 1)
        output y = d""",
    "no way back": f"""{CONV}
        a: float32[N, 2, 2, 2] = transpose(c)  axes=(0, 3, 1, 2)
        z: float32[N, 2, 2, 2] = input()
        e: float32[N, 2, 2, 2] = add(a, z)
        output y = e""",
    "no image of a convolution": f"""{CONV}
        q: float32[N, 1, 1, 3] = input()
        a: float32[N, 3, 1, 1] = reshape(q)
        e: float32[N, 3, 1, 1] = tanh(a)
        d: float32[N, 1, 1, 3] = reshape(e)
        output y = d
        output c = c""",
    "a part of the way": f"""{CONV}
        a: float32[N, 2, 2, 2] = transpose(c)  axes=(0, 3, 1, 2)
        z: float32[N, 2, 2, 2] = input()
        e: float32[N, 2, 2, 2] = add(a, z)
        f: float32[N, 2, 2, 2] = tanh(e)
        d: float32[N, 2, 2, 2] = transpose(f)  axes=(0, 2, 1, 3)
        output y = d""",
    "an op of one layout": f"""{CONV}
        a: float32[N, 2, 2, 2] = transpose(c)  axes=(0, 3, 1, 2)
        s: float32[N, 2, 2, 2] = softmax(a)  axis=1
        output y = s""",
    "another shape": f"""{CONV.replace("2, 2, 2]", "1, 3, 2]")}
        a: float32[N, 2, 1, 3] = reshape(c)
        e: float32[N, 2, 1, 3] = tanh(a)
        d: float32[N, 1, 3, 2] = transpose(e)  axes=(0, 2, 3, 1)
        output y = d""",
    "a matrix": f"""{CONV}
        m: float32[4*N, 2] = reshape(c)
        w: float32[2, 3] = parameter()  init=Zeros()
        t: float32[3, 2] = transpose(w)  axes=(1, 0)
        s: float32[3, 2] = tanh(t)
        u: float32[2, 3] = transpose(s)  axes=(1, 0)
        y: float32[4*N, 3] = matmul(m, u)
        output y = y""",
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_as_it_is(case: str) -> None:
    graph = parsed("\n".join(line.strip() for line in LEFT[case].splitlines() if line) + "\n")
    assert channels_last(graph) is graph


def test_what_ends_as_images_is_done_before_they_are_turned() -> None:
    """So that the convolution's kernel can do it on the way out."""
    graph = parsed(
        f"{CONV.lstrip()}a: float32[N, 2, 2, 2] = transpose(c)  axes=(0, 3, 1, 2)\n"
        "e: float32[N, 2, 2, 2] = tanh(a)\noutput y = e\n"
    )
    made = assert_preserved(channels_last, graph, 3)
    assert made["e.pixels"].op.name == "tanh"
    assert made["e"].op.name == "transpose"


def test_a_single_number_is_an_image_either_way() -> None:
    """What is done to it is done all the same."""
    text = f"""{DOT}
        a: float32[N, 1, 1, 1] = reshape(c)
        e: float32[N, 1, 1, 1] = tanh(a)
        f: float32[N, 1, 1, 1] = exp(e)
        d: float32[N, 1, 1, 1] = reshape(f)
        output y = d"""
    text = text.replace("float32", "float64")
    graph = parsed("\n".join(line.strip() for line in text.splitlines() if line) + "\n")
    assert_preserved(channels_last, graph, 3)
