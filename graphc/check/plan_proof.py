"""The proof of a plan, and of the populations that it is of."""

from __future__ import annotations

from graphc.check.certificate.export import certify
from graphc.check.verify import Report, verify
from graphc.compiler.plan import Plan


def verify_plan(plan: Plan) -> Report:
    """Verify the programs of a plan; the report is that of a population's if only these fail."""
    report = verify(certify(plan))
    if plan.without_kept is plan or not report.ok:
        return report
    members = verify(certify(plan.without_kept))
    return report if members.ok else members
