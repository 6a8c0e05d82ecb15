"""What a profile says follows from its seconds; no clock is asked here but to fill them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import FeedError, GraphError
from graphc.compiler.cost import Cost
from graphc.view.measure import Peak, verdict
from graphc.view.profile import Profile, trace
from graphc.view.render.time_view import time_view
from tests.view.test_measure import ROWS, feeds, plan

native = pytest.mark.needs("native")
both = pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])
PEAK = Peak(threads=1, flops=1e9, bytes=1e9)
SVG = "{http://www.w3.org/2000/svg}"
SGD = gc.SGD(lr=0.1, momentum=0.9)


def made(backend: str = "numpy", name: str = "step") -> Profile:
    """Instruction i takes i + 1 microseconds."""
    whole = plan(backend, SGD)
    instrs = whole.programs[name].instrs
    times = [0.0 if instr.kind == "barrier" else (i + 1) * 1e-6 for i, instr in enumerate(instrs)]
    return Profile(whole, name, ROWS, 3, tuple(times), PEAK)


# ---------------------------------------------------------------- the method


@both
def test_a_profile_has_a_time_for_each_instruction_and_leaves_the_executor_alone(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphc.view.profile.measure_peak", lambda threads: PEAK)
    ex, twin = gc.Executor(plan(backend, SGD)), gc.Executor(plan(backend, SGD))
    before = ex.snapshot()
    found = ex.profile(feeds(), rounds=1)
    assert found.name == "step"
    assert found.n == ROWS
    for instr, seconds in zip(found.program.instrs, found.seconds, strict=True):
        assert (seconds > 0) is (instr.kind != "barrier")
    for name, array in ex.snapshot().items():
        np.testing.assert_array_equal(array, before[name])
    assert ex.step(feeds()) == twin.step(feeds())
    assert gc.Executor(plan(backend)).profile(**feeds(), rounds=1).name == "infer"


def test_mistakes_are_reported() -> None:
    ex = gc.Executor(plan("numpy", SGD))
    with pytest.raises(FeedError, match="y"):
        ex.profile(x=feeds()["x"])
    for rounds in (0, -1, 1.5, True):
        with pytest.raises(GraphError, match="profile: rounds is"):
            ex.profile(feeds(), rounds=rounds)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("seconds", "flops", "nbytes", "wanted"),
    [
        (1.0, 5e8, 1e8, "compute"),
        (1.0, 1e8, 5e8, "memory"),
        (1.0, 2.5e8, 0, "compute"),
        (1.0, 2.4e8, 2.4e8, "overhead"),
        (1.0, 0, 0, "overhead"),
        (0.1, 0, 5e8, "memory"),
    ],
)
def test_the_rule_of_the_verdict(seconds: float, flops: int, nbytes: int, wanted: str) -> None:
    assert verdict(seconds, Cost(flops, nbytes), PEAK) == wanted


def test_the_text_is_the_table_of_bench_with_its_sum_and_the_rule() -> None:
    found = made()
    lines = str(found).splitlines()
    assert lines[0].startswith("'step' of 'small' at 6 rows on numpy")
    head = next(i for i, line in enumerate(lines) if line.lstrip().startswith("time us"))
    assert lines[head].split()[-4:] == ["bound", "kernel", "node", "line"]
    instrs = found.program.instrs
    times = [float(i) for i, instr in enumerate(instrs, 1) if instr.kind != "barrier"]
    assert len(times) < len(instrs)
    rows = lines[head + 1 : head + 1 + len(times)]
    assert [float(row.split()[0]) for row in rows] == times
    total = lines[head + 1 + len(times)].split()
    assert float(total[0]) == sum(times)
    assert "sum" in total
    assert lines[-1].startswith("bound by compute: ")


# ---------------------------------------------------------------- the trace


@both
def test_the_trace_has_the_fields_of_the_format(backend: str, tmp_path: Path) -> None:
    found = made(backend)
    read = json.loads(found.chrome_trace(tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert read == json.loads(json.dumps(trace(found)))
    assert set(read) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert read["displayTimeUnit"] in ("ms", "ns")
    metadata = [e for e in read["traceEvents"] if e["ph"] == "M"]
    assert {e["name"] for e in metadata} == {"process_name", "thread_name"}
    assert all(isinstance(e["args"]["name"], str) for e in metadata)
    events = [e for e in read["traceEvents"] if e["ph"] == "X"]
    timed = [i for i in found.program.instrs if i.kind != "barrier"]
    assert [e["name"] for e in events] == [i.node for i in timed]
    end = 0.0
    for event in events:
        assert {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"} == set(event)
        assert all(isinstance(event[key], int) for key in ("pid", "tid"))
        assert event["ts"] == pytest.approx(end, abs=0.01)
        end = event["ts"] + event["dur"]
    assert end == pytest.approx(found.total * 1e6, abs=0.1)
    with pytest.raises(GraphError, match="cannot write"):
        found.chrome_trace(tmp_path / "none" / "trace.json")


# ---------------------------------------------------------------- the pictures


@both
def test_layers_share_the_whole_time_and_instructions_have_a_bar_each(backend: str) -> None:
    found = made(backend)
    layers, instructions = time_view(found).steps
    shares = [float(line.rpartition(", ")[2].rstrip("%")) for line in layers.text.splitlines()[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    names = {line.partition(":")[0] for line in layers.text.splitlines()[1:]}
    assert {"affine_1", "batchnorm_1", "dropout_1", "scores"} <= names
    groups = list(ElementTree.fromstring(instructions.svg).iter(f"{SVG}g"))
    timed = [i for i in found.program.instrs if i.kind != "barrier"]
    assert len(groups) == min(60, len(timed))
    assert {g.get("data-node") for g in groups} <= {i.node for i in timed}
    assert instructions.text == str(found)


@pytest.mark.slow
def test_equal_profiles_give_equal_pictures_and_files_are_by_suffix(tmp_path: Path) -> None:
    one, two = made(), made()
    assert time_view(one) == time_view(two)
    svg = one.render(tmp_path / "times.svg").read_text(encoding="utf-8")
    assert svg == time_view(one).steps[1].svg
    assert "affine_1" in one.render(tmp_path / "times.html").read_text(encoding="utf-8")
    with pytest.raises(GraphError, match=r"cannot draw the times as 'times.pdf'"):
        one.render(tmp_path / "times.pdf")


def test_heat_is_on_the_nodes_of_the_graph_and_grows_with_the_time() -> None:
    from graphc.view.render.time_view import heated

    graph = (
        '<svg xmlns="http://www.w3.org/2000/svg">'
        + "".join(
            f'<g class="op forward" data-node="{name}"><title>{name}</title>'
            '<rect class="area" x="1" y="2" width="30" height="9" fill="none"/></g>'
            for name in ("affine_1", "scores", "somebody else")
        )
        + "</svg>"
    )
    found = made()
    root = ElementTree.fromstring(heated(graph, found))
    glow = {
        g.get("data-node"): [
            float(r.get("fill-opacity", "0")) for r in g if "heat" in r.get("class", "")
        ]
        for g in root.iter(f"{SVG}g")
    }
    assert glow["somebody else"] == []
    assert glow["affine_1"][0] < glow["scores"][0]
    title = next(root.iter(f"{SVG}title")).text or ""
    assert f"{found.by_node['affine_1'].seconds * 1e6:.3g} us" in title
    assert "bound by" in title
