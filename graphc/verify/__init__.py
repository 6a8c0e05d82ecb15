"""Prove from a certificate alone that a plan is sound, or show where it is not.

Nothing here is shared with what makes plans: this package reads `graphc.certificate.tables`, and
numpy is all else that it imports.
"""

from __future__ import annotations

from graphc.verify.prove import verify, verify_program
from graphc.verify.report import Counterexample, ProgramProof, Report

__all__ = ["Counterexample", "ProgramProof", "Report", "verify", "verify_program"]
