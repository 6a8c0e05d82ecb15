"""The layers of Stanford's CS231n course, as functions on arrays.

The functions have the names and signatures of the course's assignments, so that a graph
can be read beside the code it grew from.  They contain no mathematics: a forward calls the
reference rule of the op or layer in `graphc.ops`, a backward its gradient rule.

Arrays are float32 or float64, whole numbers count as float64.  A cache holds the arrays that
it was given, not copies; neither forward nor backward writes to one, nor to an argument
(except the dictionaries `bn_param` and `dropout_param`, as documented there).  Arrays that do not
fit raise GraphError.  Images have their channels first, (N, C, H, W); a sequence is (N, T, D).
"""

from __future__ import annotations

from graphc.layers.images import (
    conv_backward_naive,
    conv_forward_naive,
    max_pool_backward_naive,
    max_pool_forward_naive,
    spatial_batchnorm_backward,
    spatial_batchnorm_forward,
    spatial_groupnorm_backward,
    spatial_groupnorm_forward,
)
from graphc.layers.losses import softmax_loss, svm_loss, temporal_softmax_loss
from graphc.layers.rows import (
    affine_backward,
    affine_forward,
    affine_relu_backward,
    affine_relu_forward,
    batchnorm_backward,
    batchnorm_backward_alt,
    batchnorm_forward,
    dropout_backward,
    dropout_forward,
    layernorm_backward,
    layernorm_forward,
    relu_backward,
    relu_forward,
)
from graphc.layers.sequences import (
    lstm_backward,
    lstm_forward,
    lstm_step_backward,
    lstm_step_forward,
    rnn_backward,
    rnn_forward,
    rnn_step_backward,
    rnn_step_forward,
    temporal_affine_backward,
    temporal_affine_forward,
    word_embedding_backward,
    word_embedding_forward,
)

__all__ = [  # noqa: RUF022 - in the order of the course, and of the page
    "affine_forward",
    "affine_backward",
    "relu_forward",
    "relu_backward",
    "affine_relu_forward",
    "affine_relu_backward",
    "batchnorm_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "layernorm_forward",
    "layernorm_backward",
    "dropout_forward",
    "dropout_backward",
    "svm_loss",
    "softmax_loss",
    "conv_forward_naive",
    "conv_backward_naive",
    "max_pool_forward_naive",
    "max_pool_backward_naive",
    "spatial_batchnorm_forward",
    "spatial_batchnorm_backward",
    "spatial_groupnorm_forward",
    "spatial_groupnorm_backward",
    "rnn_step_forward",
    "rnn_step_backward",
    "rnn_forward",
    "rnn_backward",
    "lstm_step_forward",
    "lstm_step_backward",
    "lstm_forward",
    "lstm_backward",
    "word_embedding_forward",
    "word_embedding_backward",
    "temporal_affine_forward",
    "temporal_affine_backward",
    "temporal_softmax_loss",
]
