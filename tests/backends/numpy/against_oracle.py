"""Run each kernel of a program by the evaluator and by the interpreter, on the same memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from graphc.backends.backend import bind_reference
from graphc.backends.numpy.kernels import Planned
from graphc.ir.op import Array
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Kernel, inputs
from graphc.kernels.program import Instr, Program
from tests.backends.native.interpreted import Interpreted

GUARD = 64
"""The bytes after the scratch that a kernel asks for; none may be written."""


class Compared(Interpreted):
    """A numpy program whose kernels run twice: nothing differs, and nothing else is written."""

    def __init__(self, program: Program, n: int, arrays: Mapping[str, Array]) -> None:
        super().__init__(program, n, arrays, (0,))
        self.kernels = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs, each instruction run in order."""
        for name, type in self.program.feeds.items():
            array = np.array(feeds[name], type.dtype)
            self.blocks["feed", name] = array.reshape(-1).view(np.uint8)
        with np.errstate(all="ignore"):
            for instr in self.program.instrs:
                if instr.body is not None:
                    self._compare(instr, instr.body)
                elif instr.kind == "call":
                    bind_reference(instr, self.n, self.view)()
        return {k: self.view(v).copy() for k, v in self.program.outputs.items()}

    def _compare(self, instr: Instr, kernel: Kernel) -> None:
        names = {*inputs(kernel), *kernel.body.written}
        arrays = {name: self._copied(name) for name in names}
        run(kernel, arrays, self.n)
        before = self._memory()
        planned = Planned.of(self.program, kernel)
        nbytes = planned.nbytes
        scratch = np.full(nbytes + GUARD, 0xFF, np.uint8)
        for call in planned.bind(self.n, self.view, scratch[:nbytes]):
            call()
        assert (scratch[nbytes:] == 0xFF).all(), f"{instr.nodes} writes beyond its scratch"
        for name in kernel.body.written:
            assert_alike(self.view(name), arrays[name], f"{name} of {instr.nodes}")
            before_view = partial(self._restored, before)
            np.copyto(before_view(name), self.view(name))
        for key, after in self._memory().items():
            where = np.flatnonzero(after != before[key])
            assert not where.size, f"{instr.nodes} writes to {key} at {where[:8]}"
        self.kernels += 1

    def _copied(self, name: str) -> Array:
        """Return a copy in the shape that the interpreter takes."""
        return np.ascontiguousarray(self.view(name)).copy()

    def _memory(self) -> dict[object, Array]:
        """Return a copy of all bytes."""
        found: dict[object, Array] = {key: block.copy() for key, block in self.blocks.items()}
        return {**found, "arena": self.arena.copy(), "gradients": self.gradients.copy()}

    def _restored(self, before: Mapping[object, Array], name: str) -> Array:
        """Return a buffer in a copy of the memory."""
        blocks, arena, gradients = self.blocks, self.arena, self.gradients
        self.blocks = {k: v for k, v in before.items() if isinstance(k, tuple)}
        self.arena, self.gradients = before["arena"], before["gradients"]
        found = self.view(name)
        self.blocks, self.arena, self.gradients = blocks, arena, gradients
        return found


def assert_alike(found: Array, wanted: Array, what: str) -> None:
    """Assert that arrays differ by rounding at most, relative to the largest number."""
    assert found.dtype == wanted.dtype, what
    wanted = wanted.reshape(found.shape)
    if found.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, what)
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isfinite(found), finite, what)
    np.testing.assert_array_equal(found[~finite], wanted[~finite], what)
    size = max(1.0, float(np.abs(wanted[finite]).max(initial=0)))
    few = 2000 * float(np.finfo(found.dtype).eps) * size
    np.testing.assert_allclose(found[finite], wanted[finite], rtol=0, atol=few, err_msg=what)
