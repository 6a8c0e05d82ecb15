"""Translation validation: checks that a pass computes what the graph before it computes.

A pass is judged on random inputs, through the ops' own reference rules, by the class that it
declares.  What finds no fault proves nothing; what finds one shows the numbers.
"""

from __future__ import annotations

from graphc.validation.error import ValidationError
from graphc.validation.validate import validate_apply, validate_pass

__all__ = ["ValidationError", "validate_apply", "validate_pass"]
