"""A small device: a memory budget, frozen weights, and no new arrays."""

import tracemalloc

import numpy as np

import graphc as gc


def net() -> gc.Net:
    net = gc.Net("edge")
    h = net.input("x", (gc.N, 64))
    for _ in range(8):
        h = gc.relu(gc.batchnorm(gc.affine(h, 128)))
    net.output("scores", gc.affine(h, 10))
    return net


def main() -> tuple[str, int, int]:
    try:
        gc.compile(net(), batch=1024, budget=1_000_000)
        refusal = ""
    except gc.BudgetError as error:
        refusal = str(error)  # says what is largest, and which batch fits
    ex = gc.Executor(gc.compile(net(), batch=16, budget=1_000_000), seed=0)
    frozen = gc.freeze(ex, batch=1)  # weights are constants, batchnorm is part of the affines
    x = np.ones((1, 64), np.float32)
    assert np.allclose(ex.predict(x), frozen.predict(x), rtol=1e-4, atol=1e-5)
    frozen.forward(x=x, copy=False)
    tracemalloc.start()
    for _ in range(1000):
        frozen.forward(x=x, copy=False)
    arrays = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    grown = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(arrays).traces)
    tracemalloc.stop()
    return refusal, frozen.plan.memory.total, grown


if __name__ == "__main__":
    print("{}\nfrozen: {:,} bytes; new arrays after 1,000 runs: {:,} bytes".format(*main()))
