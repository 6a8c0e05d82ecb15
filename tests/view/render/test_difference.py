"""Drawn differences: every change is marked by more than a colour, and many are folded."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest

import graphc as gc
from graphc.base.errors import GraphError, RendererMissing
from graphc.compiler.plan import Plan
from graphc.ir.difference import Difference, difference
from graphc.ir.op import Source
from graphc.view.render.difference import MOST_BOXES, difference_scene, render_difference
from graphc.view.render.passes_view import kernels_scene, pass_view
from graphc.view.render.renderer import LayoutTooSlow, svg_of
from graphc.view.render.scene import Box, Frame, Scene, boxes_in
from graphc.view.render.style import line_text, printable
from tests.error_text import error_text
from tests.view.render.graphs import compiled, deep, digits, hostile

SVG = "{http://www.w3.org/2000/svg}"
native = pytest.mark.needs("native")
both = pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])


def plan(net: gc.Net, backend: str = "numpy") -> Plan:
    return gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1, momentum=0.9), backend=backend)


def of_pass(net: gc.Net, name: str) -> Difference:
    records = plan(net).graphs["step"]
    step = [record.name for record in records].index(name)
    return difference(records[step - 1].graph, records[step].graph)


def drawn(scene: Scene) -> dict[str, Box]:
    return {box.node: box for box in scene.boxes}


def text(box: Box) -> list[str]:
    return ["".join(run.text for run in line) for line in box.lines]


def test_changes_of_a_fusion_are_marked_in_words_and_lines() -> None:
    scene = difference_scene("fuse", of_pass(digits(normed=False), "fuse_affine_relu"))
    boxes = drawn(scene)
    assert text(boxes["affine_1"])[0] == "- affine affine_1"
    assert text(boxes["relu_1"]) == [
        "~ relu affine_relu relu_1",
        "float32[N, 100]",
        "  + affine_1.weight",
        "  + affine_1.bias",
    ]
    assert text(boxes["d_relu_1"])[0] == "mul d_relu_1"
    looks = {box.look for box in scene.boxes}
    assert looks == {"removed", "changed", "equal"}
    assert scene.words == (
        "2 removed, 2 changed",
        "- removed (dashed)   + added (thick)   ~ changed (double)",
    )
    dot = scene.dot()
    (removed,) = (line for line in dot.splitlines() if "affine_1</font>" in line and "<s>" in line)
    assert "dashed" in removed and 'class="op removed"' in removed
    (changed,) = (line for line in dot.splitlines() if "relu_1</font>" in line and "~" in line)
    assert "peripheries=2" in changed


def test_arrows_are_the_reads_before_and_after() -> None:
    made = of_pass(digits(normed=False), "fuse_affine_relu")
    scene = difference_scene("fuse", made)
    names = {box.id: box.node for box in scene.boxes}
    looks = {(names[a.source], names[a.target]): a.look for a in scene.arrows}

    def reads(graph: gc.Graph) -> set[tuple[str, str]]:
        found = {(operand, node.name) for node in graph for operand in node.inputs}
        return {ends for ends in found if set(ends) <= set(names.values())}

    before, after = reads(made.before), reads(made.after)
    assert {ends for ends, look in looks.items() if look == "removed"} == before - after
    assert {ends for ends, look in looks.items() if look == "added"} == after - before
    assert {ends for ends, look in looks.items() if look == "equal"} == after & before


def test_every_op_of_either_graph_is_drawn_once() -> None:
    made = of_pass(digits(), "backward")
    nodes = [box.node for box in difference_scene("backward", made).boxes]
    ops = {
        node.name
        for graph in (made.before, made.after)
        for node in graph
        if not isinstance(node.op, Source) or node.op.name == "input"
    }
    assert len(nodes) == len(set(nodes)) and ops <= set(nodes)


def test_a_source_that_no_change_mentions_is_a_box() -> None:
    net = gc.Net("a")
    net.output("y", gc.relu(net.input("x", (gc.N, 2)), name="y"))
    before = net.graph()
    net.parameter("unread", (3,))
    (box,) = (
        b
        for b in difference_scene("a", difference(before, net.graph())).boxes
        if b.node == "unread"
    )
    assert text(box)[0] == "+ parameter unread"


def test_many_nodes_are_folded_by_equal_change() -> None:
    scene = difference_scene("fuse", of_pass(deep(200), "fuse_affine_relu"))
    assert len(scene.boxes) < 20 < MOST_BOXES
    heads = [text(box)[0] for box in scene.boxes]
    assert "- affine x 200" in heads and "~ relu affine_relu x 200" in heads
    assert "~ relu_grad matmul_relu_grad x 199" in heads
    folded = next(box for box in scene.boxes if text(box)[0] == "- affine x 200")
    assert text(folded)[2] == "affine_1 ... affine_200" and folded.node == ""
    assert any(word.startswith("not drawn: ") for word in scene.words)


def test_the_svg_names_nodes_and_themes_colours() -> None:
    made = of_pass(digits(normed=False), "fuse_affine_relu")
    root = ElementTree.fromstring(svg_of(lambda: difference_scene("fuse", made)))
    groups = {g.get("data-node"): g for g in root.iter(f"{SVG}g") if g.get("data-node")}
    assert set(groups) == {box.node for box in difference_scene("fuse", made).boxes}
    assert "op" in groups["affine_1"].get("class", "").split()
    title = groups["relu_1"].find(f"{SVG}title")
    assert title is not None and "= affine_relu(x, " in (title.text or "")
    fills = {c for e in root.iter() for c in e.get("class", "").split() if c.startswith("fill-")}
    assert {"fill-removed-fill", "fill-changed-fill", "fill-card"} <= fills
    assert not [e for e in root.iter() if e.get("id")]


def test_hostile_names_are_only_text() -> None:
    declared, graph = compiled(hostile())
    made = difference(declared, graph)
    root = ElementTree.fromstring(svg_of(lambda: difference_scene(declared.name, made)))
    assert not [e for e in root.iter() if e.tag.endswith(("script", "}a", "foreignObject"))]
    names = {g.get("data-node") for g in root.iter(f"{SVG}g")}
    assert {printable(n.name) for n in declared if n.op.name == "relu"} <= names


@pytest.mark.slow
def test_the_slider_has_a_step_for_every_pass() -> None:
    made, again = (plan(digits(normed=False)) for _ in range(2))
    view = pass_view(made)
    names = [f"{i} {record.name}" for i, record in enumerate(made.graphs["step"], 1)]
    assert [step.title for step in view.steps] == [*names, f"{len(names) + 1} kernels"]
    fused = next(step for step in view.steps if "fuse_affine_relu" in step.title)
    assert "\nnodes 59 -> 57 (-2)\nbytes of values " in fused.text
    assert "\n- affine_1: float32[N, 100] = affine(" in fused.text
    assert view.steps[1].text == "2 cse: changed none of 23 nodes"
    assert view == pass_view(again)


@both
def test_each_kernel_frames_the_nodes_that_it_runs(backend: str) -> None:
    program = plan(digits(), backend).programs["step"]
    scene = kernels_scene(program)
    frames = [item for item in scene.items if isinstance(item, Frame)]
    bars = [item for item in scene.items if isinstance(item, Box)]
    assert len(bars) == sum(instr.kind == "barrier" for instr in program.instrs)
    ran = [
        [name for name in instr.nodes if not isinstance(program.graph[name].op, Source)]
        for instr in program.instrs
        if instr.kind == "kernel"
    ]
    assert [[box.node for box in boxes_in(frame.items)] for frame in frames] == ran
    assert line_text(frames[0].heading).startswith("0  gemm N x 100, partitioned by ")


@both
def test_many_kernels_are_folded(backend: str) -> None:
    scene = kernels_scene(plan(deep(100), backend).programs["step"])
    assert len(scene.boxes) < 20
    assert any(re.search(r" x \d\d$", text(box)[0]) for box in scene.boxes)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("suffix", ["svg", "png", "dot", "html"])
def test_files_are_the_same_bytes_again(suffix: str, tmp_path: Path) -> None:
    files = []
    for number in range(2):
        made = of_pass(digits(normed=False), "fuse_affine_relu")
        files.append(render_difference(made, tmp_path / f"{number}.{suffix}", name="fuse"))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_page_without_a_renderer_has_the_difference_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphc.view.render.renderer.find_renderer", lambda: None)
    made = of_pass(digits(normed=False), "fuse_affine_relu")
    page = render_difference(made, tmp_path / "a.html", name="fuse").read_text()
    assert escape("pip install 'graphc-nn[dot]'") in page and "- affine_1: float32[N, 100]" in page
    with pytest.raises(RendererMissing):
        render_difference(made, tmp_path / "a.svg", name="fuse")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    made = of_pass(digits(normed=False), "cse")
    with pytest.raises(GraphError) as caught:
        render_difference(made, tmp_path / "a.gif", name="cse")
    assert error_text(caught.value) == (
        "cannot draw 'a.gif': the suffix says the format\n"
        "  hint: one of .svg, .png, .pdf, .dot, .html"
    )


def test_of_many_boxes_only_changes_and_their_neighbours_are_drawn() -> None:
    made = of_pass(digits(normed=False), "fuse_affine_relu")
    whole = difference_scene("fuse", made)
    part = difference_scene("fuse", made, most=len(whole.boxes) - 1)
    changed = {pair.node.name for pair in made.changes}
    edges = {(a, n.name) for g in (made.before, made.after) for n in g for a in n.inputs}
    near = {name for edge in edges if changed & set(edge) for name in edge}
    assert set(drawn(part)) == (near | changed) & set(drawn(whole))
    assert all(box.node for box in part.boxes)


def test_a_tangled_drawing_is_replaced_by_a_simpler_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []

    def slow(renderer: object, source: str, format: str, seconds: float) -> bytes:
        sources.append(source)
        if len(sources) == 1:
            raise LayoutTooSlow("dot took longer")
        return b'<svg xmlns="http://www.w3.org/2000/svg"/>'

    monkeypatch.setattr("graphc.view.render.renderer.run", slow)
    made = of_pass(deep(5), "fuse_affine_relu")
    svg_of(lambda: difference_scene("fuse", made))
    assert "x 5" not in sources[0] and "x 5" in sources[1]
