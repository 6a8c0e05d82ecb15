"""The parts that all methods of a matrix product share: sizes, memory, panels, packed operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass

from graphc.backends.native.gemm_sizes import Scratch, Tile
from graphc.backends.native.gemm_tile import Memory, emit_epilogue, matrix_dtypes
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.kernel import Gemm, factor_columns


class Frame:
    """The function of a matrix product under construction."""

    def __init__(
        self,
        module: Module,
        f: Function,
        kernel: Gemm,
        buffers: tuple[str, ...],
        pitch: Mapping[str, int],
        tile: Tile,
    ) -> None:
        arguments = {buffer: f"%b{i}" for i, buffer in enumerate(buffers)}
        self.memory = Memory(arguments, dict(pitch))
        self.module, self.f, self.kernel, self.tile = module, f, kernel, tile
        self.element, stored = element_type(tile.dtype), factor_columns(kernel)
        self.a, self.b = arguments[kernel.a], arguments[kernel.b]
        self.pitch_a, self.pitch_b = (
            pitch[name] if name in stored else 0 for name in (kernel.a, kernel.b)
        )
        self.scratch = Scratch(kernel, tile)
        self._full, self._rest = divmod(self.scratch.part, tile.width)
        self._of_part = self._full + bool(self._rest)
        self.panels = self.scratch.columns // self.scratch.part * self._of_part
        self.m, self.k = f.size(kernel.m), f.size(kernel.k)
        self.products = "%scratch"
        self.workspace = self.address("%scratch", self.scratch.products)
        self._epilogues: dict[tuple[int, int], str] = {}

    def address(self, base: Value, index: Value | int) -> Value:
        """Emit the address `index` elements of the product's dtype after `base`."""
        return self.f.address(base, index, self.element)

    def each_panel(self, panels: Range, body: Callable[[Panel], None]) -> None:
        """Emit the code of some panels: the full ones of each part, then its rest."""
        f, each, columns = self.f, self._of_part, self.scratch.part
        first, last = panels
        if each == self.panels:
            self._each_of_part(panels, "0", body)
            return

        def part(number: Value, _: list[Value]) -> None:
            before, start = f.mul(number, each), f.mul(number, columns)
            low = f.larger(f.sub(first, before), 0)
            high = f.smaller(f.sub(last, before), each)
            self._each_of_part((low, high), start, body)

        f.loop(f.quotient(first, each), f.quotient(f.add(last, each - 1), each), 1, part)

    def _each_of_part(self, panels: Range, start: Value, body: Callable[[Panel], None]) -> None:
        f, width, (first, last) = self.f, self.tile.width, panels

        def full(number: Value, _: list[Value]) -> None:
            body(Panel(self, self.tile.vectors, 0, f.add(start, f.mul(number, width))))

        def narrow() -> None:
            frame = self._for_rest()
            vectors = frame.tile.vectors_of(self._rest)
            body(Panel(frame, vectors, self._rest, f.add(start, self._full * width)))

        if self._full:
            f.loop(first, f.smaller(last, self._full), 1, full)
        if self._rest:
            f.when(f.value(f"icmp sgt i64 {last}, {self._full}"), narrow)

    def _for_rest(self) -> Frame:
        """Return the frame with the tile of the last panel."""
        found = copy(self)
        found.tile, found._epilogues = self.tile.for_rest(self._rest), {}
        return found

    @property
    def matrices(self) -> list[str]:
        """The buffers that the body reads or writes at each element of the result.

        Only those whose elements are as large as the product's.
        """
        size, dtypes = ITEMSIZE[self.tile.dtype], matrix_dtypes(self.kernel.body)
        return [buffer for buffer, dtype in dtypes.items() if ITEMSIZE[dtype] == size]

    @property
    def passed(self) -> str:
        """The text that passes the buffers on as arguments of a call."""
        return "".join(f"ptr {x}, " for x in self.memory.arguments.values())

    def epilogue(self, vectors: int, rest: int) -> str:
        """Return the name of the function that runs the body on a tile of products.

        Its arguments after the buffers are `EPILOGUE_ARGUMENTS`.
        """
        if (vectors, rest) not in self._epilogues:
            masked = rest % self.tile.lanes != 0
            self._epilogues[vectors, rest] = emit_epilogue(
                self.module, self.kernel, self.memory, self.tile, vectors, masked
            )
        return self._epilogues[vectors, rest]


@dataclass(frozen=True)
class Panel:
    """Neighbouring columns of b and of the result: as many as a tile has, or fewer."""

    frame: Frame
    """The frame with the panel's tile."""
    vectors: int
    rest: int
    """The number of its columns; 0 if it is full."""
    column: Value
    """The first column."""

    @property
    def columns(self) -> int:
        """The number of its columns."""
        return self.rest or self.frame.tile.width

    @property
    def masked(self) -> bool:
        """Whether its last vector is not full."""
        return self.rest % self.frame.tile.lanes != 0

    def pack(self, source: Value, target: Value, k: Value | int) -> None:
        """Emit the packing of k rows of its columns, which begin at `source`."""
        frame = self.frame
        if frame.kernel.trans_b:
            name = emit_transpose(frame.module, frame.tile, self.vectors)
        else:
            name = emit_copy(frame.module, frame.tile, self.vectors, self.masked)
        frame.f.do(
            f"call void @{name}(ptr {source}, i64 {frame.pitch_b}, i64 {self.columns}, "
            f"ptr {target}, i64 {k})"
        )

    def finish(self, products: Value, row: Value, rows: Value | int) -> None:
        """Emit the call that runs the body on a tile of products."""
        frame = self.frame
        frame.f.do(
            f"call void @{frame.epilogue(self.vectors, self.rest)}({frame.passed}ptr {products}, "
            f"i64 {row}, i64 {rows}, i64 {self.column}, i64 {self.columns}, i64 {frame.m}, i64 %n)"
        )


def emit_copy(module: Module, tile: Tile, vectors: int, masked: bool) -> str:
    """Return the function that copies `columns` of k rows to rows of `vectors` vectors.

    Unmasked, `columns` fill the vectors; masked, the lanes beyond them become 0.
    """

    def emit(f: Function) -> None:
        v, element = Vectors(module, f, tile.lanes), element_type(tile.dtype)
        offsets = [j * tile.lanes for j in range(vectors)]
        masks = [v.mask_below(f.sub("%columns", offset)) if masked else None for offset in offsets]

        def row(_: Value, carried: list[Value]) -> list[Value]:
            source, target = carried
            for offset, mask in zip(offsets, masks, strict=True):
                x = v.load(f.address(source, offset, element), tile.dtype, mask)
                v.store(x, f.address(target, offset, element), tile.dtype)
            following = f.address(source, "%pitch", element)
            return [following, f.address(target, vectors * tile.lanes, element)]

        f.loop(0, "%k", 1, row, [("ptr", "%from"), ("ptr", "%to")])

    key = ("copy", tile.dtype, tile.lanes, vectors, masked)
    return module.function("pack", _packing("%columns"), emit, key)


def emit_transpose(module: Module, tile: Tile, vectors: int) -> str:
    """Return the function that writes k columns of `rows` rows as k rows of `vectors` vectors.

    Lanes beyond the rows repeat the last row.  k is rounded up to full vectors, so the target must
    have space for as many rows.
    """
    width = vectors * tile.lanes

    def emit(f: Function) -> None:
        v, element = Vectors(module, f, tile.lanes), element_type(tile.dtype)
        last = f.sub("%rows", 1)
        full = f.value(f"and i64 %k, {-tile.lanes}")

        def square(p: Value, group: Value, mask: Value | None) -> None:
            rows = []
            for lane in range(tile.lanes):
                row = f.smaller(f.add(group, lane), last)
                place = f.address(f.address("%from", f.mul(row, "%pitch"), element), p, element)
                rows.append(v.load(place, tile.dtype, mask))
            target = f.address(f.address("%to", f.mul(p, width), element), group, element)
            for lane, x in enumerate(v.transpose(rows, tile.dtype)):
                v.store(x, f.address(target, lane * width, element), tile.dtype)

        def groups(p: Value, mask: Value | None) -> None:
            f.loop(0, width, tile.lanes, lambda group, _: square(p, group, mask))

        f.loop(0, full, tile.lanes, lambda p, _: groups(p, None))
        rest = f.sub("%k", full)
        more = f.value(f"icmp sgt i64 {rest}, 0")
        f.when(more, lambda: groups(full, v.mask_below(rest)))

    key = ("transpose", tile.dtype, tile.lanes, vectors)
    return module.function("pack", _packing("%rows"), emit, key)


def _packing(count: str) -> list[tuple[str, str]]:
    """Return the arguments of packing, where `count` are the columns or rows that exist."""
    places = [("ptr", "%from"), ("i64", "%pitch"), ("i64", count)]
    return [*places, ("ptr", "%to"), ("i64", "%k")]
