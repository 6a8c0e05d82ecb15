"""The packing of a right factor in panels, before a loop whose steps all read it."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.backends.native.block_products import pack_blocks
from graphc.backends.native.gemm_frame import Frame, Panel
from graphc.backends.native.gemm_pairs import pack_panel
from graphc.backends.native.gemm_scratch import FEW
from graphc.backends.native.gemm_tile import tile_of
from graphc.backends.native.ir import Function, Module
from graphc.backends.native.loop_structure import THREAD_ARGUMENTS
from graphc.backends.native.target import Words
from graphc.kernels.kernel import CHUNK, Gemm


def emit_packing(module: Module, kernel: Gemm, bits: int, words: Mapping[str, Words]) -> str:
    """Return the function that packs b of a product, unless the thread reads it in place.

    `void @pack(ptr %b0, ptr %panels, ptr %scratch, i64 %n, i64 %tid, i64 %threads)`
    """
    tile, pitch = tile_of(kernel, bits, words, packed=True), kernel.factor_columns

    def emit(f: Function) -> None:
        frame = Frame(module, f, kernel, (kernel.b, kernel.a), pitch, tile, full=True)
        first, last = f.thread_part(frame.m, CHUNK)
        many = f.less(0 if frame.tiles_only else FEW, f.sub(last, first))
        for _ in f.only_if(many):
            for panel in frame.each_panel(("0", frame.panels)):
                _pack(panel)

    key = ("pack", tile, kernel.m, kernel.n, kernel.k, kernel.trans_a, kernel.trans_b, kernel.order)
    arguments = f"ptr %b0, ptr %panels, ptr %scratch, {THREAD_ARGUMENTS}"
    return module.function("pack", arguments, emit, key)


def _pack(panel: Panel) -> None:
    """Emit the packing of a panel."""
    frame, f = panel.frame, panel.frame.f
    pitch, kernel = f.size(frame.rows_b), panel.frame.kernel
    first = f.mul(panel.column, pitch) if kernel.trans_b else panel.column
    source, target = frame.factor(frame.b, first), panel.stored()
    if kernel.ordered:
        pack = pack_blocks if kernel.order == "blocks" else pack_panel
        pack(panel, source, pitch, target, frame.k)
    else:
        panel.pack(source, target, frame.k)
