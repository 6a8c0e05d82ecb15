"""Finds the smallest graph on which a pass still fails, and writes a test file that shows it.

Roots are dropped, or replaced by a node before them; parts of the graph are replaced by inputs,
in halves, quarters and so on (A. Zeller, R. Hildebrandt, "Simplifying and isolating
failure-inducing input", IEEE TSE 28, 2002); nodes are replaced by an operand of their type;
dimensions are made smaller.  The test file has the graph as text and imports the pass.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from symtable import symtable
from types import ModuleType
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.files.disk import write_atomically
from graphc.files.graph_file import user_ops
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, attributes
from graphc.ir.text.graph import graph_text, word_of
from graphc.ops.source import Constant, Input, constant_op

Fails = Callable[[Graph], bool]
KINDS = ("outputs", "gradients", "updates")
"""The kinds of roots that a graph has."""
LIMIT = 600
"""The most graphs that are tried."""


def shrunk(graph: Graph, fails: Fails) -> Graph:
    """Return the smallest graph found for which `fails` still holds, as it does for `graph`."""
    trial = _Trial(fails)
    size = None
    while size != (size := (len(graph), _source_bytes(graph), len(graph.roots))):
        graph = trial.smaller(graph, _fewer_roots)
        graph = trial.smaller(graph, _earlier)
        graph = _cut(graph, trial)
        graph = trial.smaller(graph, _bypassed)
        graph = trial.smaller(graph, _narrower)
    return graph


class _Trial:
    """Tries candidates, but at most LIMIT of them."""

    def __init__(self, fails: Fails) -> None:
        self.fails, self.left = fails, LIMIT

    def __call__(self, graph: Graph) -> bool:
        self.left -= 1
        return self.left >= 0 and self.fails(graph)

    def smaller(self, graph: Graph, candidates: Callable[[Graph], Iterator[Graph]]) -> Graph:
        """Return the graph after every candidate that still fails, one after the other."""
        found: Graph | None = graph
        while found is not None and self.left > 0:
            graph = found
            tried = itertools.islice(candidates(graph), self.left)
            found = next((each for each in tried if self(each)), None)
        return graph


def _fewer_roots(graph: Graph) -> Iterator[Graph]:
    """Yield the graph with each root alone, then with all roots but each."""
    roots = [(kind, key) for kind in KINDS for key in getattr(graph, kind)]
    if len(roots) > 1:
        for root in roots:
            yield _with_roots(graph, [root])
        for root in roots:
            yield _with_roots(graph, [other for other in roots if other != root])


def _with_roots(graph: Graph, kept: list[tuple[str, str]]) -> Graph:
    chosen: dict[str, dict[str, str]] = {
        kind: {k: v for k, v in getattr(graph, kind).items() if (kind, k) in kept} for kind in KINDS
    }
    losses = [name for name in graph.losses if name in chosen["outputs"]]
    return Graph(graph.name, graph, losses=losses, **chosen).pruned()


def _earlier(graph: Graph) -> Iterator[Graph]:
    """Yield the graph up to each node, which becomes its only output."""
    key = next(iter(graph.outputs), "result")
    losses = [name for name in graph.losses if name == key]
    for node in graph:
        if not node.op.is_source and graph.outputs.get(key) != node.name:
            yield Graph(graph.name, graph, outputs={key: node.name}, losses=losses).pruned()


def _cut(graph: Graph, trial: _Trial) -> Graph:
    """Return the graph with inputs for as many nodes as possible, in ever smaller groups."""
    size = len(graph)
    while size >= 1 and trial.left > 0:
        names = [node.name for node in graph if not (node.op.is_input or node.op.is_constant)]
        for start in reversed(range(0, len(names), size)):
            chosen = [name for name in names[start : start + size] if name in graph]
            made = _with_inputs(graph, chosen)
            if made is not None and trial(made):
                graph = made
        size //= 2
    return graph


def _with_inputs(graph: Graph, names: list[str]) -> Graph | None:
    """Return the graph with inputs in place of these nodes, or None if they are states."""
    changed: dict[str, Node | None] = {
        name: dataclasses.replace(
            graph[name], op=Input(graph[name].type.shape, graph[name].type.dtype), inputs=()
        )
        for name in names
        if name not in graph.updates
    }
    return graph.replace(changed).pruned() if changed else None


def _bypassed(graph: Graph) -> Iterator[Graph]:
    """Yield the graph without one node, whose users read an operand of the same type."""
    for node in reversed(list(graph)):
        for operand in node.inputs:
            if graph[operand].type == node.type:
                try:
                    yield graph.replace({node.name: None}, reads={node.name: operand}).pruned()
                except GraphError:  # an update of the node itself
                    continue


def _narrower(graph: Graph) -> Iterator[Graph]:
    """Yield the graph with all dimensions of one size made smaller."""
    sizes = {dim for node in graph for dim in node.type.shape if isinstance(dim, int) and dim > 1}
    for size in sorted(sizes, reverse=True):
        for smaller in (1, 2, 3):
            if smaller < size:
                made = _resized(graph, size, smaller)
                if made is not None:
                    yield made


def _resized(graph: Graph, size: int, smaller: int) -> Graph | None:
    """Return the graph with `size` made smaller, or None if an op then refuses its operands."""
    made: dict[str, Node] = {}
    try:
        for node in graph:
            op = _smaller_op(node.op, size, smaller)
            type = op.infer([made[name].type for name in node.inputs])
            made[node.name] = dataclasses.replace(node, op=op, type=type)
        return graph.with_nodes(made.values())
    except Exception:  # an op's own check, whatever it raises
        return None


def _smaller_op(op: Op, size: int, smaller: int) -> Op:
    """Return an op with a smaller dimension in its shape or constant."""
    if isinstance(op, Constant):
        array = op.array()
        kept = tuple(slice(smaller if dim == size else dim) for dim in array.shape)
        return dataclasses.replace(constant_op(np.array(array[kept])), label=op.label)
    fields: Mapping[str, Any] = attributes(op)
    shape = fields.get("shape")
    if isinstance(shape, tuple) and size in shape:
        new = tuple(smaller if dim == size else dim for dim in shape)
        return dataclasses.replace(op, shape=new)  # type: ignore[call-arg]
    return op


def _source_bytes(graph: Graph) -> int:
    """Return how many bytes the graph's sources have for a batch of one."""
    return sum(node.type.nbytes(1) for node in graph if node.op.is_source)


# ------------------------------------------------------------------ the test file

FILE = '''\
"""{title}

Written by graphc when it validated the pass.  It fails until the pass is right.
"""

{imports}

GRAPH = """\\
{graph}"""


def test_{name}():
    graph = parse_graph(GRAPH, {ops})
    {call}
'''


def write_test(
    folder: Path, pass_name: str, step: Any, graph: Graph, fault: str, call: str
) -> Path:
    """Write the file and return its path.

    Raise OSError if the folder cannot be written, and NoSource if no text makes the pass.
    `call` is the test's call of validation, with `{step}` for the pass.
    """
    name = re.sub(r"\W", "_", pass_name).strip("_") or "pass"
    source = _Source(call)
    expression = source.of(step)
    ops = source.ops(graph)
    imports = source.text()
    text = FILE.format(
        title=f"Pass {pass_name!r}: {fault.partition(chr(10))[0]}.",
        imports=imports,
        graph=graph_text(graph).replace("\\", "\\\\"),
        name=name,
        ops=ops,
        call=call.format(step=expression),
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / f"test_{name}_{number}.py" for number in itertools.count(1))
    path = next(path for path in paths if not path.exists())
    write_atomically(path, [text.encode()])
    return path


class NoSource(Exception):
    """The reason why no source text makes an object; it completes "since"."""


class _Source:
    """Expressions for objects, and the imports and definitions that they need."""

    def __init__(self, call: str) -> None:
        self.imports = {
            "from graphc.ops import OPS",
            "from graphc.ir.text import parse_graph",
            f"from graphc.check.validation import {call.partition('(')[0]}",
        }
        self.loaded: dict[str, str] = {}
        self.sources: list[str] = []
        self.copied: list[object] = []

    def text(self) -> str:
        """Return the imports, the files that are run for their definitions, and copied source."""
        loads = [
            f"{name} = SimpleNamespace(**run_path({path!r}))" for path, name in self.loaded.items()
        ]
        if loads:
            self.imports |= {"from runpy import run_path", "from types import SimpleNamespace"}
        parts = ["\n".join(sorted(self.imports)), "\n".join(loads), *self.sources]
        return "\n\n".join(part for part in parts if part)

    def ops(self, graph: Graph) -> str:
        """Return the table of ops that the graph is read with."""
        own = user_ops(graph)
        if not own:
            return "OPS"
        inside = ", ".join(f"{word_of(cls)!r}: {self._named(cls)}" for cls in own)
        return f"{{**OPS, {inside}}}"

    def of(self, value: Any) -> str:
        """Return the source text of an expression that makes the object; or raise NoSource."""
        if isinstance(value, ModuleType):
            self.imports.add(f"import {value.__name__}")
            return value.__name__
        if isinstance(value, type):
            return self._named(value)
        run = getattr(value, "run", value)  # a function may declare what it preserves
        if inspect.isfunction(run):
            return self._function(value, run)
        if isinstance(value, tuple):
            name = "" if type(value) is tuple else self._named(type(value))
            return f"{name}({''.join(f'{self.of(part)}, ' for part in value).strip()})"
        if dataclasses.is_dataclass(value):
            fields = [f.name for f in dataclasses.fields(value) if f.init]
            inside = ", ".join(f"{name}={self.of(getattr(value, name))}" for name in fields)
            return f"{self._named(type(value))}({inside})"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        if type(value).__module__ in (*sys.stdlib_module_names, np.__name__):
            raise NoSource(f"no text makes an object of type {type(value).__name__}")
        return f"{self._named(type(value))}()"

    def _function(self, step: Any, run: Any) -> str:
        """Return the function's name, imported if its module has it, else defined by its source."""
        if run.__name__ == "<lambda>":
            raise NoSource("a lambda has no name")
        module = sys.modules.get(run.__module__)
        known = _importable(module) or _has_file(module)
        if known and _named_in(module, run.__qualname__) is step:
            return self._named(run)
        if run not in self.copied:
            self.copied.append(run)
            own = module is not None and vars(module) is run.__globals__
            self._copy(run, module if own else None)
        return str(run.__name__)

    def _copy(self, run: Any, module: Any) -> None:
        """Add the source of a function after what it reads: names of its module, or expressions.

        In a notebook no file defines the names, so that expressions make their values.
        """
        try:
            text = _with_imports(textwrap.dedent(inspect.getsource(run)), module)
        except (OSError, TypeError):
            raise NoSource(f"no file defines {run.__name__}") from None
        outer = inspect.getclosurevars(run).nonlocals
        known = {**run.__globals__, **outer}
        for name in sorted(_undefined(text)):
            if name not in known:
                raise NoSource(f"nothing defines {name!r}")
            if name not in outer and _importable(module):
                self.imports.add(f"from {module.__name__} import {name}")
            elif name not in outer and _has_file(module):
                self.sources.append(f"{name} = {self._loaded(module)}.{name}")
            elif (made := self.of(known[name])) != name:
                self.sources.append(f"{name} = {made}")
        self.sources.append(text)

    def _loaded(self, module: Any) -> str:
        """Return the name of the object with all names of a module's file."""
        path = str(Path(module.__file__).resolve())
        return self.loaded.setdefault(path, f"mine{len(self.loaded) or ''}")

    def _named(self, thing: Any) -> str:
        """Return the name of a class or function, imported or loaded from its file."""
        if "<" in thing.__qualname__:
            raise NoSource(f"{thing.__name__} is defined in a function")
        module = sys.modules.get(thing.__module__)
        if _importable(module):
            root = thing.__qualname__.partition(".")[0]
            self.imports.add(f"from {thing.__module__} import {root}")
            return str(thing.__qualname__)
        if not _has_file(module):
            raise NoSource(f"no file defines {thing.__name__}")
        return f"{self._loaded(module)}.{thing.__qualname__}"


def _named_in(module: ModuleType | None, name: str) -> object:
    """Return what has a name such as "Passes.mine" in a module, or None."""
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _has_file(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_file()


def _importable(module: ModuleType | None) -> bool:
    """Return whether a new process would find the module under its name."""
    if module is None or module.__name__ == "__main__" or module.__spec__ is None:
        return False
    return not module.__name__.startswith("graphc_model_")


def _undefined(text: str) -> set[str]:
    """Return the names that a source text reads and does not define."""
    whole = symtable(text, "<pass>", "exec")
    tables = [whole]
    for table in tables:
        tables.extend(table.get_children())
    read = {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (table is whole or symbol.is_global())
    }
    own = (symbol for symbol in whole.get_symbols() if symbol.is_assigned())
    imported = (symbol for symbol in whole.get_symbols() if symbol.is_imported())
    defined = {symbol.get_name() for symbol in (*own, *imported)}
    return read - defined - set(dir(builtins))


def _with_imports(text: str, module: Any) -> str:
    """Return the source after the imports of the file that contains it, if it is from a file."""
    if not _has_file(module):
        return text
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imports = (node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    lines = [line for line in map(ast.unparse, imports) if "__future__" not in line]
    return "\n".join([*lines, f"\n\n{text}"])
