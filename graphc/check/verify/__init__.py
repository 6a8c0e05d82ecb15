"""A proof from a certificate alone that a plan is sound, or a counterexample.

Nothing here is shared with the code that makes plans: this package imports only
`graphc.check.certificate.tables` and numpy.
"""

from __future__ import annotations

from graphc.check.verify.prove import verify, verify_program
from graphc.check.verify.report import Counterexample, ProgramProof, Report

__all__ = ["Counterexample", "ProgramProof", "Report", "verify", "verify_program"]
