"""Operands of a matrix product in consecutive memory, as its tiles read them."""

from __future__ import annotations

from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile import Tile
from graphc.backends.native.vectors import Vectors

_COPY = (("ptr", "%from"), ("i64", "%pitch"), ("i64", "%columns"), ("ptr", "%to"), ("i64", "%k"))
_TRANSPOSE = (("ptr", "%from"), ("i64", "%pitch"), ("i64", "%rows"), ("ptr", "%to"), ("i64", "%k"))


def emit_copy(module: Module, tile: Tile, vectors: int, masked: bool) -> str:
    """Return the function that copies `columns` of k rows to rows of `vectors` vectors.

    Unmasked, `columns` fill the vectors; masked, the lanes beyond them become 0.
    """
    key = ("copy", tile.dtype, tile.lanes, vectors, masked)
    name = module.known(key)
    if name is not None:
        return name
    name = module.name("pack", key)
    f = Function(name, _COPY, attributes="#1")
    v, element = Vectors(module, f, tile.lanes), element_type(tile.dtype)
    offsets = [j * tile.lanes for j in range(vectors)]
    masks = [v.mask_below(f.sub("%columns", offset)) if masked else None for offset in offsets]

    def row(_: Value, carried: list[Value]) -> list[Value]:
        source, target = carried
        for offset, mask in zip(offsets, masks, strict=True):
            x = v.load(f.address(source, offset, element), tile.dtype, mask)
            v.store(x, f.address(target, offset, element), tile.dtype)
        return [
            f.address(source, "%pitch", element),
            f.address(target, vectors * tile.lanes, element),
        ]

    f.loop(0, "%k", 1, row, [("ptr", "%from"), ("ptr", "%to")])
    f.ret()
    module.add(f)
    return name


def emit_transpose(module: Module, tile: Tile, vectors: int) -> str:
    """Return the function that writes k columns of `rows` rows as k rows of `vectors` vectors.

    Lanes beyond the rows repeat the last row.  k is rounded up to full vectors, so the target must
    have space for as many rows.
    """
    key = ("transpose", tile.dtype, tile.lanes, vectors)
    name = module.known(key)
    if name is not None:
        return name
    name = module.name("pack", key)
    f = Function(name, _TRANSPOSE, attributes="#1")
    v, element = Vectors(module, f, tile.lanes), element_type(tile.dtype)
    last = f.sub("%rows", 1)
    full = f.value(f"and i64 %k, {-tile.lanes}")

    def square(p: Value, group: Value, mask: Value | None) -> None:
        rows = []
        for lane in range(tile.lanes):
            row = f.smaller(f.add(group, lane), last)
            place = f.address(f.address("%from", f.mul(row, "%pitch"), element), p, element)
            rows.append(v.load(place, tile.dtype, mask))
        width = vectors * tile.lanes
        target = f.address(f.address("%to", f.mul(p, width), element), group, element)
        for lane, x in enumerate(v.transpose(rows, tile.dtype)):
            v.store(x, f.address(target, lane * width, element), tile.dtype)

    def groups(p: Value, mask: Value | None) -> None:
        f.loop(0, vectors * tile.lanes, tile.lanes, lambda group, _: square(p, group, mask))

    f.loop(0, full, tile.lanes, lambda p, _: groups(p, None))
    rest = f.sub("%k", full)
    more = f.value(f"icmp sgt i64 {rest}, 0")
    f.when(more, lambda: groups(full, v.mask_below(rest)))
    f.ret()
    module.add(f)
    return name
