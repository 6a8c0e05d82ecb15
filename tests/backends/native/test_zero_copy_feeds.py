"""Arrays that native code reads where they lie, and those that are converted or refused."""

from __future__ import annotations

import gc as garbage
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import backend, feeds, pool
from graphc.backends.native.target import available

pytestmark = pytest.mark.needs("native")
ROWS, WIDTH, CLASSES = 8, 6, 5
Feeds = dict[str, Any]


def declared() -> gc.Net:
    """Scores from x, weighted by a fixed input; labels for the loss."""
    net = gc.Net("direct")
    x = net.input("x", (gc.N, WIDTH))
    scale = net.input("scale", (WIDTH,))
    y = net.input("y", (gc.N,), dtype="int64")
    scores = gc.affine(gc.relu(gc.affine(x * scale, 16)), CLASSES)
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


NET = declared()
PLANS = {
    backend: gc.compile(
        NET, batch=ROWS, optimizer=gc.SGD(lr=0.1, momentum=0.9), backend=backend, threads=threads
    )
    for backend, threads in (("numpy", None), ("native", 1))
    if backend == "numpy" or available() is None
}


def usual(rows: int = ROWS, seed: int = 0) -> Feeds:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((rows, WIDTH)).astype(np.float32),
        "scale": rng.standard_normal(WIDTH).astype(np.float32),
        "y": rng.integers(0, CLASSES, rows),
    }


def executor(backend: str = "native") -> gc.Executor:
    """One that has seen all programs and all names that these tests feed."""
    ex = gc.Executor(PLANS[backend], seed=3)
    feeds = usual()
    ex.step(**feeds)
    ex.forward(**feeds)
    ex.forward(x=feeds["x"], scale=feeds["scale"])
    return ex


def by_address(ex: gc.Executor, feeds: Feeds, program: str = "step") -> bool:
    """Whether these feeds are read where they lie."""
    return ex._zero_copy[program].ready(feeds) is not None


def outcome(ex: gc.Executor, feeds: Feeds) -> tuple[float | str, dict[str, Any] | str]:
    """What a step and a forward pass give: numbers, or words."""
    found: list[Any] = []
    for run in (ex.step, ex.forward):
        try:
            found.append(run(**feeds))
        except gc.GraphError as error:
            found.append(str(error))
    return found[0], found[1]


# ---------------------------------------------------------------- unusual feeds

UNUSUAL: dict[str, Callable[[Feeds], Feeds]] = {}
REFUSED: dict[str, Callable[[Feeds], Feeds]] = {}


def unusual(change: Callable[[Feeds], Feeds]) -> Callable[[Feeds], Feeds]:
    UNUSUAL[change.__name__] = change
    return change


def refused(change: Callable[[Feeds], Feeds]) -> Callable[[Feeds], Feeds]:
    REFUSED[change.__name__] = change
    return change


class Special(np.ndarray):
    """A subclass without anything of its own."""


def misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    found = raw[1:].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


@unusual
def float64(f: Feeds) -> Feeds:
    return f | {"x": f["x"].astype(np.float64)}


@unusual
def int32_labels(f: Feeds) -> Feeds:
    return f | {"y": f["y"].astype(np.int32)}


@unusual
def longlong_labels(f: Feeds) -> Feeds:
    return f | {"y": f["y"].astype(np.longlong)}


@unusual
def fortran_order(f: Feeds) -> Feeds:
    return f | {"x": np.asfortranarray(f["x"])}


@unusual
def strided_rows(f: Feeds) -> Feeds:
    return f | {"x": np.repeat(f["x"], 2, axis=0)[::2]}


@unusual
def strided_columns(f: Feeds) -> Feeds:
    return f | {"x": np.repeat(f["x"], 3, axis=1)[:, ::3]}


@unusual
def strided_labels(f: Feeds) -> Feeds:
    return f | {"y": np.repeat(f["y"], 2)[::2]}


@unusual
def backwards(f: Feeds) -> Feeds:
    return f | {"x": f["x"][::-1]}


@unusual
def repeated_row(f: Feeds) -> Feeds:
    return f | {"x": np.broadcast_to(f["x"][0], f["x"].shape)}


@unusual
def subclass(f: Feeds) -> Feeds:
    return f | {"x": f["x"].view(Special)}


@unusual
def nested_lists(f: Feeds) -> Feeds:
    return {name: array.tolist() for name, array in f.items()}


@unusual
def misaligned_floats(f: Feeds) -> Feeds:
    return f | {"x": misaligned(f["x"])}


@unusual
def misaligned_labels(f: Feeds) -> Feeds:
    return f | {"y": misaligned(f["y"])}


@unusual
def swapped_bytes(f: Feeds) -> Feeds:
    return f | {"x": f["x"].astype(">f4"), "y": f["y"].astype(">i8")}


@unusual
def dtype_with_metadata(f: Feeds) -> Feeds:
    return f | {"x": f["x"].astype(np.dtype(np.float32, metadata={"unit": "m"}))}


@unusual
def masked_array(f: Feeds) -> Feeds:
    return f | {"x": np.ma.masked_array(f["x"])}


@refused
def no_rows(f: Feeds) -> Feeds:
    return f | {"x": f["x"][:0], "y": f["y"][:0]}


@refused
def too_many_rows(f: Feeds) -> Feeds:
    return f | {"x": np.repeat(f["x"], 2, axis=0), "y": np.repeat(f["y"], 2)}


@refused
def disagreeing_batches(f: Feeds) -> Feeds:
    return f | {"y": f["y"][:-1]}


@refused
def another_width(f: Feeds) -> Feeds:
    return f | {"x": f["x"][:, :-1].copy()}


@refused
def another_fixed_shape(f: Feeds) -> Feeds:
    return f | {"scale": f["scale"][:-1]}


@refused
def another_rank(f: Feeds) -> Feeds:
    return f | {"x": f["x"][None]}


@refused
def rank_zero(f: Feeds) -> Feeds:
    return f | {"y": np.int64(1) * np.ones((), np.int64)}


@refused
def negative_label(f: Feeds) -> Feeds:
    return f | {"y": np.where(np.arange(len(f["y"])) == 6, -1, f["y"])}


@refused
def label_at_the_bound(f: Feeds) -> Feeds:
    return f | {"y": np.where(np.arange(len(f["y"])) == 0, CLASSES, f["y"])}


@refused
def huge_label(f: Feeds) -> Feeds:
    return f | {"y": np.where(np.arange(len(f["y"])) == 7, 2**62, f["y"])}


@refused
def none(f: Feeds) -> Feeds:
    return f | {"scale": None}


@refused
def unknown(f: Feeds) -> Feeds:
    return f | {"z": f["x"]}


@refused
def another_name(f: Feeds) -> Feeds:
    return {"z" if name == "scale" else name: array for name, array in f.items()}


@refused
def missing(f: Feeds) -> Feeds:
    return {"y": f["y"], "scale": f["scale"]}


@refused
def boolean(f: Feeds) -> Feeds:
    return f | {"y": f["y"] > 2}


@refused
def complex_numbers(f: Feeds) -> Feeds:
    return f | {"x": f["x"] * 1j}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_gives_the_same_as_its_usual_form(name: str) -> None:
    ex, twin, numpy = executor(), executor(), executor("numpy")
    for seed in range(3):
        plain = usual(ROWS - seed, seed)
        feeds = UNUSUAL[name](plain)
        clean = {
            name: np.array(np.asarray(value).tolist(), plain[name].dtype)
            for name, value in feeds.items()
        }
        assert not by_address(ex, feeds)
        assert by_address(twin, clean)
        (loss, out), (same_loss, same), (_, close) = (
            outcome(some, fed) for some, fed in ((ex, feeds), (twin, clean), (numpy, feeds))
        )
        assert loss == same_loss
        assert isinstance(out, dict) and isinstance(same, dict) and isinstance(close, dict)
        assert np.array_equal(out["scores"], same["scores"])
        np.testing.assert_allclose(out["scores"], close["scores"], rtol=1e-4, atol=1e-5)
        assert ex.step(**plain) == twin.step(**plain)
        numpy.step(**plain)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_in_the_same_words(name: str) -> None:
    ex, twin, numpy = executor(), executor(), executor("numpy")
    feeds = REFUSED[name](usual())
    if tuple(feeds) in ex._zero_copy["step"]:
        assert not by_address(ex, feeds)
    found, expected = [outcome(some, feeds) for some in (ex, numpy)]
    assert isinstance(found[0], str)
    assert found == expected
    assert ex.step(**usual()) == twin.step(**usual())
    assert ex.parameters.flat().tobytes() == twin.parameters.flat().tobytes()


def test_the_first_run_refuses_as_later_ones_do() -> None:
    for change in REFUSED.values():
        runs = [gc.Executor(PLANS[backend], seed=3) for backend in ("native", "numpy")]
        found, expected = [outcome(ex, change(usual())) for ex in runs]
        assert found == expected


def test_feeds_in_a_mapping_and_by_name() -> None:
    ex, twin = executor(), executor()
    feeds = usual()
    assert ex.step(feeds) == twin.step(**feeds)
    assert ex.step({"x": feeds["x"]}, y=feeds["y"], scale=feeds["scale"]) == twin.step(**feeds)
    # A name given twice: the keyword counts.
    wrong = feeds | {"y": feeds["y"] - 9}
    assert ex.step(wrong, y=feeds["y"]) == twin.step(**feeds)
    with pytest.raises(gc.FeedError, match="feeds are given by name, not as list"):
        ex.step([feeds["x"]])  # type: ignore[arg-type]


# ---------------------------------------------------------------- read where they lie


def swap_in(ex: gc.Executor, program: str, n: int, act: Callable[[], object]) -> list[Any]:
    """Let `act` happen between the check of a run and the run itself; the run's calls."""
    bound = ex._binder.layout(ex.plan.programs[program], n, frozenset())
    object.__setattr__(bound, "only_call", None)  # else the run would not look at its calls
    calls: list[Any] = bound.calls
    calls.insert(0, act)
    return calls


def test_a_step_reads_the_users_array_itself() -> None:
    ex, twin = executor(), executor()
    feeds, other = usual(), usual(seed=1)

    def change() -> None:
        feeds["x"][...] = other["x"]
        feeds["scale"][...] = other["scale"]
        feeds["y"][...] = other["y"]

    calls = swap_in(ex, "step", ROWS, change)
    loss = ex.step(**feeds)
    del calls[0]
    assert loss == twin.step(**other)


def test_a_forward_pass_reads_the_users_array_itself() -> None:
    ex, twin = executor(), executor()
    feeds, other = usual(), usual(seed=1)
    swap_in(ex, "infer", ROWS, lambda: np.copyto(feeds["x"], other["x"]))
    expected = twin.forward(**feeds | {"x": other["x"].copy()})
    assert ex.forward(**feeds)["scores"].tobytes() == expected["scores"].tobytes()


def test_forward_for_backward_keeps_what_it_was_fed() -> None:
    ex, twin = executor(), executor()
    feeds = usual()
    ex.forward(**feeds, train=True)
    twin.forward(**feeds, train=True)
    for array in feeds.values():
        array[...] = 0
    gradients, expected = ex.backward(), twin.backward()
    feeds = usual()
    assert all(gradients[name].tobytes() == expected[name].tobytes() for name in expected)


def test_no_step_makes_memory_for_arrays() -> None:
    net = gc.Net("wide")
    x, y = net.input("x", (gc.N, 8192)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(x, 3), y))
    plan = gc.compile(net, batch=16, optimizer=gc.SGD(lr=0.1), backend="native", threads=1)
    ex = gc.Executor(plan, seed=0)
    feeds = {"x": np.ones((16, 8192), np.float32), "y": np.arange(16) % 3}
    for _ in range(3):
        ex.step(**feeds)
    tracemalloc.start()
    try:
        ex.step(**feeds)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        ex.step(**feeds)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 4096


@pytest.mark.slow
def test_arrays_that_come_and_go() -> None:
    ex, twin = executor(), executor()
    for seed in range(40):
        feeds = usual(1 + seed % ROWS, seed)
        expected = twin.step(**{name: array.tolist() for name, array in feeds.items()})
        assert by_address(ex, feeds)
        assert ex.step(**feeds) == expected
        del feeds  # freed at once; what is found only by a search, now and then
        if seed % 10 == 0:
            garbage.collect()


def test_an_array_that_is_resized() -> None:
    ex, twin = executor(), executor()
    feeds = usual()
    assert ex.step(**feeds) == twin.step(**usual())
    small = {"x": feeds["x"][:2].copy(), "scale": feeds["scale"], "y": feeds["y"][:2].copy()}
    feeds["x"].resize((2, WIDTH), refcheck=False)
    feeds["y"].resize((2,), refcheck=False)
    assert ex.step(**feeds) == twin.step(**small)
    feeds["x"].resize((2, WIDTH + 1), refcheck=False)
    with pytest.raises(gc.FeedError, match="has shape"):
        ex.step(**feeds)


def test_read_only_arrays_and_slices_of_a_data_set() -> None:
    ex, twin = executor(), executor()
    data = usual(20, 5)
    for array in data.values():
        array.flags.writeable = False
    for start in range(0, 20, ROWS):
        part = {name: array[start : start + ROWS] for name, array in data.items()}
        part["scale"] = data["scale"]
        assert by_address(ex, part)
        copies = {name: array.tolist() for name, array in part.items()}
        assert ex.step(**part) == twin.step(**copies)


def test_memory_mapped_arrays(tmp_path: Path) -> None:
    ex, twin = executor(), executor()
    feeds = usual()
    feeds["x"].tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=(ROWS, WIDTH))
    plain = np.asarray(mapped)
    assert not by_address(ex, feeds | {"x": mapped})
    assert by_address(ex, feeds | {"x": plain})
    assert ex.step(**feeds | {"x": mapped}) == twin.step(**feeds)
    assert ex.step(**feeds | {"x": plain}) == twin.step(**feeds)


def test_batch_sizes_and_ways_in_take_turns() -> None:
    ex, twin = executor(), executor()
    rng = np.random.default_rng(0)
    for seed in range(60):
        feeds = usual(int(rng.integers(1, ROWS + 1)), seed)
        lists = {name: array.tolist() for name, array in feeds.items()}
        odd = feeds | {"x": np.asfortranarray(feeds["x"])}
        fed = (feeds, lists, odd)[rng.integers(3)]
        assert ex.step(**fed) == twin.step(**lists)
        if seed % 3:
            fed.pop("y")
            lists.pop("y", None)
        found, expected = ex.forward(**fed), twin.forward(**lists)
        assert found.keys() == expected.keys()
        assert all(found[name].tobytes() == expected[name].tobytes() for name in found)
        assert all(np.array_equal(ex.values[name], found[name]) for name in found)


def test_more_batch_sizes_than_stay_bound() -> None:
    net = gc.Net("many")
    net.output("out", gc.relu(net.input("x", (gc.N, 2))))
    ex = gc.Executor(gc.compile(net, batch=200, backend="native"))
    for n in [*range(1, 201), *range(1, 201)]:
        x = np.full((n, 2), n, np.float32)
        assert np.array_equal(ex.forward(x=x)["out"], x)


# ---------------------------------------------------------------- the executor's own memory


def recurrent() -> gc.Executor:
    net = gc.Net("recurrent")
    h = net.input("h", (gc.N, 32))
    for _ in range(3):
        h = gc.tanh(gc.affine(h, 32))
    net.output("next", h)
    return gc.Executor(gc.compile(net, batch=4, backend="native"), seed=1)


def test_views_of_results_are_fed_back() -> None:
    ex, twin = recurrent(), recurrent()
    h = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    view, copy = h, h
    for _ in range(6):
        view = ex.forward(h=view, copy=False)["next"]
        copy = twin.forward(h=copy)["next"]
        assert view.tobytes() == copy.tobytes()
        assert not by_address(ex, {"h": view}, "infer")
        assert by_address(twin, {"h": copy}, "infer")


def test_an_input_that_is_an_output() -> None:
    net = gc.Net("through")
    x = net.input("x", (gc.N, 3))
    net.output("same", x)
    net.output("flat", gc.reshape(x, (gc.N, 3, 1)))
    net.output("twice", x + x)
    ex = gc.Executor(gc.compile(net, batch=4, backend="native"))
    for n in (4, 2, 2, 4):
        x = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)
        found = ex.forward(x=x)
        assert np.array_equal(found["same"], x)
        assert np.array_equal(found["flat"][..., 0], x)
        assert np.array_equal(found["twice"], x + x)


def test_an_input_that_numpy_reads() -> None:
    net = gc.Net("called")
    x, z = net.input("x", (gc.N, 3, 4)), net.input("z", (gc.N, 3, 4))
    net.output("out", gc.cumsum(x, axis=2) * z)
    plan = gc.compile(net, batch=4, backend="native")
    kinds = {instr.kind for instr in plan.programs["infer"].instrs}
    assert kinds == {"call", "kernel"}  # otherwise this test is about nothing
    ex = gc.Executor(plan)
    rng = np.random.default_rng(0)
    for n in (4, 2, 2, 3, 4):
        x, z = rng.standard_normal((2, n, 3, 4)).astype(np.float32)
        assert np.array_equal(ex.forward(x=x, z=z)["out"], x.cumsum(2) * z)
        odd = ex.forward(x=x[::-1], z=z)["out"]
        assert np.array_equal(odd, x[::-1].cumsum(2) * z)


def test_an_input_that_a_program_only_knows_the_name_of() -> None:
    net = gc.Net("unread")
    x, net_y = net.input("x", (gc.N, 3)), net.input("y", (gc.N, 3))
    net.output("out", gc.relu(x))
    net.loss("loss", gc.mse_loss(gc.affine(x, 3), net_y))
    frozen = gc.freeze(gc.Executor(gc.compile(net, batch=4, backend="native")), batch=4)
    x = np.ones((2, 3), np.float32)
    for y in (x, x, None, x):
        assert np.array_equal(frozen.forward(x=x, y=y)["out"], x)
    assert by_address(frozen, {"x": x, "y": x}, "infer")


def test_integers_below_a_bound() -> None:
    for count in (1, 2, 15, 16, 17, 40):
        net = gc.Net("bounded")
        y = net.input("y", (gc.N,), dtype="int32")
        net.output("out", gc.one_hot(y, 3))
        program = gc.compile(net, batch=count, backend="native").programs["infer"]
        table = np.zeros(4, np.uint64)
        take = feeds.bind_feeds(program, program.feeds, {"y": 1}, table, [], program.capacity)
        labels = np.arange(count, dtype=np.int32) % 3
        assert take({"y": labels}) == count
        assert table.tolist() == [0, labels.ctypes.data, 0, 0]
        for bad in (-1, 3, 2**31 - 1, -(2**31)):
            for place in range(count):
                wrong = labels.copy()
                wrong[place] = bad
                assert take({"y": wrong}) is None
                assert take({"y": wrong[:place]}) == (place or None)


def test_the_check_takes_a_dict() -> None:
    table = np.zeros(4, np.uint64)
    program = PLANS["native"].programs["step"]
    take = feeds.bind_feeds(program, {"x": program.feeds["x"]}, {"x": 1}, table, [], 4)
    for other in (None, 3, [1], {}, {1: 2}, {"x": 1, "y": 2}):
        assert take(other) is None  # type: ignore[arg-type]


def test_another_layout_of_arrays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert feeds.readable()
    for name in ("data", "ndim", "descr", "flags", "dimensions"):
        with monkeypatch.context() as changed:
            changed.setitem(feeds.ARRAY, name, (feeds.ARRAY[name][0], 40))
            assert not feeds.readable.__wrapped__()


def test_without_addresses_all_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = executor()
    monkeypatch.setattr(backend, "readable", lambda: False)
    ex = executor()
    assert not ex._zero_copy["step"]
    assert ex.step(**usual()) == twin.step(**usual())


# ---------------------------------------------------------------- threads and failures


def test_twenty_four_executors_in_as_many_threads() -> None:
    def train(number: int) -> tuple[list[float], bytes]:
        ex = gc.Executor(PLANS["native"], seed=number)
        losses = [ex.step(**usual(1 + i % ROWS, 100 * number + i)) for i in range(40)]
        return losses, ex.forward(**usual())["scores"].tobytes()

    expected = [train(number) for number in range(24)]
    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(train, range(24))) == expected


def test_programs_of_several_threads(four_threads: pool.Pool) -> None:
    net = gc.Net("wide")
    x, y = net.input("x", (gc.N, 64)), net.input("y", (gc.N,), dtype="int64")
    net.loss("loss", gc.softmax_loss(gc.affine(gc.relu(gc.affine(x, 64)), 10), y))
    optimizer = gc.SGD(lr=0.1)
    plans = [
        gc.compile(net, batch=64, optimizer=optimizer, backend="native", threads=threads)
        for threads in (4, 1)
    ]
    ex, twin = (gc.Executor(plan, seed=0) for plan in plans)
    rng = np.random.default_rng(0)
    for n in (64, 64, 33, 64, 1, 64):
        feeds = {"x": rng.standard_normal((n, 64)).astype(np.float32), "y": rng.integers(0, 10, n)}
        assert ex.step(**feeds) == twin.step(**{k: v.tolist() for k, v in feeds.items()})
    assert by_address(ex, feeds)
    assert four_threads.workers == 3


def test_executors_of_one_state_take_turns() -> None:
    ex = executor()
    others = [gc.Executor(ex.plan, state=ex.state) for _ in range(4)]
    before = int(ex.state["updates"])
    feeds = usual()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda some: [some.step(**feeds) for _ in range(50)], others))
    assert int(ex.state["updates"]) == before + 200


@pytest.mark.parametrize("program", ["step", "infer"])
def test_one_executor_is_refused_to_a_second_thread(program: str) -> None:
    ex = executor()
    feeds = usual()
    run = ex.step if program == "step" else ex.forward
    inside, go = threading.Event(), threading.Event()
    calls = swap_in(ex, program, ROWS, lambda: (inside.set(), go.wait(20)))
    first = threading.Thread(target=run, kwargs=feeds)
    first.start()
    assert inside.wait(20)
    for again in (ex.step, ex.forward):
        with pytest.raises(gc.StateError, match="running in another thread"):
            again(**feeds)
    go.set()
    first.join()
    del calls[0]
    run(**feeds)


def test_a_step_that_fails_half_way_breaks_the_state() -> None:
    ex = executor()
    saved = dict(ex.state)
    feeds = usual()
    calls = swap_in(ex, "step", ROWS, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        ex.step(**feeds)
    del calls[0]
    for run in (ex.step, ex.forward):
        with pytest.raises(gc.StateError, match="failed half-way"):
            run(**feeds)
    ex.state = saved
    assert ex.step(**feeds) == executor().step(**feeds)


def test_inference_that_fails_leaves_the_state() -> None:
    ex = executor()
    feeds = usual()
    calls = swap_in(ex, "infer", ROWS, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        ex.forward(**feeds)
    del calls[0]
    assert ex.step(**feeds) == executor().step(**feeds)


def test_a_step_discards_what_backward_would_need() -> None:
    ex = executor()
    feeds = usual()
    for run in (ex.step, ex.forward):
        ex.forward(**feeds, train=True)
        run(**feeds)
        with pytest.raises(gc.StateError, match="no forward pass"):
            ex.backward()


def test_steps_that_accumulate() -> None:
    plans = [
        gc.compile(NET, batch=ROWS, optimizer=gc.SGD(lr=0.1, accumulate=3), backend=backend)
        for backend in ("native", "native", "numpy")
    ]
    ex, twin, numpy = (gc.Executor(plan, seed=2) for plan in plans)
    for seed in range(7):
        feeds = usual(ROWS, seed)
        lists = {name: array.tolist() for name, array in feeds.items()}
        loss = ex.step(**feeds)
        assert loss == twin.step(**lists)
        np.testing.assert_allclose(loss, numpy.step(**feeds), rtol=1e-4)
        assert np.array_equal(ex.values["scores"], twin.values["scores"])
    assert by_address(ex, feeds, "accumulate")
    assert int(ex.state["updates"]) == 2


def test_several_losses_are_summed() -> None:
    net = gc.Net("two")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N, 3))
    h = gc.affine(x, 3)
    net.loss("first", gc.mse_loss(h, y))
    net.loss("second", gc.mean(h * h))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="native"))
    x = np.ones((4, 3), np.float32)
    for _ in range(3):
        loss = ex.step(x=x, y=x)
        assert loss == float(sum(ex.values[name] for name in ("first", "second")))
