"""Proofs that rewrite rules are right for every size, over the reals.

A rule draws the left side as a graph whose sizes are symbols; the pass itself makes the right side
of it.  What the pass asks of sizes divides them into cases, of which each gets its own right side
and its own proof, until the solver shows that no sizes are left.  Both sides of a case are compared
at any index; if they can differ, sizes and numbers at which they do are run by the ops' reference
rules.

TensorRight (Arora et al., POPL 2025, arXiv:2511.17838) proves rules of XLA, written once more in
its own language, for any rank and size; here the rule is what the pass does, and its rank is given.
"""

from __future__ import annotations

from graphc.base.errors import GraphError

try:
    import z3  # noqa: F401
except ImportError:
    raise GraphError(
        "rules are proved by z3, which is not installed", hint="pip install 'graphc-nn[prove]'"
    ) from None

import graphc.compiler  # noqa: F401  # tells of another package `passes` in the way
from graphc.check.prove import axis_rules, pattern_rules, training_rules
from graphc.check.prove.proof import Proof as Proof
from graphc.check.prove.proof import prove as prove
from graphc.check.prove.rule import Rule

RULES = pattern_rules.IDENTITIES + [
    found
    for rules in (pattern_rules, axis_rules, training_rules)
    for found in vars(rules).values()
    if isinstance(found, Rule)
]
"""All rules, in the order of the passes."""
