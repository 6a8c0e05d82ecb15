"""A proof from a certificate alone that a plan is sound, or a counterexample.

Nothing here is shared with the code that makes plans: this package imports only
`graphc.check.certificate` and numpy.
"""

from __future__ import annotations

from graphc.check.verify.facts import Counterexample
from graphc.check.verify.prove import ProgramProof, Report, verify, verify_program

__all__ = ["Counterexample", "ProgramProof", "Report", "verify", "verify_program"]
