"""The passes that a compilation cannot do without, or that make small nets fast.

`passes.DEFAULT` has them in the same order, with those of features between them.
"""

from __future__ import annotations

from passes.cse import cse
from passes.dead_code import dead_code
from passes.fold_constants import fold_constants
from passes.fuse_affine_relu import fuse_affine_relu
from passes.pipeline import PassList

CORE = PassList(
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
        fuse_affine_relu,
        dead_code,
    ),
    frozenset(("specialize", "backward", "update", "dead_code")),
)
"""The order; the strings are slots that compiling fills with its options."""
