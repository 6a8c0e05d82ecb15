"""Graph passes: one a file, each a function from graph to graph, and their default order.

The order and its reasons:

- `specialize` first: every other pass knows ops, not layers.
- `cse`, `fold_constants` and `dead_code` before `backward`: a node that is gone is not
  differentiated.
- `backward`, then `update`, which reads the gradients.
- `cse`, `fold_constants` and `dead_code` again: gradient rules and optimizers repeat each
  other's constants and leave parts unread.
- Fusion only now, so that fused ops need no gradient rule.  `fold_batchnorm` goes first,
  since the affine that it leaves may be fused with the relu behind it.
- `dead_code` then: the plan has an instruction for every node that is left.
- `rematerialize` last, and only where a plan is over its budget: it has to know what is
  fused, and nothing may merge its clones.

Programs with kernels get `repeat_elements` besides, at the very end and where no budget was set: it
makes clones of the same kind, which only kernels compute in registers.
"""

from __future__ import annotations

from passes.cse import cse
from passes.dead_code import dead_code
from passes.fold_batchnorm import fold_batchnorm
from passes.fold_constants import fold_constants
from passes.fuse_affine_relu import fuse_affine_relu
from passes.pass_list import PassList
from passes.pipeline import (
    Pass,
    PassRecord,
    Preserves,
    graph_pass,
    name_of,
    preserves_of,
    run_passes,
)
from passes.share_batchnorm_statistics import share_batchnorm_statistics

REQUIRED = frozenset({"specialize", "backward", "update", "dead_code"})
"""A plan cannot do without these: layers, gradients and updates become nodes, all of them read."""

DEFAULT = PassList(
    (
        "specialize",
        cse,
        fold_constants,
        dead_code,
        "backward",
        "update",
        cse,
        fold_constants,
        dead_code,
        share_batchnorm_statistics,
        fold_batchnorm,
        fuse_affine_relu,
        dead_code,
        "rematerialize",
    ),
    REQUIRED,
)
"""The strings are slots that compiling fills with its options."""

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
