"""Chains: the kernels of one matrix are called one after the other, for each of a thread's."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.loop_structure import each_index, moved
from graphc.backends.native.vectors import element_type
from graphc.kernels.kernel import BatchedGemm, Chain, Loop, buffers_of
from graphc.kernels.stack import Link, links_of

Emit = Callable[[Loop | BatchedGemm], Callee]
"""A function that emits the function of a kernel."""


def emit_chain(module: Module, kernel: Chain, dtypes: dict[str, str], emit: Emit) -> Callee:
    """Emit the function of a chain; its signature is a product's.

    `dtypes` are those of the buffers.  Threads from `kernel.threads` on have no matrix.
    """
    names = buffers_of(kernel)
    pointers = "".join(f"ptr %b{i}, " for i in range(len(names)))
    made = [(link, emit(link.kernel)) for link in links_of(kernel)]
    body = _Chain(kernel, dict(zip(names, range(len(names)), strict=True)), dtypes, made)
    arguments = f"{pointers}ptr %scratch, i64 %n, i64 %tid, i64 %all"
    return Callee(module.function("chain", arguments, body.emit), names)


class _Chain:
    """The emitter of the loop over a thread's matrices."""

    def __init__(
        self,
        kernel: Chain,
        place: dict[str, int],
        dtypes: dict[str, str],
        made: list[tuple[Link, Callee]],
    ) -> None:
        self.kernel, self.place, self.dtypes, self.made = kernel, place, dtypes, made
        self.starts = {p.buffer: p.start for p in kernel.private}

    def emit(self, f: Function) -> None:
        """Emit the function."""
        f.do(f"%threads = call i64 @llvm.smin.i64(i64 %all, i64 {self.kernel.threads})")
        f.when(f.less("%tid", "%threads"), lambda: self._matrices(f))

    def _matrices(self, f: Function) -> None:
        workspace = f"%b{self.place[self.kernel.workspace]}"
        mine = f.address(workspace, f.mul("%tid", self.kernel.share), "i8")
        private = {name: f.address(mine, start, "i8") for name, start in self.starts.items()}
        for index in each_index(f, [f.size(dim) for dim in self.kernel.sizes]):
            for link, callee in self.made:
                pointers = [
                    private.get(name) or moved(f, *self._buffer(name), link.strides[name], index)
                    for name in callee.buffers
                ]
                if isinstance(link.kernel, BatchedGemm):
                    pointers.append("%scratch")
                f.call(callee.name, *pointers, "%n", 0, 1)

    def _buffer(self, name: str) -> tuple[Value, str]:
        return f"%b{self.place[name]}", element_type(self.dtypes[name])
