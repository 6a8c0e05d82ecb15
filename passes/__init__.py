"""Graph passes: one a file, each a function from graph to graph, and their default order.

The order and its reasons:

- `specialize` first: every other pass knows ops, not layers.
- `cse`, `fold_constants` and `dead_code` before `backward`: a node that is gone is not
  differentiated.
- `channels_last` before `backward`, too, so that gradients have the same layout, and before
  `fold_constants`, which joins the reshapes that it makes.
- `transpose_factors` after `backward`, since gradients read weights transposed.  Then
  `segment_scans` cuts long loops into segments, and `split_scans` takes products out of the loops
  over a segment; a gradient is one loop until then, so that products share what they read.
- `recompute_scans` before `backward`, and only if a plan is over its budget: it cuts loops as
  `segment_scans` does, so that sums have the same bits.
- `backward`, then `update`, which reads the gradients.
- If a step is cut into shards, `shard` right after `specialize`, while the parts of layers
  have the names that it gave; and `data_parallel` between `backward` and `update`.
- `set_precision` then, since it knows layers by their names, too, and what multiplies in two
  precisions must not be merged.
- `cse`, `fold_constants` and `dead_code` a second time: gradient rules and optimizers repeat each
  other's constants and leave parts unread.
- `join_transposes` then, before `dead_code`, which removes what it leaves unread.
- `round_products` once all products are there, and the weights that `fold_batchnorm` makes.
- Fusion only now, so that fused ops need no gradient rule.  `fold_batchnorm` goes first,
  since the affine that it leaves may be fused with the relu after it.
- `widen_sums` after `share_batchnorm_statistics`, which matches the sums, and makes some.
- `middle_axes` after all that match reductions, and after `backward`, so that gradients have
  their usual form before it, and after `fold_constants`, which would fold its broadcasts.
- `dead_code` then: the plan has an instruction for every node that is left.
- `recompute_attention` then, which looks for softmax between products.
- `rematerialize` after it, and only if a plan is over its budget: it has to know what is
  fused, and nothing may merge its clones.

- `repeat_elements` at the very end, and only if `rematerialize` does not run: it makes clones of
  the same kind, which kernels compute in registers.
"""

from __future__ import annotations

from passes.channels_last import channels_last
from passes.contract import Pass, Preserves, graph_pass, name_of, preserves_of
from passes.cse import cse
from passes.dead_code import dead_code
from passes.fold_batchnorm import fold_batchnorm
from passes.fold_constants import fold_constants
from passes.fuse_affine_relu import fuse_affine_relu
from passes.join_transposes import join_transposes
from passes.middle_axes import middle_axes
from passes.pipeline import PassList, PassRecord, run_passes
from passes.recompute_attention import recompute_attention
from passes.segment_scans import segment_scans
from passes.share_batchnorm_statistics import share_batchnorm_statistics
from passes.split_scans import split_scans
from passes.transpose_factors import transpose_factors
from passes.widen_sums import widen_sums

REQUIRED = frozenset(
    {
        *("specialize", "shard", "set_precision", "backward", "data_parallel", "update"),
        *("round_products", "dead_code"),
    }
)
"""The passes that a plan needs: they make nodes of layers, gradients and updates, leave no node
unread, make shards of a batch give one result, and give products their precision.
"""

DEFAULT = PassList(
    (
        "specialize",
        "shard",
        "set_precision",
        cse,
        channels_last,
        fold_constants,
        dead_code,
        "recompute_scans",
        "backward",
        transpose_factors,
        segment_scans,
        split_scans,
        "data_parallel",
        "update",
        cse,
        fold_constants,
        join_transposes,
        dead_code,
        share_batchnorm_statistics,
        fold_batchnorm,
        widen_sums,
        "round_products",
        middle_axes,
        fuse_affine_relu,
        dead_code,
        recompute_attention,
        "rematerialize",
        "repeat_elements",
    ),
    REQUIRED,
)
"""The default order; the strings are slots that compiling fills with its options."""

without = DEFAULT.without
after = DEFAULT.after
before = DEFAULT.before

__all__ = [
    "DEFAULT",
    "REQUIRED",
    "Pass",
    "PassList",
    "PassRecord",
    "Preserves",
    "after",
    "before",
    "graph_pass",
    "name_of",
    "preserves_of",
    "run_passes",
    "without",
]
