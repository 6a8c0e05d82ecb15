"""The rooms of graphc build on each other in one order; and other things that stand in one place.

Each rule is a function of parsed files, so that it is tried on planted faults as well.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from pkgutil import resolve_name

import pytest

from graphc.backends.backend import BACKENDS
from graphc.base.door import LATE
from graphc.features import PARTS
from graphc.ops import OPS
from tests.core import FILES
from tests.sources import ROOT, nodes_of, parsed

ROOMS = (
    "base",
    "ir",
    "kernels",
    "ops",
    "declare",
    "passes",
    "backends",
    "precision",
    "compiler",
    "runtime",
    "loops",
    "layers",
    "files",
    "train",
    "check",
    "view",
    "data",
    "onnx",
    "sklearn",
    "cli",
)
"""A room imports from itself and from those before it.

`passes` is a package of its own, and each feature in `graphc/features` is a room.
"""
ENTRIES = 21
"""The most files and folders at the top of graphc."""
DEFERRED = 60
"""The most imports inside functions: of what is heavy, optional, or needed for mistakes alone."""

HIGHER = {**PARTS, **LATE}
"""What is behind each name of the door."""

DOORS = ("higher", "optional", "ask")
"""The functions of the door, which take a name first."""

FEATURES = ("graphc/runtime/members",)
"""Folders of features, of which the rest of their room and the rooms below it know nothing."""

Tree = Mapping[str, ast.AST]
"""Parsed files by their paths."""

LEFT: Counter[tuple[str, str]] = Counter()
"""Imports against the order that are left, by room and imported room; it only becomes shorter."""

IMPORTERS = (
    "graphc/__init__.py",
    "graphc/backends/backend.py",
    "graphc/backends/writers.py",
    "graphc/base/door.py",
    "graphc/base/own_passes.py",
    "graphc/cli/",
    "graphc/declare/",
    "graphc/ops/__init__.py",
)
"""Where modules are imported by a name that is computed."""

NAMED_BACKENDS = {
    "graphc/base/other_names.py": "numpy",  # a method of arrays in other libraries
    "graphc/train/record/folder.py": "numpy",  # the version of the package
}
"""Where a backend's name means something else."""

TABLES = (
    "graphc/onnx/export/",  # what an op is called in another standard
    "passes/",  # patterns
    "graphc/view/render/derivation.py",
)
"""Where tables of ops may stand, besides graphc/ops."""


@cache
def tree() -> Tree:
    return {path.relative_to(ROOT).as_posix(): file for path, file in parsed().items()}


def planted(file: str, text: str) -> Tree:
    return {file: ast.parse(text)}


def room_of(name: str) -> str:
    """The room of a file, or of a module that is written with slashes."""
    first, _, rest = name.removesuffix(".py").partition("/")
    return first if first == "passes" else rest.removeprefix("features/").partition("/")[0]


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules of an import, and what it takes from them as if those were modules."""
    if isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def imported_rooms(file: ast.AST) -> Iterator[str]:
    """Yield the rooms that a file imports from, a room for each import of a module."""
    for node in nodes_of(file):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [name.replace(".", "/") for name in imported(node)]
        rooms = [room_of(name) for name in names if name.startswith(("graphc/", "passes"))]
        whole = isinstance(node, ast.ImportFrom) and node.module != "graphc"
        yield from rooms[:1] if whole else rooms


def edges(files: Tree) -> Counter[tuple[str, str]]:
    """How often a room imports from another, types and imports inside functions included."""
    found: Counter[tuple[str, str]] = Counter()
    for name, file in files.items():
        if room_of(name) in ROOMS:
            found.update((room_of(name), other) for other in imported_rooms(file))
    return Counter({(a, b): n for (a, b), n in found.items() if a != b})


def upward(files: Tree) -> Counter[tuple[str, str]]:
    place = {room: i for i, room in enumerate(ROOMS)}
    found = edges(files)
    return Counter({(a, b): n for (a, b), n in found.items() if place.get(b, 99) > place[a]})


def ring(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """A ring of rooms that import each other, or nothing."""
    below: dict[str, set[str]] = {}
    for room, other in found:
        below.setdefault(room, set()).add(other)
    try:
        tuple(TopologicalSorter(below).static_order())
    except CycleError as error:
        return tuple(error.args[1])
    return ()


def into_features(files: Tree) -> Iterator[str]:
    """Yield the files that import a feature from its own room, or from one below."""
    for feature in FEATURES:
        rooms = ROOMS[: ROOMS.index(room_of(feature)) + 1]
        for name, file in files.items():
            if room_of(name) in rooms and not name.startswith(f"{feature}/"):
                modules = {module for node in nodes_of(file) for module in imported(node)}
                if any(
                    f"{module}.".startswith(f"{feature.replace('/', '.')}.") for module in modules
                ):
                    yield name


def deferred(files: Tree) -> Iterator[str]:
    for name, file in files.items():
        for function in nodes_of(file):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inside = (
                    n for n in ast.walk(function) if isinstance(n, (ast.Import, ast.ImportFrom))
                )
                yield from (f"{name}: {ast.unparse(node)}" for node in inside)


def computed_imports(files: Tree) -> Iterator[str]:
    """The files, besides those that may, that import modules by a name that is computed."""
    for name, file in files.items():
        if not name.startswith(IMPORTERS):
            words = (node for node in nodes_of(file) if isinstance(node, (ast.Name, ast.Attribute)))
            found = (word.id if isinstance(word, ast.Name) else word.attr for word in words)
            if {"import_module", "__import__"} & {*found}:
                yield name


def asked(files: Tree) -> Iterator[tuple[str, str]]:
    """The files that go through the door, and the names that they ask for; `*` for any ending."""
    for name, file in files.items():
        for node in nodes_of(file):
            if isinstance(node, ast.Call) and _last_word(node.func) in DOORS:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.JoinedStr):
                    assert isinstance(first.values[0], ast.Constant), name
                    yield name, f"{first.values[0].value}*"
                elif isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield name, first.value
            elif isinstance(node, ast.Assign) and _last_word(node.targets[0]) == "lowering":
                yield "graphc/compiler/lowering.py", ast.literal_eval(node.value)


def targets(name: str) -> list[str]:
    """The functions of the door that a name asks for."""
    if name.endswith("*"):
        return [path for key, path in HIGHER.items() if key.startswith(name[:-1])]
    return [HIGHER[name]]


def docstrings(nodes: Iterable[ast.AST]) -> set[ast.AST]:
    return {node.value for node in nodes if isinstance(node, ast.Expr)}


def _last_word(node: ast.AST) -> str:
    """The name that an expression ends with, if it does."""
    return getattr(node, "attr", getattr(node, "id", ""))


def named_backends(files: Tree) -> Iterator[str]:
    """The places outside a backend's own folder, and the table, that name a backend."""
    for name, file in files.items():
        nodes = nodes_of(file)
        texts = docstrings(nodes)
        keywords = (node for node in nodes if isinstance(node, ast.keyword))
        asked = [keyword.value for keyword in keywords if keyword.arg == "backend"]
        compared = (node for node in nodes if isinstance(node, ast.Compare))
        for node in compared:
            sides = [node.left, *node.comparators]
            if any(_last_word(side).endswith("backend") for side in sides):
                asked += sides
        literals = [
            node for node in nodes if isinstance(node, ast.Constant) and node.value in BACKENDS
        ]
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        for backend in BACKENDS:
            own = name.startswith(f"graphc/backends/{backend}/") or name in (
                "graphc/backends/backend.py",
                "graphc/backends/writers.py",
            )
            if own or NAMED_BACKENDS.get(name) == backend:
                continue
            for node in literals:
                # a letter names other things elsewhere
                counts = node not in texts and (len(backend) > 1 or node in asked)
                if counts and node.value == backend:
                    yield f"{name}:{node.lineno}: {backend!r}"
            folder = f"graphc.backends.{backend}"
            for node in imports:
                if any(f"{module}.".startswith(f"{folder}.") for module in imported(node)):
                    yield f"{name}: {ast.unparse(node)}"


def op_tables(files: Tree) -> Iterator[str]:
    """The dictionaries and sequences of three and more classes of ops, outside of patterns."""
    kinds = {cls.__name__ for cls in OPS.values()}
    for name, file in files.items():
        if name.startswith(("graphc/ops/", *TABLES)):
            continue
        nodes = nodes_of(file)
        ops = {module.rpartition(".")[2] for node in nodes for module in imported(node)} & kinds
        if not ops:
            continue
        calls = (node for node in nodes if isinstance(node, ast.Call))
        patterns = {part for call in calls for part in call.args[1:] if _is_match(call)}
        for node in nodes:
            held = _members(node) if node not in patterns else ()
            found = [part.id for part in held if isinstance(part, ast.Name) and part.id in ops]
            if len(found) >= 3:
                yield f"{name}: {', '.join(found)}"


def _is_match(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("isinstance", "issubclass")


def _members(node: ast.AST) -> Iterable[ast.AST | None]:
    if isinstance(node, ast.Dict):
        return node.keys
    return node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else ()


def test_imports_follow_the_order_of_the_rooms() -> None:
    assert upward(tree()) == LEFT, "an import upwards is new; or one is gone: then off the list"


def test_no_rooms_import_each_other_in_a_ring() -> None:
    assert ring(pair for pair in edges(tree()) if pair not in LEFT) == ()


def test_no_room_imports_a_feature_of_its_own() -> None:
    assert [*into_features(tree())] == []


def _parts(folder: str) -> set[Path]:
    """The files of a folder, and the folders in it that have some."""
    return {path for path in (ROOT / folder).iterdir() if path.is_file() or any(path.glob("*.py"))}


def test_every_folder_is_a_room() -> None:
    top = _parts("graphc")
    folders = {path.name for path in top | _parts("graphc/features") if path.is_dir()}
    assert folders == {*ROOMS, "features"} - {"passes"}
    assert len(top) <= ENTRIES


def test_few_imports_are_deferred() -> None:
    assert len([*deferred(tree())]) <= DEFERRED


def test_modules_are_imported_by_computed_names_in_few_places() -> None:
    assert [*computed_imports(tree())] == []


def test_what_is_asked_for_at_the_door_stands_higher() -> None:
    """A file may import what is in a room below, unless it is of the core and that is not."""
    used = set[str]()
    for file, name in asked(tree()):
        used.update(targets(name))
        for target in targets(name):
            assert resolve_name(target) is not None
            if not target.startswith("graphc._"):
                path = target.replace(".", "/")
                owners = {f"{path}.py", f"{path.rpartition('/')[0]}.py"}
                below = file in FILES and owners.isdisjoint(FILES)
                higher = ROOMS.index(room_of(path)) > ROOMS.index(room_of(file))
                assert below or higher, f"{file} may import {target}"
    assert used == {*HIGHER.values()}


def test_backends_are_named_in_their_table_alone() -> None:
    assert [*named_backends(tree())] == []


def test_tables_of_ops_stand_with_the_ops() -> None:
    assert [*op_tables(tree())] == []


@pytest.mark.parametrize(
    "text",
    [
        "from graphc.view.plots import curve",
        "from graphc import view",
        "import graphc.view.plots",
        "def f() -> None:\n    from graphc.view import plots",
        "if TYPE_CHECKING:\n    from graphc.view.plots import Curve",
    ],
)
def test_a_planted_import_upwards_is_found(text: str) -> None:
    assert upward(planted("graphc/train/fit.py", text)) == {("train", "view"): 1}
    assert not upward(planted("graphc/view/fit.py", text))
    assert not upward(planted("graphc/cli/fit.py", text))


def test_a_planted_import_of_passes_is_found() -> None:
    text = "from passes.cse import cse"
    assert upward(planted("graphc/ops/fused.py", text)) == {("ops", "passes"): 1}
    assert not upward(planted("graphc/compiler/options.py", text))
    assert upward(planted("passes/cse.py", "from graphc.compiler.plan import Plan"))


@pytest.mark.parametrize(
    "text",
    [
        "from graphc.runtime.members.population import Population",
        "from graphc.runtime import members",
        "def f() -> None:\n    import graphc.runtime.members.states",
    ],
)
def test_a_planted_import_of_a_feature_is_found(text: str) -> None:
    for file in ("graphc/runtime/executor.py", "graphc/compiler/plan.py"):
        assert [*into_features(planted(file, text))] == [file]
    for file in ("graphc/runtime/members/feeds.py", "graphc/files/serialize.py"):
        assert not [*into_features(planted(file, text))]


def test_a_planted_ring_is_found() -> None:
    up = planted("graphc/ir/graph.py", "from graphc.ops import OPS")
    down = planted("graphc/ops/shape.py", "from graphc.ir.graph import Graph")
    assert ring(edges(down)) == ()
    assert {*ring(edges({**up, **down}))} == {"ir", "ops"}


def test_a_planted_door_is_found() -> None:
    text = "from importlib import import_module\nimport_module('graphc.view')"
    assert [*computed_imports(planted("graphc/ir/graph.py", text))] == ["graphc/ir/graph.py"]
    assert [*asked(planted("graphc/ir/graph.py", "higher('verify')(1)"))] == [
        ("graphc/ir/graph.py", "verify")
    ]
    assert len([*deferred(planted("graphc/ir/graph.py", "def f():\n    import json"))]) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_planted_name_of_a_backend_is_found(backend: str) -> None:
    for text in (
        f"plan.backend == {backend!r}",
        f"from graphc.backends.{backend} import bind",
        f"from graphc.backends import {backend}",
        f"import graphc.backends.{backend}.bind",
    ):
        assert len([*named_backends(planted("graphc/view/measure.py", text))]) == 1, text
        assert not [*named_backends(planted(f"graphc/backends/{backend}/bind.py", text))]
    assert not [*named_backends(planted("graphc/view/measure.py", f'"""{backend}"""'))]


def test_a_planted_table_of_ops_is_found() -> None:
    head = "from graphc.ops.elementwise import Add, Mul, Sub\n"
    for text in (
        "COST = {Add: 1, Mul: 1, Sub: 2}",
        "LINEAR = (Add, Mul, Sub)",
        "f([Add, Mul, Sub])",
    ):
        assert [*op_tables(planted("graphc/view/cost.py", head + text))] == [
            "graphc/view/cost.py: Add, Mul, Sub"
        ]
        assert not [*op_tables(planted("graphc/ops/cost.py", head + text))]
    match = "isinstance(node.op, (Add, Mul, Sub))"
    assert not [*op_tables(planted("graphc/view/cost.py", head + match))]
