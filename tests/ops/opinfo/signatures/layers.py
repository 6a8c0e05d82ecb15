"""graphc's functions that make their own parameters, or have no OpInfo: called `made` or `cell`."""

from __future__ import annotations

from typing import Any

import graphc as gc

Value = gc.Value


def _recurrent(function: Any, **options: Any) -> Any:
    def layer(x: Value, *initial: Value) -> list[Value]:
        start: Any = initial if len(initial) > 1 else initial[0] if initial else None
        y, last = function(x, 3, initial=start, name="made", **options)
        return [y, *(last if isinstance(last, tuple) else (last,))]

    return layer


LAYERS = {
    "affine": lambda x: gc.affine(x, 3, name="made"),
    "conv1d": lambda x: gc.conv1d(x, 3, 2, 2, name="made"),
    "conv2d": lambda x: gc.conv2d(x, 4, 3, padding=1, groups=2, name="made"),
    "conv3d": lambda x: gc.conv3d(x, 2, 2, name="made"),
    "conv_transpose1d": lambda x: gc.conv_transpose1d(x, 3, 2, 2, name="made"),
    "conv_transpose2d": lambda x: gc.conv_transpose2d(x, 3, 3, 2, padding=1, name="made"),
    "batchnorm": lambda x: gc.batchnorm(x, name="made"),
    "layernorm": lambda x: gc.layernorm(x, name="made"),
    "rmsnorm": lambda x: gc.rmsnorm(x, name="made"),
    "groupnorm": lambda x: gc.groupnorm(x, 2, name="made"),
    "instancenorm": lambda x: gc.instancenorm(x, name="made"),
    "prelu": lambda x: gc.prelu(x, name="made"),
    "embedding": lambda ids: gc.embedding(ids, 5, 3, dtype="float64", name="made"),
    "multi_head_attention": lambda x: gc.multi_head_attention(x, 2, causal=True, name="made"),
    "learned_positions": lambda x: gc.learned_positions(x, name="made"),
    "sinusoidal_positions": gc.sinusoidal_positions,
    "rotary_positions": gc.rotary_positions,
    "rnn": _recurrent(gc.rnn),
    "rnn relu": _recurrent(gc.rnn, activation="relu"),
    "gru": _recurrent(gc.gru),
    "lstm": _recurrent(gc.lstm),
    "rnn both ways": _recurrent(gc.rnn, bidirectional=True),
    "gru both ways": _recurrent(gc.gru, bidirectional=True),
    "lstm both ways": _recurrent(gc.lstm, bidirectional=True),
    "rnn_cell": gc.rnn_cell,
    "gru_cell": gc.gru_cell,
    "lstm_cell": gc.lstm_cell,
    "hard_sigmoid": gc.hard_sigmoid,
    "hinge_loss": gc.hinge_loss,
    "hinge_loss squared": lambda x, y: gc.hinge_loss(x, y, squared=True),
    "log_cosh_loss": gc.log_cosh_loss,
    "sigmoid_loss": lambda x, y: gc.sigmoid_loss(x, y, pos_weight=[0.5, 2.0, 3.0]),
    "weighted mse_loss": lambda x, y, w: gc.mse_loss(x, y, weight=w),
    "sum_squares": lambda x: gc.sum_squares(x, 1),
    "gather_nd": gc.gather_nd,
    "pick": gc.pick,
    "accuracy": gc.accuracy,
    "mean_absolute_error": gc.mean_absolute_error,
    "cumsum": lambda x: gc.cumsum(x, 1, exclusive=True, reverse=True),
    "cumprod": lambda x: gc.cumprod(x, 1, exclusive=True, reverse=True),
    "floor_div": gc.floor_div,
    "trunc_div": gc.trunc_div,
    "stop_gradient": lambda x: gc.stop_gradient(x) * x,
}
