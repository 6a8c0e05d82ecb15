"""Products of matrices of bfloat16 in the order of blocks, by multiply-adds.

Packed pairs are read twice: for the terms of even number, and for those of odd number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.backends.native.gemm_frame import Panel
from graphc.backends.native.gemm_pairs import PairSteps, PairSums, split
from graphc.backends.native.gemm_tile import Steps
from graphc.backends.native.ir import Value
from graphc.backends.native.vectors import Vectors
from graphc.ir.bfloat16 import BLOCK
from graphc.kernels.kernel import CHUNK


class BlockSums(PairSums):
    """The loops of sums in the order of blocks."""

    def steps(self, v: Vectors, panel: Panel) -> Steps:
        """Return the emitter of the sums of a full tile of a panel."""
        return BlockSteps(v, panel)


class BlockSteps(PairSteps):
    """The emitter of sums of blocks, each of which is that of its even and of its odd terms."""

    def __init__(self, v: Vectors, panel: Panel) -> None:
        super().__init__(v, panel)
        self.halves = [_Half(v, panel, half) for half in (1, 0)]

    def run(
        self,
        places: tuple[Value, Value],
        pitch: Value,
        k: Value,
        unroll: int,
        before: Callable[[Value], object] = lambda p: None,
        start: Sequence[Value] | None = None,
    ) -> list[Value]:
        """Emit the sums, which begin with `start`, over k pairs; return them row by row."""
        assert start is not None, "the sums of blocks are in memory"
        f, v, dtype = self.f, self.v, self.dtype

        def block(p: Value, carried: list[Value]) -> list[Value]:
            s, words, *totals = carried
            pairs = f.smaller(f.sub(k, p), BLOCK // 2)
            parts = [half.run((s, words), pitch, pairs, unroll) for half in self.halves]
            sums = [v.add(even, odd, dtype) for even, odd in zip(*parts, strict=True)]
            s = f.address(s, f.mul(pairs, 2 * CHUNK), self.element)
            words = f.address(words, f.mul(pairs, pitch), "i32")
            return [s, words, *(v.add(*each, dtype) for each in zip(totals, sums, strict=True))]

        types = ["ptr", "ptr", *[v.type(dtype)] * len(start)]
        state = list(zip(types, [*places, *start], strict=True))
        return f.loop(0, k, BLOCK // 2, block, state)[2:]


class _Half(PairSteps):
    """The emitter of the sums of one term of each pair: 0 is the second one, 1 the first."""

    def __init__(self, v: Vectors, panel: Panel, half: int) -> None:
        super().__init__(v, panel)
        self.half = half

    def _step(self, carried: list[Value], pitch: Value) -> list[Value]:
        """Emit the products of one pair's term."""
        s, v, *sums = carried
        right = [split(self.v, word)[self.half] for word in self.words(v)]
        self.multiply(self.f.address(s, self.half * CHUNK, self.element), right, sums)
        return [
            self.f.address(s, 2 * CHUNK, self.element),
            self.f.address(v, pitch, "i32"),
            *sums,
        ]
