"""The code of a tile: scalars times vectors, for each of k."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile import Tile
from graphc.backends.native.vectors import Vectors

Strides = tuple[int, int]
"""The number of elements from row to row, and from p to p."""

_ARGUMENTS = (
    ("ptr", "%s"),
    ("i64", "%row"),
    ("i64", "%step"),
    ("i64", "%count"),
    ("ptr", "%v"),
    ("i64", "%pitch"),
    ("ptr", "%out"),
    ("i64", "%k"),
)


def emit_tile(module: Module, tile: Tile, rows: int, vectors: int) -> str:
    """Return the function that multiplies `rows` scalars by `vectors` vectors for each of k.

    out[i, :] = sum over p of s[i * row + p * step] * v[p * pitch :], where the rows of `out` are
    `vectors` vectors wide.  One accumulator an element, from zero, in the order of p.  Only
    `count` rows of s exist: the others repeat the last one.
    """
    key = ("tile", tile.dtype, tile.lanes, rows, vectors)
    name = module.known(key)
    if name is not None:
        return name
    name = module.name("tile", key)
    f = Function(name, _ARGUMENTS, attributes="#1")
    v, last = Vectors(module, f, tile.lanes), f.sub("%count", 1)
    offsets = [f.mul("%row", f.smaller(i, last)) for i in range(rows)]
    steps = Steps(v, tile.dtype, vectors, offsets, "%step")
    sums = steps.run(("%s", "%v"), "%pitch", "%k", 1)
    for i, x in enumerate(sums):
        v.store(x, f.address("%out", i * v.lanes, steps.element), tile.dtype)
    f.ret()
    module.add(f)
    return name


class Steps:
    """The products of scalars at `offsets` and some vectors, added up over k."""

    def __init__(
        self,
        v: Vectors,
        dtype: str,
        vectors: int,
        offsets: Sequence[Value | int],
        step: Value,
        last: Value | None = None,
    ) -> None:
        """Prepare; `step` leads to the scalars of the next p, `last` is the last vector's mask."""
        self.v, self.f, self.vectors, self.last = v, v.function, vectors, last
        self.dtype, self.element = dtype, element_type(dtype)
        self.offsets, self.step = offsets, step

    def run(
        self,
        places: tuple[Value, Value],
        pitch: Value,
        k: Value,
        unroll: int,
        before: Callable[[Value], object] = lambda p: None,
        start: Sequence[Value] | None = None,
    ) -> list[Value]:
        """Emit the sums, and return them row by row.

        `places` are the addresses of the first scalar and vector, `pitch` leads to the next vector.
        `before` emits code before every `unroll` steps, but for the last ones.  The sums begin with
        `start`, or zero.  A k not larger than `unroll` needs no loop.
        """
        f, type = self.f, self.v.type(self.dtype)
        if start is None:
            start = ["zeroinitializer"] * (len(self.offsets) * self.vectors)
        carried = [*places, *start]
        types = ["ptr", "ptr", *[type] * (len(carried) - 2)]

        def several(p: Value, carried: list[Value]) -> list[Value]:
            before(p)
            for _ in range(unroll):
                carried = self._step(carried, pitch)
            return carried

        if not k.startswith("%") and int(k) <= unroll:
            for _ in range(int(k)):
                carried = self._step(carried, pitch)
            return carried[2:]
        even: Value = "0"
        if unroll > 1:
            even = f.even(k, unroll)
            carried = f.loop(0, even, unroll, several, list(zip(types, carried, strict=True)))
        if even != k:
            state = list(zip(types, carried, strict=True))
            carried = f.loop(even, k, 1, lambda _, x: self._step(x, pitch), state)
        return carried[2:]

    def _step(self, carried: list[Value], pitch: Value) -> list[Value]:
        """Emit one p: each vector times each scalar."""
        s, v, *sums = carried
        masks = [None] * (self.vectors - 1) + [self.last]
        right = [
            self.v.load(self.f.address(v, j * self.v.lanes, self.element), self.dtype, mask)
            for j, mask in enumerate(masks)
        ]
        for i, offset in enumerate(self.offsets):
            left = self.v.load_splat(self.f.address(s, offset, self.element), self.dtype)
            for j, vector in enumerate(right):
                number = i * self.vectors + j
                sums[number] = self.v.fma(left, vector, sums[number], self.dtype)
        following = [
            self.f.address(s, self.step, self.element),
            self.f.address(v, pitch, self.element),
        ]
        return following + sums
