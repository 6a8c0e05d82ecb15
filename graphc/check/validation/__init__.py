"""Translation validation: checks that a pass computes what the graph before it computes.

A pass is judged on random inputs, by the ops' own reference rules, and by the class that it
declares.  A run without a fault proves nothing; a fault is shown with its numbers.
"""

from __future__ import annotations

from graphc.check.validation.explain import ValidationError
from graphc.check.validation.validate import validate_apply, validate_pass

__all__ = ["ValidationError", "validate_apply", "validate_pass"]
