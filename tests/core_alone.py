"""The work of the core alone, where nothing else of graphc is; the argument is a file of digits."""

import sys

import numpy as np

from graphc.base import errors
from graphc.base.errors import FeedError, GraphError
from graphc.compiler.request import compiled, request
from graphc.declare.net import Net
from graphc.declare.optim.sgd import SGD
from graphc.ir.tensor_type import N
from graphc.ops.linalg import affine
from graphc.ops.losses.classes import softmax_loss
from graphc.ops.select import relu
from graphc.runtime.executor import Executor

print(f"from {errors.__file__}")
digits = np.load(sys.argv[1])
x, y = digits["x"] / 16, digits["y"]

net = Net("digits")
h = relu(affine(net.input("x", (N, 64)), 32, name="hidden"))
scores = net.output("scores", affine(h, 10, name="scores"))
net.loss("loss", softmax_loss(scores, net.input("y", (N,), dtype="int64")))
print(net.graph())

plan = compiled(request(net, batch=128, optimizer=SGD(lr=0.1, momentum=0.9), backend="numpy"))
print(repr(plan))
print(plan.memory)

ex = Executor(plan, seed=0)
for _ in range(40):
    for start in range(0, 1280, 128):
        ex.step(x=x[start : start + 128], y=y[start : start + 128])
right = ex.forward(x=x[1280:1408])["scores"].argmax(1) == y[1280:1408]
print(f"right: {right.mean():.2f}")


def wide():
    return relu(affine(h, 0))


def unlike():
    return h + net.input("t", (N, 31))


def unfed():
    return ex.step(x=x[:8])


for mistake in (wide, unlike, unfed):
    try:
        mistake()
    except (GraphError, FeedError) as error:
        print(f"refused: {error}")
