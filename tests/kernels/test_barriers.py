"""Threads wait where one would touch what another does, and nowhere else.

The oracle looks at single elements.  Each way of sharing a kernel has threads of its own, one for
each row or column: a thread of rows is none of columns, and the columns of two matrix products are
shared differently.  So two kernels may run without a barrier between them if no element that one
of them writes is touched by two threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.compiler.lowering import kernel_instr
from graphc.ir.access import AccessMap, dense_maps
from graphc.ir.expr import Axis, BodyBuilder, Broadcast
from graphc.ir.forms import Window
from graphc.kernels import barriers
from graphc.kernels.barriers import BARRIER, SPARING_BYTES, WAITING_BYTES, Barriers
from graphc.kernels.duration import microseconds
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm, Loop, Partition
from graphc.kernels.program import Instr

COLUMNS = {2: 8, 4: 4, 8: 2}
"""Matrices have 16 elements; kernels take them for so many rows of so many columns."""
BYTES = {"a": 0, "b": 30_000, "c": 40_000, "d": 64 * 1024}
"""The matrices, and the bytes of the arena that each keeps."""
WINDOW = Window((4, 4), 1, (2, 2), (2, 2), (2, 2), (1, 1), (0, 0), (1, 1))


class Use(NamedTuple):
    """A buffer that a kernel reads or writes at each element, or gathers."""

    buffer: str
    broadcast: Broadcast
    gathered: bool = False


class Piece(NamedTuple):
    """A kernel, or a call if it has no partition."""

    name: str
    partition: Partition | None
    reads: tuple[Use, ...] = ()
    writes: tuple[Use, ...] = ()
    rows: int = 4
    axis: Axis = "columns"
    factors: tuple[str, str] | None = None
    trans_a: bool = False
    window: bool = False

    @property
    def instr(self) -> Instr:
        names = (tuple(use.buffer for use in self.reads), tuple(use.buffer for use in self.writes))
        if self.partition is None:
            return Instr("call", self.name, None, *names, self.name)
        b = BodyBuilder()
        total = b.const(0.0, "float32") if self.factors is None else b.product("float32")
        for use in self.reads:
            if use.gathered:
                total = total + b.fetch(use.buffer, AccessMap(tuple(dense_maps((4, 4)))), "float32")
            else:
                total = total + b.load(use.buffer, use.broadcast, "float32")
        for use in self.writes:
            b.store(total, use.buffer, use.broadcast)
        body, columns = b.body(), COLUMNS[self.rows]
        if self.factors is None:
            loop = Loop(self.rows, columns, self.axis, body, self.partition)
            return kernel_instr(loop, (self.name,))
        sides = (self.trans_a, False)
        fields = (4, 4, 4, *self.factors, *sides, "float32", body, self.partition)
        gemm = Gemm(*fields)
        if self.partition == "matrices":
            strides = (4,)
            out = (strides,) * len(body.stores)
            gemm = BatchedGemm(
                *fields, sizes=(4,), strides_a=strides, strides_b=strides, strides_out=out
            )
        elif self.window:
            gemm = Convolution(*fields, window=WINDOW)
        return kernel_instr(gemm, (self.name,))

    def touches(self) -> Iterator[tuple[str, int, object, bool]]:
        """The memory, the element, the thread, and whether it writes."""
        rows, columns = self.rows, COLUMNS[self.rows]
        for i, j in product(range(rows), range(columns)):
            at = {"each": i * columns + j, "row": i, "column": j, "one": 0}
            for use in self.reads:
                if use.gathered:  # by any thread, even where one alone does it
                    yield from ((memory(use.buffer), e, self.name, False) for e in range(16))
                else:
                    yield memory(use.buffer), at[use.broadcast], self.thread(i, j), False
            for use in self.writes:
                yield memory(use.buffer), at[use.broadcast], self.thread(i, j), True
            for p in range(4) if self.factors else ():
                a, b = map(memory, self.factors or ())
                met = range(16) if self.window else [p * 4 + i if self.trans_a else i * 4 + p]
                yield from ((a, e, self.thread(i, j), False) for e in met)
                yield b, p * 4 + j, self.thread(i, j), False

    def thread(self, i: int, j: int) -> object:
        if self.partition == "rows":
            return "rows", self.rows, i
        if self.partition == "columns":
            way = f"columns along {self.axis}" if self.factors is None else self.name
            return way, COLUMNS[self.rows], j
        return (self.name, i, j) if self.partition == "matrices" else "first"


def memory(name: str) -> str:
    """A name with a mark is another one of the same memory."""
    return name.rstrip("'")


def nbytes(name: str) -> int:
    return BYTES.get(memory(name), 0)


def arranged(
    pieces: Sequence[Piece], boundary: int | None = None, most: int = SPARING_BYTES
) -> Barriers:
    instrs = [piece.instr for piece in pieces]
    end = len(instrs) if boundary is None else boundary
    return Barriers(instrs, end, memory, nbytes, 1, most)


def shown(found: Barriers) -> str:
    """The names in order, with | for a barrier."""
    names = [instr.node or "|" for instr in found.instrs]
    return " ".join(names)


@cache
def touched(piece: Piece) -> frozenset[tuple[str, int, object, bool]]:
    return frozenset(piece.touches())


def clash(a: Sequence[Piece], b: Sequence[Piece]) -> bool:
    """Whether an element is touched by two threads, one of which writes it."""
    threads: dict[tuple[str, int], set[tuple[object, bool]]] = {}
    for piece in a:
        for name, element, thread, writes in touched(piece):
            threads.setdefault((name, element), set()).add((thread, writes))
    return any(
        thread != other and (writes or wrote)
        for piece in b
        for name, element, thread, writes in touched(piece)
        for other, wrote in threads.get((name, element), ())
    )


# ---------------------------------------------------------------- any program

VECTORS: dict[Broadcast, dict[int, str]] = {
    "row": {2: "two", 4: "four", 8: "eight"},
    "column": {2: "eight", 4: "four", 8: "two"},
    "one": dict.fromkeys(COLUMNS, "scalar"),
}


def uses(rows: int, *broadcasts: Broadcast, gathered: bool = False) -> st.SearchStrategy[Use]:
    matrices = [Use(name + mark, "each") for name in BYTES for mark in ("", "'")]
    vectors = [
        Use(VECTORS[broadcast][rows], broadcast) for broadcast in broadcasts if broadcast != "each"
    ]
    fetched = [Use(name, "each", True) for name in BYTES] if gathered else []
    return st.sampled_from([*(matrices if "each" in broadcasts else ()), *vectors, *fetched])


STORED: dict[str, tuple[Broadcast, ...]] = {
    "rows": ("each", "row"),
    "columns": ("each", "column"),
    "none": ("each", "row", "column", "one"),
    "matrices": ("each",),
}


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    partition = draw(
        st.sampled_from(["rows", "rows", "columns", "columns", "none", "matrices", None])
    )
    is_product = partition not in ("none", None) and draw(st.booleans())
    rows = 4 if is_product else draw(st.sampled_from(sorted(COLUMNS)))
    reads = uses(rows, "each", "row", "column", "one", gathered=not is_product)
    names = st.tuples(st.sampled_from([*BYTES]), st.sampled_from([*BYTES]))
    piece = Piece(
        "",
        partition,
        tuple(draw(st.lists(reads, max_size=2, unique=True))),
        tuple(draw(st.lists(uses(rows, *STORED[partition or "none"]), min_size=1, max_size=2))),
        rows,
        draw(st.sampled_from(["rows", "columns"])),
    )
    if is_product:
        piece = piece._replace(
            factors=draw(names), trans_a=draw(st.booleans()), window=draw(st.booleans())
        )
    return piece


@settings(max_examples=50)
@given(st.lists(pieces(), min_size=1, max_size=9), st.integers(0, 10))
def test_any_program(drawn: list[Piece], boundary: int) -> None:
    program = [piece._replace(name=f"{i}") for i, piece in enumerate(drawn)]
    found = arranged(program, boundary)
    known = {piece.name: piece for piece in program}
    order = [known.get(instr.node) for instr in found.instrs]
    places = {piece.name: i for i, piece in enumerate(order) if piece is not None}
    assert sorted(places) == sorted(known)
    assert len(found.epochs) == len(found.instrs)
    _in_order(program, places)
    _forward_first(program, boundary, found, places)
    _safe(order, found.epochs)
    _needed(order, found)
    _hardly_late(program, places)


def _in_order(program: Sequence[Piece], places: dict[str, int]) -> None:
    """Who reads or overwrites what another wrote still does so after it."""
    for a, b in combinations(program, 2):
        wrote, writes = ({memory(use.buffer) for use in piece.writes} for piece in (a, b))
        touched, touches = ({memory(use.buffer) for use in p.reads} for p in (a, b))
        touched |= wrote | set(map(memory, a.factors or ()))
        touches |= writes | set(map(memory, b.factors or ()))
        if wrote & touches or writes & touched:
            assert places[a.name] < places[b.name]


def _forward_first(
    program: Sequence[Piece], boundary: int, found: Barriers, places: dict[str, int]
) -> None:
    for i, piece in enumerate(program):
        assert (places[piece.name] < found.boundary) == (i < boundary)
    if 0 < boundary < len(program):  # they are run by themselves
        assert found.epochs[found.boundary - 1] < found.epochs[found.boundary]
    assert found.boundary <= len(found.instrs)


def _safe(order: Sequence[Piece | None], epochs: Sequence[int]) -> None:
    """Within an epoch no element is anybody else's; calls have one for themselves."""
    assert list(epochs) == sorted(epochs)
    for epoch in set(epochs):
        some = [p for p, e in zip(order, epochs, strict=True) if e == epoch and p is not None]
        assert len(some) == 1 or all(piece.partition for piece in some)
        assert not any(clash([a], [b]) for a, b in combinations(some, 2))


def _needed(order: Sequence[Piece | None], found: Barriers) -> None:
    """Without a barrier the epochs around it could not be one."""
    for i, instr in enumerate(found.instrs):
        if instr is BARRIER:
            epoch = found.epochs[i]
            before, after = (
                [p for p, e in zip(order, found.epochs, strict=True) if e == epoch + k and p]
                for k in (0, 1)
            )
            assert clash(before, after)


def _hardly_late(program: Sequence[Piece], places: dict[str, int]) -> None:
    """A kernel that moves behind a barrier is not needed before it, and keeps little memory."""
    for i, piece in enumerate(program):
        if any(places[other.name] < places[piece.name] for other in program[i + 1 :]):
            written = {memory(use.buffer) for use in piece.writes}
            for other in program[i + 1 :]:
                assert written.isdisjoint(memory(use.buffer) for use in other.reads)
                assert written.isdisjoint(map(memory, other.factors or ()))
            assert sum(map(nbytes, piece.instr.ins)) <= 64 * 1024


# ---------------------------------------------------------------- single rules


def by_rows(name: str, *reads: str, to: str = "") -> Piece:
    where = tuple(Use(buffer, "each") for buffer in reads)
    return Piece(name, "rows", where, (Use(to or name, "each"),))


def sums(name: str, *reads: str) -> Piece:
    """Column sums, which nobody has to wait for."""
    where = tuple(Use(buffer, "each") for buffer in reads)
    return Piece(name, "columns", where, (Use(name, "column"),), axis="rows")


def call(name: str, *reads: str) -> Piece:
    return Piece(name, None, tuple(Use(r, "each") for r in reads), (Use(name, "each"),))


def test_what_nobody_waits_for_is_done_after_the_next_barrier() -> None:
    layers = [by_rows("x"), sums("db", "x"), by_rows("y", "x"), by_rows("z", "y")]
    assert shown(arranged(layers)) == "x y z | db"
    reader = Piece("read", "none", (Use("db", "column"),), (Use("w", "each"),))
    assert shown(arranged([*layers, reader])) == "x | db y z | read"


def test_what_waits_keeps_64_kilobytes_at_most() -> None:
    start = [by_rows("p", to="b"), by_rows("q", to="c"), by_rows("r", to="d"), by_rows("s", to="a")]
    assert shown(arranged([*start, sums("db", "d"), by_rows("y", "a")])) == "p q r s y | db"
    two = [sums("first", "b"), sums("second", "c"), by_rows("y", "a")]
    assert shown(arranged([*start, *two])) == "p q r s | first second y"
    same = [sums("first", "c"), sums("second", "c", "a"), by_rows("y", "a")]
    assert shown(arranged([*start, *same])) == "p q r s y | first second"


def test_what_waits_may_keep_more_where_memory_is_not_scarce() -> None:
    start = [by_rows("p", to="b"), by_rows("q", to="c"), by_rows("s", to="a")]
    two = [sums("first", "b"), sums("second", "c"), by_rows("y", "a")]
    found = arranged([*start, *two], most=WAITING_BYTES)
    assert shown(found) == "p q s y | first second"


def test_what_waits_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A barrier costs little beside kernels that take long."""
    layers = [
        by_rows("x"),
        by_rows("a"),
        sums("first", "x"),
        sums("second", "a"),
        by_rows("y", "x"),
    ]
    assert shown(arranged(layers)) == "x a y | first second"
    monkeypatch.setattr(barriers, "WAITING_TIME", 1.5 * microseconds((layers[2].instr,), 1))
    assert shown(arranged(layers)) == "x a | first second y"


def test_what_waits_is_not_overwritten() -> None:
    assert shown(arranged([by_rows("x"), sums("db", "x"), by_rows("y", to="x")])) == "x | db | y"
    again = Piece("again", "columns", (), (Use("db'", "column"),), axis="rows")
    assert shown(arranged([by_rows("x"), sums("db", "x"), again])) == "x | db again"
    mixed = Piece("mixed", "rows", (Use("y", "each"),), (Use("db", "row"),))
    assert shown(arranged([by_rows("x"), sums("db", "x"), mixed])) == "x | db | mixed"


def test_those_that_wait_may_have_to_wait_for_each_other() -> None:
    """Both read x; and what one reads the other writes, after it, by other threads."""
    first = sums("db", "x", "a")
    second = Piece("late", "none", (Use("x", "each"),), (Use("a", "each"),))
    assert shown(arranged([by_rows("x"), first, second])) == "x | db | late"


def test_a_reader_of_the_state_does_not_count_as_one_of_its_next_value() -> None:
    """The update is the last to read the memory that it writes."""
    where = (Use("x", "each"), Use("four", "column"))
    update = Piece("next", "columns", where, (Use("four'", "column"),), axis="rows")
    assert shown(arranged([by_rows("x"), update, by_rows("y", "x")])) == "x y | next"


def test_calls_are_alone_in_their_epoch() -> None:
    found = arranged([by_rows("x"), call("f", "x"), call("g", "f"), by_rows("y", "g")])
    assert shown(found) == "x f g y"
    assert len(set(found.epochs)) == 4
    assert found.boundary == 4
    late = arranged([by_rows("x"), sums("db", "x"), call("f", "x")])
    assert shown(late) == "x | db f"


def test_nothing_is_put_off_beyond_the_forward_pass() -> None:
    found = arranged([by_rows("x"), sums("db", "x"), by_rows("y", "x"), by_rows("z", "y")], 3)
    assert shown(found) == "x y | db z"
    assert (found.boundary, found.epochs) == (4, [0, 0, 0, 1, 2])
    nothing = arranged([by_rows("x")], 0)
    assert (nothing.boundary, nothing.epochs) == (0, [1])


def test_epochs_are_counted() -> None:
    found = arranged([by_rows("x"), sums("v", "x"), by_rows("y", "x", to="x")])
    assert shown(found) == "x | v | y"
    assert found.epochs == [0, 0, 1, 1, 2]


def test_products_by_columns_share_theirs_with_nobody() -> None:
    """Nor with themselves in another place: their panels are of another width."""
    panels = [
        Piece(name, "columns", (), (Use("c", "each"),), factors=("a", "b")) for name in ("p", "q")
    ]
    assert shown(arranged(panels)) == "p | q"
    loop = Piece("loop", "columns", (Use("c", "each"),), (Use("y", "each"),), axis="rows")
    assert shown(arranged([panels[0], loop, by_rows("z", "y")])) == "p | loop | z"


def test_layers_by_rows_need_no_barrier_between_them() -> None:
    """A thread multiplies the rows that it made."""
    layers = [
        Piece(to, "rows", (Use(to, "each"),), (Use(to, "each"),), factors=(of, "w"))
        for of, to in (("a", "b"), ("b", "c"), ("c", "d"))
    ]
    assert shown(arranged(layers)) == "b c d"
    for other in (layers[1]._replace(trans_a=True), layers[1]._replace(window=True)):
        assert shown(arranged([layers[0], other])) == "b | c"


def test_what_is_read_elsewhere_is_read_by_all() -> None:
    made = by_rows("x", to="a")
    moved = Piece("y", "rows", (Use("a", "each", True),), (Use("c", "each"),))
    again = Piece("z", "columns", (Use("a", "each", True),), (Use("d", "each"),))
    assert shown(arranged([made, moved, again])) == "x | y z"


def test_who_only_reads_waits_for_nobody() -> None:
    """Two products by columns, of the same factors."""
    both = [Piece(to, "columns", (), (Use(to, "each"),), factors=("a", "b")) for to in ("c", "d")]
    assert shown(arranged(both)) == "c d"


def test_a_stack_of_products_is_shared_by_nobody_else() -> None:
    stack = Piece("s", "matrices", (), (Use("c", "each"),), factors=("a", "b"))
    assert shown(arranged([by_rows("x", to="a"), stack, by_rows("y", "c")])) == "x | s | y"
