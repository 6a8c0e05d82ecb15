"""The verification of an exported C file against its certificate, from the files alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from graphc.base.errors import GraphError
from graphc.check.certificate import Certificate, ProgramTables, Space
from graphc.check.certificate.text import parse_certificate
from graphc.check.verify import Report, verify
from graphc.check.verify.facts import Counterexample, aligned
from graphc.files.code.interface import NAMES
from graphc.files.container import read_whole
from graphc.files.disk import reason

Where = tuple[str, int]
"""The space and the offset of a buffer in bytes."""
RULE = "the file is that of its certificate"
_DEFINED = re.compile(r'^#define (\w+) ("?\w+"?) /\*', re.MULTILINE)
_PLACED = re.compile(
    r"(?:const )?\w+ \*const (\w+) = \((?:const )?\w+ \*\)\(\((?:const )?unsigned char \*\)"
    r"(state|work) \+ (\d+)\);"
)


def verify_code(path: Path) -> Report:
    """Return the proof of a C file's certificate, and whether the file is what it certifies.

    The constants of the header, and the place of every buffer in state and work, must be those of
    the certificate.  Raise GraphError for a file that cannot be read.
    """
    texts = {suffix: _read(path.with_suffix(suffix)) for suffix in (".c", ".h", ".json")}
    certificate = parse_certificate(texts[".json"])
    report = verify(certificate)
    if report.plan is not None:
        return report
    wrong = next(_differences(certificate, texts[".c"], texts[".h"], texts[".json"]), None)
    return replace(report, plan=wrong)


def _read(path: Path) -> str:
    try:
        return read_whole(str(path)).decode()
    except OSError as error:
        hint = "gc.export_c writes a .c, a .h and a .json file: they belong together"
        raise GraphError(f"cannot read {path}: {reason(error)}", hint=hint) from None
    except UnicodeDecodeError as error:
        raise GraphError(f"cannot read {path}: {error}") from None


def _differences(c: Certificate, code: str, header: str, proof: str) -> Iterator[Counterexample]:
    prefix = c.net
    defined = {name.removeprefix(f"{prefix.upper()}_"): v for name, v in _DEFINED.findall(header)}
    state = sum(aligned(size) for _, size in c.state_layout.values())
    arena = aligned(max(p.arena for p in c.programs))
    gradients = aligned(max(int(p.blocks.size[1, 0]) for p in c.programs))
    wanted = {
        "BATCH": str(c.batch),
        "STATE_BYTES": str(state),
        "WORK_BYTES": str(arena + gradients),
        "CERTIFICATE": f'"{hashlib.sha256(proof.encode()).hexdigest()}"',
    }
    for name, value in wanted.items():
        if defined.get(name) != value:
            shown = defined.get(name, "missing")
            yield Counterexample(RULE, f"{prefix.upper()}_{name} is {shown}, it must be {value}")
    states = {("state", at): name for name, (at, _) in c.state_layout.items()}
    if states and f"void {prefix}_init(" in code:
        yield from _misplaced(f"{prefix}_init", states, code)
    for program in c.programs:
        function = f"{prefix}_{NAMES[program.name]}"
        yield from _misplaced(function, _places(c, program, arena), code)


def _misplaced(function: str, wanted: Mapping[Where, str], code: str) -> Iterator[Counterexample]:
    """Yield the pointers of a function that are not at the places where buffers lie."""
    found = re.search(rf"^\w+ {function}\(.*?^}}", code, re.MULTILINE | re.DOTALL)
    if found is None:
        yield Counterexample(RULE, f"there is no function {function}")
        return
    lines = " ".join(found[0].split())  # without the breaks of long ones
    placed = [((space, int(at)), name) for name, space, at in _PLACED.findall(lines)]
    for where, name in placed:
        if where not in wanted:
            place = f"{where[0]} byte {where[1]:,}"
            yield Counterexample(RULE, f"{function}: {name} lies at {place}, where no buffer lies")
    for where in sorted({*wanted} - {where for where, _ in placed}):
        place = f"{where[0]} byte {where[1]:,}"
        yield Counterexample(RULE, f"{function}: {wanted[where]!r} does not lie at {place}")


def _places(c: Certificate, program: ProgramTables, arena: int) -> dict[Where, str]:
    """Return where each buffer in state and work lies that is touched, and its name.

    Steps touch buffers; results are copied, such as an output that is a parameter.
    """
    buffers, blocks = program.buffers, program.blocks
    found: dict[Where, str] = {}
    results = program.outputs.buffer, program.gradients.buffer
    for i in np.unique(np.concatenate([program.accesses.buffer, *results])).tolist():
        block = int(buffers.block[i])
        space, name = int(blocks.space[block]), buffers.names[i]
        start = int(buffers.offset[i] + buffers.shift[i] * buffers.item[i])
        if space == Space.STATE:
            found["state", c.state_layout[blocks.names[block]][0] + start] = name
        elif space in (Space.ARENA, Space.GRADIENT):
            found["work", start + (arena if space == Space.GRADIENT else 0)] = name
    return found
