"""A profile in the Trace Event Format, which Perfetto and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.files.writing import write_file
from graphc.view.profile.table import kernel_text

if TYPE_CHECKING:
    from graphc.view.profile.executor_profile import Profile

PROCESS, THREAD = 1, 1


def trace(profile: Profile) -> dict[str, Any]:
    """Return the JSON Object Format: metadata, then a complete event ("X") for each instruction.

    `ts` and `dur` are microseconds; events follow each other without gaps.
    """
    return {
        "traceEvents": [*_metadata(profile), *_events(profile)],
        "displayTimeUnit": "ns",
        "otherData": {
            "rows": profile.n,
            "rounds": profile.rounds,
            "backend": profile.plan.backend,
            "peak GFLOP/s": round(profile.peak.flops / 1e9, 3),
            "peak GB/s": round(profile.peak.bytes / 1e9, 3),
        },
    }


def write_trace(profile: Profile, target: Path) -> Path:
    """Write the trace; raise GraphError if that fails."""
    text = json.dumps(trace(profile), indent=1) + "\n"
    return write_file(target, [text.encode()], GraphError)


def _metadata(profile: Profile) -> Iterator[dict[str, Any]]:
    for what, name in (("process_name", profile.plan.declared.name), ("thread_name", profile.name)):
        place = {"ph": "M", "pid": PROCESS, "tid": THREAD, "ts": 0}
        yield {"name": what, **place, "args": {"name": name}}


def _events(profile: Profile) -> Iterator[dict[str, Any]]:
    start = 0.0
    for timed, line in zip(profile.timed, profile.lines, strict=True):
        duration = timed.seconds * 1e6
        yield {
            "name": line.node,
            "cat": f"{timed.instr.kind},{timed.verdict}",
            "ph": "X",
            "ts": round(start, 3),
            "dur": round(duration, 3),
            "pid": PROCESS,
            "tid": THREAD,
            "args": {
                "kernel": kernel_text(timed.instr),
                "nodes": list(timed.nodes),
                "line": line.where,
                "flops": timed.cost.flops,
                "bytes": timed.cost.bytes,
                "share of the roofline": round(timed.roof, 4),
                "bound by": timed.verdict,
            },
        }
        start += duration
