"""The key of a program has every field of what code is written from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import libraries, target
from graphc.backends.native.cache_keys import program_key
from graphc.backends.native.exact_text import exact
from graphc.backends.native.program import program_ir
from graphc.backends.native.program_code import code_of
from graphc.backends.native.target import host
from graphc.ir.graph import Graph
from graphc.kernels.inside import Inside
from graphc.kernels.program import Arena, Buffer, Instr, Program
from graphc.kernels.scan import ScanKernel
from graphc.ops.source import Constant
from tests.backends.native.nets import NETS


def loops(number: float = 0.5) -> gc.Net:
    """A loop with lengths, whose step has constants."""
    net = gc.Net("loops")
    x = net.input("x", (gc.N, 5, 4))
    lengths = net.input("lengths", (gc.N,), dtype="int32")
    w = net.parameter("w", (4, 4), init=1.0)

    def step(xt: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(h * number + xt @ w)
        return h, h * 2.0

    ys, last = gc.scan(step, x, x[:, 0] * 0.0, lengths=lengths)
    net.loss("loss", gc.mean(ys * ys) + gc.mean(last))
    return net


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    """Programs that have most kinds of kernel between them."""
    made = [NETS[name]("float32") for name in ("images", "seed_layers", "three_axes")]
    plans = [gc.compile(net, batch=8, backend="native") for net in (loops(), *made)]
    return [program for plan in plans for program in plan.programs.values()]


def names_of(value: object) -> tuple[str, ...]:
    """The fields of a dataclass or named tuple."""
    if isinstance(value, Graph):
        return ("nodes", "outputs", "gradients", "updates", "losses", "name")
    own = getattr(value, "_fields", ())
    return tuple(field.name for field in fields(value)) if is_dataclass(value) else own


def parts_of(value: Any) -> Iterator[Any]:
    """A value and all that it consists of."""
    yield value
    inner = [getattr(value, name) for name in names_of(value)]
    if isinstance(value, Mapping):
        inner = [*value, *value.values()]
    elif type(value) is tuple:
        inner = [*value]
    for part in inner:
        yield from parts_of(part)


def others(value: Any) -> list[Any]:
    """Values that a field may have instead, as near to its own as can be."""
    if isinstance(value, bool):
        return [not value, int(value), float(value)]
    if isinstance(value, (int, float)):
        nearest = -value if value == 0.0 else np.nextafter(value, np.inf).item()
        return [value + 1, nearest if isinstance(value, float) else float(value)]
    if isinstance(value, bytes):
        return [value[:-1] + bytes([value[-1] ^ 1]), value + b"\0", value.hex()]
    if isinstance(value, str):
        return [value + " ", f'{value}"']
    if isinstance(value, Mapping):
        return [{**value, "another": 0}]
    return [(*value, 0), value[:-1] or None] if type(value) is tuple else ["", 0]


def test_every_field_is_in_the_key(programs: list[Program]) -> None:
    known: set[tuple[str, str]] = set()
    for part in parts_of(tuple(map(code_of, programs))):
        for name in names_of(part):
            if (type(part).__name__, name) not in known:
                known.add((type(part).__name__, name))
                for other in others(getattr(part, name)):
                    changed = copy(part)
                    if isinstance(part, tuple):
                        changed = part._replace(**{name: other})
                    else:
                        object.__setattr__(changed, name, other)
                    assert exact(changed) != exact(part), (part, name, other)
    for owner, name in [(Constant, "data"), (ScanKernel, "reverse"), (Instr, "body")]:
        assert (owner.__name__, name) in known
    assert {"Gemm", "Convolution", "AccessMap", "Window", "Permutation", "Batch"} <= {*dict(known)}


def test_what_is_left_out_is_not_in_the_code(programs: list[Program]) -> None:
    for program in (programs[0], programs[-1]):
        later = {k: b._replace(first=b.first + 1, last=99) for k, b in program.buffers.items()}
        instrs = [instr._replace(node="n", nodes=("n",), kernel="k") for instr in program.instrs]
        names = {"name": "other", "backend": "", "graph": Graph("", ())}
        places: dict[str, Any] = {"storages": (), "arena": Arena({}, 1, 2), "buffers": later}
        results: dict[str, Any] = {"outputs": {}, "gradients": {}, "index_bounds": {}}
        other = replace(program, instrs=tuple(instrs), **names, **places, **results)
        assert program_key(other, frozenset()) == program_key(program, frozenset())
        assert program_ir(other, host()) == program_ir(program, host())


def test_tuples_need_no_names() -> None:
    """A key does not say of which class a tuple is: a field may have one class of them only."""
    todo: list[Any] = [Program, ScanKernel]
    met: set[Any] = set()
    while todo:
        kind = todo.pop()
        if kind in met:
            continue
        met.add(kind)
        known = {"Program": Program, "Inside": Inside}
        hints = get_type_hints(kind, localns=known) if names_of(kind) else {}
        for name, hint in hints.items():
            found = {one for one in classes(hint) if issubclass(one, tuple) and one is not tuple}
            assert len(found) <= 1, (kind, name, found)
            todo.extend(classes(hint))
    assert {Buffer, Instr, ScanKernel} <= met


def classes(hint: Any) -> set[type]:
    """The classes in a hint."""
    inner = set().union(*map(classes, get_args(hint)))
    return inner | ({hint} if isinstance(hint, type) and not get_args(hint) else set())


def test_what_has_no_exact_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a key of the cache cannot hold builtins\.object"):
        exact(("a", object()))
    numbers = 1, 1.0, True, "1", 0.0, -0.0, None, b"1", np.int64(1), np.int32(1), np.ones(1)
    assert len({exact(x) for x in numbers}) == len(numbers)
    assert exact(np.array([0.0])) != exact(np.array([-0.0]))


def test_loops_that_differ_in_a_constant_share_no_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither in one process nor on disk, in inference nor in training."""
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path))
    monkeypatch.setitem(target.CODEGEN, "opt", 0)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((8, 5, 4)), "lengths": rng.integers(1, 6, 8)}
    for number in (0.5, 0.25):
        results = []
        for backend in ("native", "numpy"):
            plan = gc.compile(loops(number), batch=8, backend=backend, optimizer=gc.SGD(lr=0.5))
            ex = gc.Executor(plan, seed=0)
            loss = ex.forward(feeds)["loss"]
            ex.step(feeds)
            results.append([loss, *ex.parameters["w"].ravel()])
        np.testing.assert_allclose(*results, rtol=1e-5)
        libraries._loaded.clear()
        libraries._recent.clear()
