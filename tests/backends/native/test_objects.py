"""Modules become the same objects however many threads compile them, and are linked together."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import graphc as gc
from graphc.backends.native import cache, cache_keys, libraries, objects
from graphc.backends.native.ir import Function, Module
from graphc.backends.native.llvm import LLVM
from graphc.backends.native.objects import objects_of
from graphc.backends.native.program import PART, program_ir
from graphc.backends.native.target import Target, host
from tests.backends.native.test_libraries import adding, called

pytestmark = pytest.mark.needs("native")


def texts_of(count: int) -> list[str]:
    return [adding(1000 + i) + "; padding\n" * (i * 7 % 5) for i in range(count)]


def chain(length: int) -> Module:
    """A module whose functions each call the one before, and add 1."""
    module = Module()
    names = [
        module.function("first", "i64 %x", lambda f: f.add("%x", 1), result="i64"),
    ]
    for _ in range(length - 1):

        def emit(f: Function) -> str:
            return f.add(f.call_for("i64", names[-1], "%x"), 1)

        names.append(module.function("next", "i64 %x", emit, result="i64"))
    last = Function(module, "all", "i64 %x", linkage="", result="i64")
    last.do(f"ret i64 {last.call_for('i64', names[-1], '%x')}")
    module.add(last)
    return module


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_objects_do_not_depend_on_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(9)
    alone = [object for text in texts for object in LLVM(objects_of, [text], host())]
    monkeypatch.setattr(objects, "thread_count", lambda: threads)
    assert LLVM(objects_of, texts, host()) == alone
    assert len(set(alone)) == len(alone)


def test_where_no_thread_starts_one_compiles_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    texts = texts_of(3)
    monkeypatch.setattr(objects, "thread_count", lambda: 3)
    expected = LLVM(objects_of, texts, host())
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert LLVM(objects_of, texts, host()) == expected


@pytest.mark.parametrize("wrong", range(4))
def test_one_text_that_is_no_module(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(4)
    texts[wrong] += "define nothing\n"
    monkeypatch.setattr(objects, "thread_count", lambda: 3)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="parsing"):
        LLVM(objects_of, texts, host())
    assert threading.active_count() == before


@pytest.mark.needs("POSIX")
def test_an_interrupt_leaves_no_thread_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    original = objects.parsed

    def interrupting(*args: object) -> object:
        if threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(objects, "thread_count", lambda: 3)
    monkeypatch.setattr(objects, "parsed", interrupting)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        LLVM(objects_of, texts_of(9), host())
    assert threading.active_count() == before
    assert not LLVM.entered


def test_a_helper_has_the_lock_of_the_thread_that_waits_for_it() -> None:
    """As where it frees the last reference to a library."""
    freed: list[int] = []

    def helper_frees() -> None:
        LLVM(freed.append, 1)

    def with_a_helper() -> None:
        helper = threading.Thread(target=LLVM.help, args=(helper_frees,), daemon=True)
        helper.start()
        helper.join(60)

    LLVM(with_a_helper)
    assert freed == [1]


def test_the_lock_can_be_taken_twice_while_another_thread_forks() -> None:
    inside, took = threading.Event(), threading.Event()

    def holds() -> None:
        inside.set()
        while not LLVM._forking:
            pass
        LLVM(took.set)

    holder = threading.Thread(target=LLVM, args=(holds,), daemon=True)
    holder.start()
    inside.wait()
    forking = threading.Thread(target=LLVM._before, daemon=True)
    forking.start()
    holder.join(60)
    forking.join(60)
    LLVM._after()
    assert took.is_set()


@pytest.mark.parametrize("size", [1, 200, 10**6])
def test_functions_call_those_of_other_parts(size: int, cache_folder: Path) -> None:
    parts = chain(10).parts(size)
    assert len(parts) == {1: 11, 200: len(parts), 10**6: 1}[size]
    library = libraries.load_by_key(None, lambda: parts, ("all",), host())
    assert called(library, "all", 5) == 15


def test_llvms_linker_takes_several_objects(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise libraries.UnsupportedError("asked for")

    monkeypatch.setattr(libraries, "LinkedCode", never)
    library = libraries.load_by_key(None, lambda: chain(10).parts(1), ("all",), host())
    assert called(library, "all", 5) == 15


def test_parts_have_each_function_of_the_module_once() -> None:
    module = chain(10)
    parts = module.parts(200)
    defined = [re.findall(r"^define.*?@([\w.]+)\(", text, re.M) for text in (module.text(), *parts)]
    named = [*itertools.chain(*defined[1:])]
    assert len(set(named)) == len(named) == len(defined[0])
    stems = [re.match("[a-z]+", name)[0] for name in (*defined[0], *named)]  # type: ignore[index]
    assert stems == 2 * stems[: len(named)]
    assert len(parts) > 2
    assert all("internal" not in part for part in parts)


def test_a_program_that_is_long_has_parts(cache_folder: Path) -> None:
    """A part that is lost, or is none, is found missing and compiled again."""
    net = gc.Net("long")
    h = net.input("x", (gc.N, 7))
    for width in range(3, 14, 3):
        h = gc.tanh(gc.affine(h, width))
    net.output("y", h)
    plan = gc.compile(net, batch=4, backend="native")
    texts = program_ir(plan.programs["infer"], host())
    assert len(texts) > 1
    assert all(len(text) > PART for text in texts[:-1])
    feeds = {"x": [[0.5] * 7] * 3}
    expected = gc.Executor(plan, seed=1).forward(feeds)["y"]
    for entry in list(cache_folder.iterdir())[::2]:
        entry.unlink()
    for text in texts[:-1]:
        cache.store(cache_keys.object_key(text, host()), b"no object")
    libraries._loaded.clear()
    assert gc.Executor(plan, seed=1).forward(feeds)["y"].tobytes() == expected.tobytes()


def test_what_programs_have_in_common_is_compiled_once(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where it is not the same part of both, and a lost one is compiled alone."""
    compiled: list[str] = []

    def noted(texts: Sequence[str], target: Target) -> list[bytes]:
        compiled.extend(texts)
        return objects_of(texts, target)

    monkeypatch.setattr(libraries, "objects_of", noted)
    monkeypatch.setattr("graphc.backends.native.program.PART", 1 << 11)  # short for any vectors
    net = gc.Net("net")
    h = gc.affine(gc.tanh(gc.affine(net.input("x", (gc.N, 5)), 9)), 7)
    net.loss("loss", gc.mean(h * h))
    plan = gc.compile(net, batch=4, backend="native", optimizer=gc.SGD(lr=0.1))
    texts = {name: program_ir(plan.programs[name], host()) for name in ("step", "grad")}
    common = {*texts["step"]} & {*texts["grad"]}
    assert common
    assert common < {*texts["grad"]}, "weight gradients end in updates in a step"
    ex = gc.Executor(plan)
    feeds = {"x": [[0.5] * 5] * 3}
    ex.step(feeds)
    ex.forward(feeds, train=True)
    ex.backward()
    assert common < {*compiled}
    assert len(compiled) == len({*compiled})

    lost = texts["step"][0]
    (cache_folder / f"{cache_keys.object_key(lost, host())}.object").unlink()
    libraries._loaded.clear()
    compiled.clear()
    gc.Executor(plan).step(feeds)
    assert compiled == [lost]


def summed(keeps_indices: bool) -> Module:
    """A module with a function that sums i * i for i below its argument, in steps of 3."""
    module = Module(keeps_indices=keeps_indices)
    f = Function(module, "summed", "i64 %x", linkage="", result="i64")
    (total,) = f.loop(0, "%x", 3, lambda i, c: [f.add(c[0], f.mul(i, i))], [("i64", "0")])
    f.do(f"ret i64 {total}")
    module.add(f)
    return module


@pytest.mark.parametrize("keeps_indices", [False, True])
def test_loops_count_alike_whether_indices_are_kept(
    keeps_indices: bool, cache_folder: Path
) -> None:
    text = summed(keeps_indices).text()
    assert ("llvm.expect" in text) == keeps_indices
    library = libraries.load(text, ("summed",), host())
    for x in (0, 1, 3, 4, 1000):
        assert called(library, "summed", x) == sum(i * i for i in range(0, x, 3))
