"""Steps of sequences: products of stacks, attention, positions and recurrent layers."""

from __future__ import annotations

import graphc as gc
from tests.tools.generate.growth import NORMAL, Growth, columns, features


def _sequence(g: Growth, x: gc.Value) -> gc.Value:
    """The value as (N, steps, features), of few steps."""
    if x.type.rank == 3:
        return x
    size = features(x)
    steps = g.choice(*(k for k in (1, 2, 3, 4) if size % k == 0))
    return gc.reshape(x, (gc.N, steps, size // steps))


def attention(g: Growth, x: gc.Value) -> gc.Value:
    """Queries, keys and values from the pool; causal, masked or plain."""
    q = _sequence(g, x)
    k, v = (gc.affine(q, columns(q), axis=-1, init=NORMAL) for _ in range(2))
    mask = None
    if g.chance(0.3):
        mask = g.parameter(*(int(str(q.shape[1])) for _ in range(2)))
    return gc.attention(q, k, v, mask=mask, causal=g.chance(0.5))


def heads(g: Growth, x: gc.Value) -> gc.Value:
    """Several heads, whose axes are read and written in another order."""
    h = _sequence(g, x)
    width = columns(h)
    count = g.choice(*(k for k in (1, 2, 3) if width % k == 0))
    dropout = g.choice(0.0, 0.0, 0.25)
    return gc.multi_head_attention(h, count, causal=g.chance(0.5), dropout=dropout, init=NORMAL)


def positions(g: Growth, x: gc.Value) -> gc.Value:
    h = _sequence(g, x)
    if columns(h) % 2 or g.chance(0.4):
        return gc.learned_positions(h)
    return g.choice(gc.rotary_positions, gc.sinusoidal_positions)(h)


def recurrent(g: Growth, x: gc.Value) -> gc.Value:
    """A layer over the steps: all states, or the last one."""
    h = _sequence(g, x)
    layer = g.choice(gc.rnn, gc.lstm, gc.gru)
    states, last = layer(h, g.choice(1, 2, 3), reverse=g.chance(0.3))
    if g.chance(0.5):
        return states
    return last[0] if isinstance(last, tuple) else last


STEPS = {attention: 1, heads: 1, positions: 1, recurrent: 1}
