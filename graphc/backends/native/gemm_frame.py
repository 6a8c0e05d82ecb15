"""The parts that all methods of a matrix product share: sizes, memory, panels, packed operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass

from graphc.backends.native.choose_scratch import scratch_of
from graphc.backends.native.elements import Elements, Epilogue, elements_of
from graphc.backends.native.gemm_scratch import FEW, whole
from graphc.backends.native.gemm_tile import PANEL_ARGUMENTS, Tile
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import each_vector
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.kernel import Gemm


class Frame:
    """The function of a matrix product under construction."""

    def __init__(
        self,
        module: Module,
        f: Function,
        kernel: Gemm,
        buffers: tuple[str, ...],
        pitch: Mapping[str, Dim],
        tile: Tile,
        *,
        packed: bool = False,
        full: bool = False,
        long: bool = False,
    ) -> None:
        """Prepare; `packed` is true if b is stored in panels, `long` if it has many rows.

        With `full`, a loop has made panels of b, at %panels: full vectors, and whole units of rows.
        """
        self.packed, self.full = packed or full, full
        self.arguments = {buffer: f"%b{i}" for i, buffer in enumerate(buffers)}
        self.pitches = pitch
        self.module, self.f, self.kernel, self.tile = module, f, kernel, tile
        self.element, stored = element_type(tile.dtype), kernel.factor_columns
        self.a, self.b = self.arguments[kernel.a], self.arguments[kernel.b]
        self.rows_a, self.rows_b = (
            pitch[name] if name in stored else 0 for name in (kernel.a, kernel.b)
        )
        self.scratch = scratch_of(kernel, tile, packs=not self.packed, long=long)
        self.m, self.n, self.k = f.size(kernel.m), f.size(kernel.n), f.size(kernel.k)
        if isinstance(kernel.n, Batch):
            self.panels: Value = f.ceiling(self.n, tile.width)
        else:
            self._full, self._rest = divmod(self.scratch.part, tile.width)
            self._of_part = self._full + bool(self._rest)
            self.panels = str(self.scratch.columns // self.scratch.part * self._of_part)
        self.products = "%scratch"
        self.workspace = self.address("%scratch", self.scratch.products)
        self._epilogues: dict[tuple[Tile, int, bool], str] = {}

    @property
    def depth(self) -> int:
        """The rows of a panel, if b is packed before the product."""
        return whole(self.scratch.inner) if self.full else self.scratch.inner

    @property
    def tiles_only(self) -> bool:
        """True if few rows are computed as many are, since one method is less code."""
        kernel = self.kernel
        batched = isinstance(kernel.n, Batch) or (kernel.trans_b and isinstance(kernel.k, Batch))
        stored = self.packed and not self.full  # else few rows read b where it was declared
        pairs = kernel.order == "pairs" and kernel.trans_b
        only = kernel.trans_a or batched or stored or pairs or self.tile.lanes == 1
        return only or kernel.order == "blocks" or (isinstance(kernel.m, int) and kernel.m > FEW)

    @property
    def pitch_a(self) -> int:
        """The elements from row to row of a, as stored, if the batch is not among its columns."""
        assert isinstance(self.rows_a, int), "the columns of a are counted"
        return self.rows_a

    @property
    def pitch_b(self) -> int:
        """The elements from row to row of b, as stored, if the batch is not among its columns."""
        assert isinstance(self.rows_b, int), "the columns of b are counted"
        return self.rows_b

    def address(self, base: Value, index: Value | int) -> Value:
        """Emit the address `index` elements of the product's dtype after `base`."""
        return self.f.address(base, index, self.element)

    def factor(self, base: Value, index: Value | int) -> Value:
        """Emit the address `index` factors, as stored, after `base`."""
        return self.f.address(base, index, element_type(self.kernel.factor_dtype))

    def each_panel(self, panels: Range) -> Iterator[Panel]:
        """Emit loops around the code for some panels: the full ones of each part, the last one."""
        if isinstance(self.kernel.n, Batch):
            yield from self._each_of_batch(panels)
            return
        f, each, columns = self.f, self._of_part, self.scratch.part
        first, last = panels
        if str(each) == self.panels:
            yield from self._each_of_part(panels, "0")
            return
        for number in f.each(f.quotient(first, each), f.ceiling(last, each)):
            before, start = f.mul(number, each), f.mul(number, columns)
            low = f.larger(f.sub(first, before), 0)
            high = f.smaller(f.sub(last, before), each)
            yield from self._each_of_part((low, high), start)

    def _each_of_batch(self, panels: Range) -> Iterator[Panel]:
        """Emit the same for panels whose columns the batch determines: the last one is masked."""
        f, width, (first, last) = self.f, self.tile.width, panels
        full = f.quotient(self.n, width)
        for number in f.each(first, f.smaller(last, full)):
            yield Panel(self, self.tile.vectors, width, f.mul(number, width))
        rest = f.sub(self.n, f.mul(full, width))
        for _ in f.only_if(f.less(full, last)):
            yield Panel(self, self.tile.vectors, rest, f.mul(full, width))

    def _each_of_part(self, panels: Range, start: Value) -> Iterator[Panel]:
        f, width, (first, last) = self.f, self.tile.width, panels
        if self._full:
            for number in f.each(first, f.smaller(last, self._full)):
                yield Panel(self, self.tile.vectors, width, f.add(start, f.mul(number, width)))
        if self._rest:
            for _ in f.only_if(f.less(self._full, last)):
                frame = self._for_last_panel()
                vectors = frame.tile.vectors_of(self._rest)
                yield Panel(frame, vectors, self._rest, f.add(start, self._full * width))

    def _for_last_panel(self) -> Frame:
        """Return the frame with the tile of the last, narrow panel."""
        found = copy(self)
        found.tile = self.tile.for_last_panel(self._rest)
        return found

    @property
    def typed(self) -> str:
        """The buffers as the first arguments of a function's definition."""
        return ", ".join(f"ptr {x}" for x in self.arguments.values())

    def elements(self, v: Vectors) -> Elements:
        """Return the code generator for the body, in a function with all these arguments."""
        columns, body, f = self.kernel.n, self.kernel.body, v.function
        pitches = {name: _sized(f, pitch) for name, pitch in self.pitches.items()}
        return elements_of(v, body, self.arguments, "%m", _sized(f, columns), pitches)

    def epilogue(self, vectors: int, masked: bool) -> str:
        """Return the name of the function that runs the body on `%rows` rows of a tile.

        The tile, at `%products`, has `vectors` vectors; if `masked`, its first `%columns` exist.
        """

        def emit(f: Function) -> None:
            """Emit the loops over the rows, several at a time, then one."""
            v = Vectors(f, self.tile.lanes)
            epilogue = Epilogue(self.elements(v), vectors, masked)

            def rows(r: Value, count: int) -> None:
                """Emit the body of some rows from row r of the tile on."""
                start = f.address("%products", f.mul(r, vectors * v.lanes), self.element)

                def product(i: int, j: int) -> Value:
                    place = f.address(start, (i * vectors + j) * v.lanes, self.element)
                    return v.load(place, self.tile.dtype)

                epilogue.rows(f.add("%row", r), count, product)

            full = f.round_down("%rows", epilogue.together)
            f.loop(0, full, epilogue.together, lambda r, _: rows(r, epilogue.together))
            if epilogue.together > 1:
                f.loop(full, "%rows", 1, lambda r, _: rows(r, 1))

        key = self.tile, vectors, masked
        if key not in self._epilogues:
            arguments = f"{self.typed}, ptr %products, i64 %row, i64 %rows, {PANEL_ARGUMENTS}"
            self._epilogues[key] = self.module.function("epilogue", arguments, emit)
        return self._epilogues[key]


def _sized(f: Function, dim: Dim) -> Value | int:
    """Return a dimension as a number, or emit its size."""
    return dim if isinstance(dim, int) else f.size(dim)


@dataclass(frozen=True)
class Panel:
    """Neighbouring columns of b and of the result: as many as a tile has, or fewer."""

    frame: Frame
    """The frame with the panel's tile."""
    vectors: int
    columns: Value | int
    """The number of its columns."""
    column: Value
    """The first column."""

    @property
    def counted(self) -> int:
        """The number of its columns, if it does not depend on the batch."""
        assert isinstance(self.columns, int), "a filter is not of the batch"
        return self.columns

    @property
    def masked(self) -> bool:
        """True if its last vectors may not be full."""
        return not isinstance(self.columns, int) or self.columns % self.frame.tile.lanes != 0

    @property
    def cut(self) -> bool:
        """True if a packed row has no more than its columns: its last vector may not be full."""
        return self.frame.packed and not self.frame.full and self.masked

    @property
    def pitch(self) -> int:
        """The elements from a packed row to the next: full vectors, if a thread packs them."""
        return self.counted if self.cut else self.vectors * self.frame.tile.lanes

    def last_mask(self, v: Vectors) -> Value | None:
        """Emit the mask of the last vector of a packed row, or return None if it is full."""
        if not self.cut:
            return None
        return v.mask_below(self.counted - (self.vectors - 1) * v.lanes)

    def stored(self, p: Value | int = 0) -> Value:
        """Emit the address of row p, or of pairs from it on, if b is packed before the product."""
        frame, f = self.frame, self.frame.f
        each = 2 if frame.kernel.ordered else 1
        start = f.mul(self.column, frame.depth // each)
        panels = "%panels" if frame.full else frame.b
        return frame.address(panels, f.add(start, f.mul(f.quotient(p, each), self.pitch)))

    def pack(self, source: Value, target: Value, k: Value | int) -> None:
        """Emit the packing of k rows of its columns, which begin at `source`."""
        frame = self.frame
        if frame.kernel.trans_b:
            name = emit_transpose(frame.module, frame.tile, self.vectors)
        else:
            name = emit_copy(frame.module, frame.tile, self.vectors, self.masked)
        frame.f.call(name, source, frame.f.size(frame.rows_b), self.columns, target, k)

    def run_body(self, products: Value, row: Value, rows: Value | int) -> None:
        """Emit the call that runs the body on a tile of products."""
        name = self.frame.epilogue(self.vectors, self.masked)
        buffers = self.frame.arguments.values()
        self.frame.f.call(name, *buffers, products, row, rows, *self.last_arguments)

    @property
    def last_arguments(self) -> tuple[Value | int, ...]:
        """The values of the arguments `PANEL_ARGUMENTS`."""
        return self.column, self.columns, self.frame.m, "%n"


def packing(counted: str) -> str:
    """Return the arguments of packing; the third counts the columns or rows that exist."""
    return f"ptr %from, i64 %pitch, i64 {counted}, ptr %to, i64 %k"


def emit_copy(module: Module, tile: Tile, vectors: int, masked: bool) -> str:
    """Return the function that copies `columns` of k rows to rows of `vectors` vectors.

    Unmasked, `columns` fill the vectors; masked, the lanes beyond them become 0.
    """

    def emit(f: Function) -> None:
        """Emit the loop over the rows."""
        v, element = Vectors(f, tile.lanes), element_type(tile.dtype)
        offsets = [j * tile.lanes for j in range(vectors)]
        masks = [v.mask_below(f.sub("%columns", offset)) if masked else None for offset in offsets]

        def row(_: Value, carried: list[Value]) -> list[Value]:
            """Emit the copy of a row, and return the addresses of the next one."""
            source, target = carried
            for offset, mask in zip(offsets, masks, strict=True):
                x = v.load(f.address(source, offset, element), tile.dtype, mask)
                v.store(x, f.address(target, offset, element), tile.dtype)
            following = f.address(source, "%pitch", element)
            return [following, f.address(target, vectors * tile.lanes, element)]

        f.loop(0, "%k", 1, row, [("ptr", "%from"), ("ptr", "%to")])

    key = ("copy", tile.dtype, tile.lanes, vectors, masked)
    return module.function("pack", packing("%columns"), emit, key)


def emit_transpose(module: Module, tile: Tile, vectors: int) -> str:
    """Return the function that writes k columns of `rows` rows as k rows of `vectors` vectors.

    Lanes beyond the rows repeat the last row.  k is rounded up to full vectors, and the target must
    have space for these rows.
    """
    width = vectors * tile.lanes

    def emit(f: Function) -> None:
        """Emit the loops over vectors of columns and groups of rows."""
        v, element = Vectors(f, tile.lanes), element_type(tile.dtype)
        last = f.sub("%rows", 1)

        def square(p: Value, group: Value, mask: Value | None) -> None:
            """Emit the transpose of a vector of columns of as many rows."""
            rows = []
            for lane in range(tile.lanes):
                row = f.smaller(f.add(group, lane), last)
                place = f.address(f.address("%from", f.mul(row, "%pitch"), element), p, element)
                rows.append(v.load(place, tile.dtype, mask))
            target = f.address(f.address("%to", f.mul(p, width), element), group, element)
            for lane, x in enumerate(v.transpose(rows, tile.dtype)):
                v.store(x, f.address(target, lane * width, element), tile.dtype)

        for p, mask in each_vector(v, "%k"):
            for group in f.each(0, width, tile.lanes):
                square(p, group, mask)

    key = ("transpose", tile.dtype, tile.lanes, vectors)
    return module.function("pack", packing("%rows"), emit, key)
