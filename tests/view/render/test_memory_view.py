"""The arena's picture shows every buffer where and when it lives, and the peak where it is."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import graphc as gc
from graphc.backends.native.target import available
from graphc.base.errors import GraphError
from graphc.cli import main
from graphc.compiler.plan import Plan
from graphc.ir.tensor_type import align
from graphc.view.render.arena import ArenaMap, arena_text, roles
from graphc.view.render.memory_view import MOST_ROWS, memory_view
from tests.view.render.graphs import HOSTILE, deep, digits, hostile

native = pytest.mark.needs("native")
BACKENDS = ["numpy", pytest.param("native", marks=native)]
both = pytest.mark.parametrize("backend", BACKENDS)
SVG = "{http://www.w3.org/2000/svg}"
SGD = gc.SGD(lr=0.1, momentum=0.9)


def plan(net: gc.Net, backend: str = "numpy", batch: int = 64) -> Plan:
    return gc.compile(net, batch=batch, optimizer=SGD, backend=backend)


def groups(svg: str) -> dict[str, list[ElementTree.Element]]:
    found: dict[str, list[ElementTree.Element]] = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        found.setdefault(group.get("data-node", ""), []).append(group)
    return found


def titles(svg: str) -> str:
    return "\n".join(e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}title"))


@both
def test_the_bytes_in_use_are_those_of_the_storages_and_their_most_is_the_peak(
    backend: str,
) -> None:
    for program in plan(digits(), backend).programs.values():
        if not program.arena.nbytes:
            continue
        arena = ArenaMap(program)
        for step in range(arena.steps):
            used = sum(
                align(s.range_at(program.capacity).nbytes)
                for s in program.storages
                if s.first <= step <= s.last
            )
            assert arena.live[step] == used
        assert arena.live[arena.peak_step] == max(arena.live) == program.arena.peak
        alive = sum(align(part.nbytes) for part in arena.at_peak)
        assert alive == pytest.approx(program.arena.peak, abs=64 * len(arena.at_peak))


def test_only_copies_that_shards_send_are_of_no_node() -> None:
    sharded = gc.compile(digits(), batch=64, optimizer=SGD, shards=2, backend="numpy")
    parts = [part for program in sharded.programs.values() for part in ArenaMap(program).parts]
    sent = {part.name for part in parts if part.role == "sent"}
    assert sent
    assert all(name.endswith(".sent.copy") for name in sent)
    alone = [
        part for program in plan(digits()).programs.values() for part in ArenaMap(program).parts
    ]
    assert not [part for part in alone if part.role == "sent"]


@both
def test_every_arena_buffer_is_a_part_once_and_parts_in_one_place_follow_each_other(
    backend: str,
) -> None:
    for program in plan(digits(), backend).programs.values():
        arena = ArenaMap(program)
        wanted = {b.name for b in program.buffers.values() if b.space == "arena" and b.last >= 0}
        assert sorted(part.name for part in arena.parts) == sorted(wanted)
        for slot in arena.slots:
            for one, two in zip(slot.parts, slot.parts[1:], strict=False):
                assert (one.offset, one.height) == (two.offset, two.height)
                assert one.begin <= one.end == two.begin <= two.end
            assert slot.parts[-1].end == slot.last + 1
        for one in arena.parts:
            assert one.offset + one.height <= program.arena.nbytes
            for two in arena.parts:  # who is drawn at the same time is drawn elsewhere
                if one.begin < two.end and two.begin < one.end and one is not two:
                    apart = one.offset + one.height <= two.offset
                    assert apart or two.offset + two.height <= one.offset, (one, two)


def test_columns_of_a_joined_value_are_drawn_as_their_share() -> None:
    net = gc.Net("joined")
    x = net.input("x", (gc.N, 4))
    parts = [gc.relu(gc.affine(x, width)) for width in (3, 5)]
    net.output("y", gc.affine(gc.concat(parts, axis=1), 2))
    for backend in ("numpy", "native") if available() is None else ("numpy",):
        program = gc.compile(net, batch=8, backend=backend).programs["infer"]
        for part in ArenaMap(program).parts:
            assert part.height == part.nbytes == program.buffers[part.name].type.nbytes(8)


def test_roles_are_derived_from_the_graph_not_from_names() -> None:
    net = gc.Net("named")
    x = net.input("x", (gc.N, 4))
    h = gc.affine(x, 4, name="d_forward")
    net.loss("loss", gc.mean(gc.tanh(h, name="curve")))
    found = roles(plan(net).programs["grad"].graph)
    assert found["d_forward"] == "forward"
    assert found["curve"] == "kept"
    assert found["d_d_forward.weight"] == "wrt"
    assert found["d_curve"] == "backward"
    step = roles(plan(net).programs["step"].graph)
    assert step["d_forward.weight.next"] == "update"


def test_recomputed_values_differ_from_the_value_that_is_kept_for_them() -> None:
    net = gc.Net("recomputed")
    h = gc.affine(net.input("x", (gc.N, 4)), 4, name="d_kept")
    net.loss("loss", gc.mean(gc.tanh(gc.sigmoid(h, name="first"), name="second")))
    found = roles(plan(net).programs["grad"].graph)
    assert found["d_kept"] == "kept"
    assert found["first"] == found["second"] == "forward"
    assert found["first.recomputed"] == found["second.recomputed"] == "recomputed"


@both
def test_the_picture_names_each_buffer_with_bytes_formula_life_and_line(backend: str) -> None:
    made = plan(digits(), backend)
    steps = memory_view(made).steps
    assert [step.title for step in steps][:2] == ["step", "infer"]
    said = titles(steps[0].svg)
    program = made.programs["step"]
    for part in ArenaMap(program).parts:
        if part.nbytes > 5000:  # smaller ones may be drawn together
            assert f"{part.name}: " in said
            assert f"{part.nbytes:,} bytes, {part.formula}" in said
    assert "graphs.py:" in said
    assert {"scores", "relu_1", "affine_1"} <= groups(steps[0].svg).keys()


def test_the_peak_is_marked_and_described() -> None:
    made = plan(digits())
    step = memory_view(made).steps[0]
    arena = ArenaMap(made.programs["step"])
    assert f"peak {arena.peak:,} bytes" in step.svg
    assert f"at epoch {arena.peak_step} of {arena.steps}" in step.text
    for part in arena.at_peak[:5]:
        assert f"{part.name}: {part.nbytes:,} bytes" in step.text
    assert arena_text(arena) == step.text


def test_equal_plans_give_equal_bytes_and_a_rename_changes_only_its_own_lines() -> None:
    def net(name: str) -> gc.Net:
        made = gc.Net("net")
        h = gc.relu(gc.affine(made.input("x", (gc.N, 32)), 32, name=name))
        made.output("y", gc.affine(h, 32, name="last"))
        return made

    one, same, other = (
        gc.compile(net(name), batch=64).programs for name in ("a_layer", "a_layer", "b_layer")
    )
    texts = [memory_view_svg(programs) for programs in (one, same, other)]
    assert texts[0] == texts[1]
    assert texts[0].replace("a_layer", "b_layer") == texts[2]


def memory_view_svg(programs: object) -> str:
    from graphc.view.render.memory_view import arena_steps

    return next(arena_steps(programs)).svg  # type: ignore[arg-type]


@pytest.mark.slow
def test_buffers_thinner_than_a_pixel_are_drawn_together_and_the_picture_says_so() -> None:
    made = plan(deep(450), batch=8)
    (svg, *_) = (step.svg for step in memory_view(made).steps)
    count = re.search(r"([\d,]+) buffers thinner than a pixel are drawn together", svg)
    assert count is not None
    arena = ArenaMap(made.programs["step"])
    alone = sum("data-node" in group.attrib for group in _drawn(svg))
    listed = min(len(arena.at_peak), MOST_ROWS)
    assert alone - listed == len(arena.parts) - int(count[1].replace(",", "")) > 0
    assert len(svg) < 600_000


def _drawn(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}g"))


def test_hostile_names_are_only_text() -> None:
    for step in memory_view(plan(hostile())).steps:
        root = ElementTree.fromstring(step.svg)
        assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
            "svg", "title", "style", "rect", "line", "text", "g", "path",
        }  # fmt: skip
        keys = {key for element in root.iter() for key in element.attrib}
        assert not any(key.startswith("on") or "href" in key for key in keys)
    assert HOSTILE


def test_files_by_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(digits())
    svg = made.memory.render(tmp_path / "arena.svg").read_text(encoding="utf-8")
    assert svg == memory_view(made).steps[0].svg
    page = made.memory.render(tmp_path / "arena.html").read_text(encoding="utf-8")
    for step in memory_view(made).steps:
        assert step.svg in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    with pytest.raises(GraphError, match=r"cannot draw the memory as 'arena.png'"):
        made.memory.render(tmp_path / "arena.png")
    with pytest.raises(GraphError, match="cannot write"):
        made.memory.render(tmp_path / "no folder" / "arena.svg")
    assert "64 rows" in svg
    assert "16 rows" in made.memory.at(16).render(tmp_path / "small.svg").read_text()
    target = tmp_path / "cli.svg"
    model = str(Path(__file__).parent / "graphs.py") + ":digits"
    assert main(["plan", model, "--picture", str(target)]) == 0
    assert f"wrote {target}" in capsys.readouterr().out
    assert ElementTree.fromstring(target.read_text()).tag == f"{SVG}svg"
