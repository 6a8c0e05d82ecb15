"""Found by fuzzing: KeyError: 'argmax_1'"""

from __future__ import annotations

from graphc import SGD
from tests.fuzz.case import Case, Event
from tests.fuzz.check import assert_right
from tests.fuzz.write import graph_of

GRAPH = r"""
graph random
p: float32[3, 3] = parameter()  init=Normal(std=0.4, mean=0.0)
argmax_1: int64[N] = input()
gather_1: float32[N, 3] = gather(p, argmax_1)  axis=0
gather_1.mean_of_all: float32[] = mean(gather_1)  axes=(0, 1)
output loss = gather_1.mean_of_all
losses loss
"""


def test_seed_4() -> None:
    assert_right(
        Case(
            graph_of(GRAPH),
            batch=1,
            events=(Event(kind='step', n=1),),
            optimizer=SGD(lr=0.01),
            off=('cse', 'channels_last', 'fold_constants', 'share_batchnorm_statistics', 'fold_batchnorm', 'fuse_affine_relu', 'rematerialize'),
            backend='interpreted',
            draw=4,
        )
    )
