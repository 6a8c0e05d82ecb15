"""What every test has: a cache of compiled objects that is not the user's, and proofs of plans.

Of the cases of a test that is marked `one_in(n)`, the first of every n run by default, and the
others with `-m slow`.  If it is marked `slow` too, the first run with `-m slow`, and the others
with `-m campaign`.  Where a test of something else than code has a case for each backend, most of
those on native code, which is slow to compile, run with `-m slow`, too.
"""

from __future__ import annotations

import gc as collector
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from functools import cache, wraps
from pathlib import Path
from types import FunctionType
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

from graphc.backends.c import backend as c_backend
from graphc.backends.native import target
from graphc.compiler import driver, program
from graphc.ir.graph import Graph
from graphc.kernels.program import Program
from graphc.kernels.traits import Forms
from tests.extras import ASKED_FOR, missing, needs, skipped_where_missing
from tests.poisoned import poisoned_memory

settings.register_profile(
    "the same everywhere",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("some", settings.get_profile("the same everywhere"), max_examples=40)

# The processes that tests start import what others have compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
    signal.signal(signal.SIGINT, signal.default_int_handler)

ABOVE_BACKENDS = (
    *("cli/", "declare/", "images/", "mistakes/", "onnx/", "passes/", "view/"),
    *("files/test_serialize.py", "runtime/test_batches.py", "runtime/test_executor_refusals.py"),
)
"""Where tests run on NumPy, which is faster to compile for, unless GRAPHC_BACKEND is set."""
OTHERS = ("slow", "bench", "campaign", "browser")
"""The markers of tests that do not run by default."""
ABOUT_CODE = ("backends/", "reproducibility/")
OPTIMIZED = ("backends/c/", "backends/native/test_objects.py", "files/", "reproducibility/")
"""Where LLVM and C compilers optimize by default: that takes most of their time and changes no
bit, as these tests and the slow ones show."""
ON_NATIVE = 4
"""Elsewhere one in so many cases on native code runs by default, where other backends have some."""
PROVED = 11
"""Without slow tests one in so many programs is proved, by its size; with them every one."""
TESTS = Path(__file__).parent
NOBODYS = 2**40
"""Rows of plans for no machine, whose addresses are no 64-bit numbers."""


def pytest_configure(config: pytest.Config) -> None:
    """Draw fewer examples by default, unless GRAPHC_BACKEND is set."""
    cheap = "not slow" in config.option.markexpr and "GRAPHC_BACKEND" not in os.environ
    settings.load_profile("some" if cheap else "the same everywhere")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collecting makes many objects that stay: the search for garbage would go through them all."""
    collector.disable()
    try:
        yield
    finally:
        collector.freeze()
        collector.set_threshold(10_000)  # most of what a test makes ends with it, without a search
        collector.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Every other worker begins at the end: of a new clone's files each compiles half."""
    report = yield
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    if isinstance(collector, pytest.Directory) and int(worker[2:]) % 2:
        report.result.reverse()
    return report


def _makes_some(config: pytest.Config) -> bool:
    """Return whether slow tests would only be left out, none of which is asked for by its name."""
    return "not slow" in config.option.markexpr and not any("::" in arg for arg in config.args)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Make no items of cases that only would be left out: they are nearly half of all."""
    yield
    calls = metafunc._calls
    if not calls or not _makes_some(metafunc.config):
        return
    mark = metafunc.definition.get_closest_marker("one_in")
    some = calls[:: mark.args[0]] if mark else calls
    quick = [call for call in some if all(mark.name != "slow" for mark in call.marks)]
    metafunc._calls = quick or calls[:1]  # without any, it would be a test without parameters


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module, obj: object) -> list[pytest.Item] | None:
    """Make no items of slow tests that only would be left out: they are a third of all."""
    if not _makes_some(collector.config):
        return None
    marks = getattr(obj, "pytestmark", []) if isinstance(obj, FunctionType | type) else []
    slow = any(mark.name == "slow" for mark in marks) or collector.get_closest_marker("slow")
    return [] if slow else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow, or as campaign, what `one_in` leaves out, before tests are picked or left."""
    items.sort(key=lambda item: item.path)  # in all workers alike
    met: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("one_in")
        if mark is None or _makes_some(item.config):
            continue
        test = item.nodeid.partition("[")[0]
        if met[test] % mark.args[0]:
            if item.get_closest_marker("slow") is None:
                item.add_marker(pytest.mark.slow)
            else:
                item.own_markers = [m for m in item.own_markers if m.name != "slow"]
                item.add_marker(pytest.mark.campaign)
        met[test] += 1
    for item in _left_out(items):
        item.add_marker(pytest.mark.slow)


def _left_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """Most cases on native code, drawn by name, of the tests that run on other backends, too."""
    backends: dict[str, dict[pytest.Item, object]] = {}
    for item in items:
        case = getattr(item, "callspec", None)
        if case and "backend" in case.params and not any(map(item.get_closest_marker, OTHERS)):
            test = item.nodeid.partition("[")[0]
            backends.setdefault(test, {})[item] = case.params["backend"]
    return [
        item
        for cases in backends.values()
        for item, backend in cases.items()
        if backend == "native"
        and {*cases.values()} - {"native"}
        and not item.path.relative_to(TESTS).as_posix().startswith(ABOUT_CODE)
        and crc32(item.nodeid.encode()) % ON_NATIVE
    ]


@pytest.hookimpl(wrapper=True, trylast=True)  # what pytest does before, its teardown undoes
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Skip a test whose mark `needs` names what is missing."""
    for what in ASKED_FOR:
        missing(what)  # before a test can hide it
    for mark in item.iter_markers("needs"):
        needs(*mark.args)
    with skipped_where_missing():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip a test that ends because it asks for what is missing."""
    with skipped_where_missing():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One new folder for compiled objects, for this run with all the processes that it starts."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers share it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE", str(folder / "objects"))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """What tests write need not last: waiting until it is on a disk is half of the time of some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def memory_is_poisoned() -> Iterator[None]:
    """No result depends on bytes that nothing has written, or that an earlier run has left."""
    with poisoned_memory():
        yield


@pytest.fixture(scope="module", autouse=True)
def cheap_code(request: pytest.FixtureRequest) -> Iterator[None]:
    """NumPy for tests that ask for no backend, and code that is not optimized, where it may be.

    Unless GRAPHC_BACKEND is set; with slow tests all code is optimized.
    """
    with pytest.MonkeyPatch.context() as patch:
        place = request.path.relative_to(TESTS).as_posix()
        chosen = "GRAPHC_BACKEND" in os.environ
        if place.startswith(ABOVE_BACKENDS) and not chosen:
            patch.setenv("GRAPHC_BACKEND", "numpy")
        cheap = not chosen and "not slow" in request.config.option.markexpr
        if cheap and not place.startswith(OPTIMIZED):
            patch.setitem(target.CODEGEN, "opt", 0)
            flags = tuple("-O0" if flag == "-O2" else flag for flag in c_backend.FLAGS)
            patch.setattr(c_backend, "FLAGS", flags)
            patch.setattr(c_backend, "compiled", cache(c_backend.compiled.__wrapped__))
        yield


@pytest.fixture(scope="session", autouse=True)
def programs_are_verified(request: pytest.FixtureRequest) -> Iterator[None]:
    """What tests compile in this process is proved to be sound on its memory."""
    among = PROVED if "not slow" in request.config.option.markexpr else 1
    unverified = program.build_program

    @wraps(unverified)
    def build_program(
        name: str,
        graph: Graph,
        capacity: int,
        backend: str,
        forms: Forms | None = None,
        **options: Any,
    ) -> Program:
        built = unverified(name, graph, capacity, backend, forms, **options)
        own = options.get("planner") or options.get("scheduler")  # which tests may get wrong
        own = own or options.get("keeps")  # values live longer than they are used
        if own or capacity >= NOBODYS or (len(graph) + capacity) % among:
            return built
        proof = built.verify()
        assert proof.ok, proof.counterexample
        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "build_program", build_program)
        patch.setattr(driver, "build_program", build_program)
        yield
