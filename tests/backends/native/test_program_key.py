"""Programs of equal keys have equal code, which is only written if no object is cached."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import cache_keys, libraries
from graphc.backends.native.program import program_ir
from graphc.backends.native.target import host
from graphc.kernels.program import Program
from tests.backends.native.nets import NETS

PACKAGE = Path(gc.__file__).parent


def step(width: int = 7, batch: int = 4) -> Program:
    """The step of a small classifier."""
    net = gc.Net("small")
    x, y = net.input("x", (gc.N, 5)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(gc.relu(gc.affine(x, width)), 3), y))
    plan = gc.compile(net, batch=batch, optimizer=gc.SGD(lr=0.1), backend="native")
    return plan.programs["step"]


def of(program: Program) -> str:
    found = cache_keys.program_key(program, frozenset())
    assert found is not None
    return found


def test_equal_programs_have_equal_keys() -> None:
    assert of(step()) == of(step())


@pytest.mark.one_in(14)
@pytest.mark.parametrize("name", NETS)
def test_programs_of_one_key_have_one_text(name: str) -> None:
    nets = [NETS[name]("float32") for _ in range(2)]
    plans = [gc.compile(net, batch=8, backend="native") for net in nets]
    for programs in zip(*(plan.programs.values() for plan in plans), strict=True):
        keys = {of(program) for program in programs}
        texts = {program_ir(program, host()) for program in programs}
        assert len(keys) == len(texts) == 1


def test_what_changes_the_text_changes_the_key() -> None:
    program = step()
    moved = {
        name: buffer._replace(offset=buffer.offset + 64) if buffer.space == "arena" else buffer
        for name, buffer in program.buffers.items()
    }
    fewer = tuple(instr for instr in program.instrs if instr.kind != "barrier")
    changed = [
        step(width=8),
        replace(program, buffers=moved),
        replace(program, boundary=program.boundary // 2),
        replace(program, instrs=fewer[:-1]),
        replace(program, contract="unfused"),
    ]
    for other in changed:
        assert program_ir(other, host()) != program_ir(program, host())
        assert of(other) != of(program)
    assert cache_keys.program_key(program, frozenset({0})) != of(program)
    wider = replace(host(), bits=2 * host().bits)
    assert cache_keys.object_key("text", wider) != cache_keys.object_key("text", host())


def test_without_source_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_keys, "WRITERS", ("nowhere.py",))
    cache_keys._writers.cache_clear()
    try:
        assert cache_keys.program_key(step(), frozenset()) is None
    finally:
        cache_keys._writers.cache_clear()


def test_a_kept_object_is_loaded_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    ir = "define i64 @answer() {\n  ret i64 4123\n}\n"
    written: list[str] = []

    def write() -> tuple[str]:
        written.append(ir)
        return (ir,)

    first = libraries.load_by_key("answer", write, ("answer",), host())
    assert libraries.load_by_key("answer", write, ("answer",), host()) is first
    assert len(written) == 1
    for entry in tmp_path.iterdir():  # the object goes, what led to it stays
        if entry.name.startswith(cache_keys.object_key(ir, host())):
            entry.unlink()
    libraries._loaded.clear()
    assert libraries.load_by_key("answer", write, ("answer",), host()) is not first
    assert len(written) == 2


def test_the_key_knows_all_that_writes_programs() -> None:
    """Whatever the writer imports of graphc is digested, or has nothing to say about the text."""
    harmless = {
        "graphc": "names only",
        "graphc.base.arguments": "what is asked for, and checked",
        "graphc.base.errors": "what is refused",
        "graphc.base.docstrings": "what docstrings say",
        "graphc.ir.narrow": "the same as graphc.features.precision.bfloat16, which is digested",
        "graphc.ir.graph": "programs are made of it, and said in the key",
        "graphc.ir.op": "the same",
        "graphc.ir.kernel_rules": "the same",
        "graphc.ir.exact": "whether ops are equal",
        "graphc.base.loc": "where a node was declared",
        "graphc.base.door": "what graphs are printed by",
        "graphc.base.text_table": "how texts are aligned",
        "graphc.base.work": "how long a file may take",
        "graphc.ir.text.graph": "the text of graphs",
        "graphc.base.scoped_lock": "one caller of LLVM at a time",
    }
    missing = {
        name for name in _closure("graphc.backends.native.program") if not _digested(_file(name))
    }
    assert missing <= set(harmless)


def _digested(file: Path) -> bool:
    part = file.relative_to(PACKAGE)
    return any(part.is_relative_to(writer) for writer in cache_keys.WRITERS)


def _closure(name: str) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo.extend(_imports(_file(module)))
    return found


def _imports(file: Path) -> Iterator[str]:
    """Modules of graphc that a file imports, except for types; a writer's, also in functions."""
    body = ast.parse(file.read_text()).body
    own = [node for node in body if not isinstance(node, ast.If)]  # if TYPE_CHECKING
    for node in [n for one in own for n in ast.walk(one)] if _digested(file) else own:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("graphc"):
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _file(inner).exists() else node.module


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_results_are_those_of_text_kept_or_written(tmp_path: Path) -> None:
    outputs = []
    for _ in range(2):
        net = gc.Net("twice")
        x = net.input("x", (gc.N, 5))
        net.output("out", gc.relu(gc.affine(x, 3)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRAPHC_CACHE", str(tmp_path))
            libraries._loaded.clear()
            plan = gc.compile(net, batch=4, backend="native")
            feeds = {"x": np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)}
            outputs.append(gc.Executor(plan, seed=1).forward(feeds)["out"].tobytes())
    assert outputs[0] == outputs[1]
