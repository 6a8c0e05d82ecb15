"""What checks a user's nets has nothing to say of right ones: whatever it finds is a false alarm.

Code is not optimized, which changes no bit: compiling it would take most of the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import graphc as gc
from graphc.backends.backend import BACKENDS, backend
from graphc.backends.c import backend as c_backend
from graphc.backends.native import target
from graphc.check.certificate.export import certify_program
from graphc.check.code_file import verify_code
from graphc.check.validation.plans import cotangent_programs, validate_plan
from graphc.check.verify import verify_program
from passes.contract import name_of
from tests.extras import missing

from .compare import Wrong
from .runs import executor, plan_of
from .transformations import Check, verified

PASSES = tuple(
    {name_of(p): p for p in gc.passes.DEFAULT.entries if not isinstance(p, str)}.values()
)
THOROUGH = 6
"""One in so many cases is validated on a backend as `graphc verify --run` does."""
NO_FORM = "form outside Python", "nothing to export"
"""The parts of refusals to write a file of a net that has none."""


def alarms(c: Check) -> None:
    """Validate and prove the plans of all backends, a C file and a pass: none is refused."""
    here = [name for name in BACKENDS if missing(name) is None]
    with tempfile.TemporaryDirectory() as folder, quickly_compiled():
        for number, name in enumerate(here):
            judged = folder if number == c.case.seed % len(here) else False
            plan = verified(plan_of(c.case, backend=name, threads=2, validate=judged))
            for what, program in cotangent_programs(plan):
                proof = verify_program(certify_program(program))
                if not proof.ok:
                    raise Wrong(f"refuted on {name}: {what}: {proof.counterexample}")
            thorough = number == c.case.seed // len(here) % THOROUGH
            if thorough or not judged:
                validate_plan(plan, thorough)
            for what, program in plan.programs.items():  # whose code is in the cache by now
                if why := backend(name).wrong_code(program, False):
                    raise Wrong(f"{what} on {name}: {why}")
        exported(c, Path(folder))
        step = PASSES[c.case.seed % len(PASSES)]
        report = gc.check_pass(step, nets=1, seed=c.case.seed, folder=folder)
        if report.fault:
            raise Wrong(str(report))


def exported(c: Check, folder: Path) -> None:
    """Write the net as a C file, and verify that."""
    grads = bool(c.plan.wrt and c.case.losses)
    try:
        files = gc.export_c(executor(c.case, c.plan), folder / "net.c", backward=grads)
    except gc.GraphError as error:
        if any(part in str(error) for part in NO_FORM):
            return
        raise
    report = verify_code(files[0])
    if not report.ok:
        raise Wrong(f"the C file: {report}")


@contextmanager
def quickly_compiled() -> Iterator[None]:
    """Let no compiler optimize, and C do without the headers of this processor's instructions."""
    flags = ["-O0" if flag == "-O2" else flag for flag in c_backend.FLAGS if "native" not in flag]
    with mock.patch.object(c_backend, "FLAGS", flags), mock.patch.dict(target.CODEGEN, opt=0):
        yield
