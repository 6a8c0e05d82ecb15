"""How long it takes to verify a plan, and to write down its certificate.

    python -m tests.tools.benchmarks.verify

prints, for each backend, the microseconds a node at about 10,000 and 100,000 nodes of the compiled
step.  They are times of the processor, so that other programs on the machine count little.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import process_time

from graphc.check.certificate.export import certify_program
from graphc.check.verify import verify_program
from tests.tools.benchmarks.compile_scale import LAYERS, compiled

REPEATS = 5


def measure(layers: int, backend: str) -> tuple[int, float, float]:
    """The nodes of a step, and the best seconds for its certificate and for its proof."""
    program = compiled(layers, backend).programs["step"]
    tables = certify_program(program)
    assert verify_program(tables).ok
    export = _best(lambda: certify_program(program))
    return len(program.graph), export, _best(lambda: verify_program(tables))


def _best(run: Callable[[], object]) -> float:
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(REPEATS):
            start = process_time()
            run()
            times.append(process_time() - start)
    finally:
        gc.enable()
    return min(times)


def main() -> None:
    """Print a line for each backend and size."""
    for backend in ("native", "numpy"):
        for layers in LAYERS:
            nodes, export, proof = measure(layers, backend)
            each = (
                f"certificate {export / nodes * 1e6:5.2f} us  proof {proof / nodes * 1e6:5.2f} us"
            )
            print(f"{backend:<6} {nodes:>8,} nodes  {each}  a node")


if __name__ == "__main__":
    main()
