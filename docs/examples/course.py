"""Own layers checked as in a course; passes off and on; pictures."""

import sys

import numpy as np

import graphc as gc


def my_affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w)


def my_affine_backward(dout, cache):
    x, w = cache
    dw = x.reshape(len(x), -1).T @ dout
    return (dout @ w.T).reshape(x.shape), dw, dout.sum(axis=1)  # a bug: it is axis=0


def net() -> gc.Net:
    net = gc.Net("course")
    x, y = net.input("x", (gc.N, 4, 5)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.svm_loss(gc.affine(gc.relu(gc.affine(x, 8)), 3), y))
    return net


def main(folder: str = ".") -> tuple[str, float]:
    report = gc.check_layer("affine", my_affine_forward, my_affine_backward)
    gradients = []
    for passes, name in ((gc.passes.without("fuse_affine_relu"), "plain"), (None, "fused")):
        plan = gc.compile(net(), batch=6, passes=passes)
        plan.render(f"{folder}/{name}.svg")
        ex, rng = gc.Executor(plan, seed=0), np.random.default_rng(0)
        ex.forward(x=rng.normal(size=(6, 4, 5)), y=rng.integers(0, 3, 6), train=True)
        gradients.append(ex.backward()["affine_1.weight"])
    return str(report), float(np.abs(gradients[0] - gradients[1]).max())


if __name__ == "__main__":
    print("{}\nlargest difference by fusion: {}".format(*main(*sys.argv[1:2])))
