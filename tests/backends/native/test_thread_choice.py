"""How many threads share a run, on a machine whose clock and load are made up."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from graphc.backends.native import pool
from graphc.backends.native.call_ir import WORDS
from graphc.backends.native.pool import FOREVER, LATE, SPARE, Choice
from graphc.base import usable_cores
from graphc.base.usable_cores import FIRST, MOST, PROMPT, IdleCores

US, MS = 1_000, 1_000_000
STALL = 4 * MS
"""What the system gives another process before it takes a core from it."""


@dataclass
class Machine:
    """Two cores and a clock in nanoseconds; the prober answers where a core is idle."""

    now: int = 0
    busy: bool = False
    cores: int = 2
    probes: bool = True
    started: list[int] = field(default_factory=list)
    answered: int | None = 0

    def __post_init__(self) -> None:
        self.idle = IdleCores(self)

    def rest(self) -> None:
        """Let the load go; a question that is open is answered now."""
        self.busy, self.answered = False, self.answered or self.now

    def start(self, threads: int) -> None:
        self.started.append(threads)

    def start_prober(self) -> bool:
        return self.probes

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9) + 10 * US

    def ask(self) -> None:
        self.answered = None if self.busy else self.now + 30 * US


@dataclass
class Runs:
    """Runs of one program: the nanoseconds that they take, alone and shared."""

    machine: Machine
    alone: int
    together: int
    stalls: bool = True
    """Whether a shared run stalls while the machine is busy."""
    cold: tuple[int, int] = (0, 0)
    """How many shared runs after one alone are slower, and the nanoseconds that they take."""
    estimate: float = 0.0
    """The nanoseconds that they take alone, as estimated."""
    shared_runs: int = 0
    reviews: int = 0

    def __post_init__(self) -> None:
        self.frame = (ctypes.c_uint64 * len(WORDS))()
        self.choice = Choice(self.frame, 2, self.machine, self.estimate)  # type: ignore[arg-type]
        self.choice._set("longest_pause", FOREVER)

    def run(self) -> int:
        """One run, as native code would; the nanoseconds it took."""
        paused = self.machine.now - self.word("ended") > self.word("longest_pause")
        took = self.untimed() if paused else self.timed()
        self.machine.now += took + US
        self.choice._set("ended", self.machine.now - US)
        return took

    def untimed(self) -> int:
        self.shared_runs = 0
        return self.alone

    def timed(self) -> int:
        if self.word("left") <= 0:
            self.choice.review()
            self.reviews += 1
        else:
            self.choice._set("left", self.word("left") - 1)
        shared, took = self.word("threads") > 1, self.alone
        self.shared_runs = self.shared_runs + 1 if shared else 0
        if shared:
            slow, longer = self.cold
            took = longer if self.shared_runs <= slow else self.together
            took = min(took, self.word("deadline") + self.alone // 2)
            stalled = self.machine.busy and self.stalls
            took += STALL if stalled else 0
            if took > self.word("deadline"):
                self.choice._set("left", 0)
                self.choice._set("stalled", took if stalled else 0)
        self.choice._set("runs", self.word("runs") + 1)
        self.choice._set("time", self.word("time") + min(took, self.word("most")))
        return took

    def word(self, name: str) -> int:
        return int(self.frame[WORDS.index(name)])

    def shared(self) -> bool:
        """Whether the last run was shared."""
        return self.shared_runs > 0

    def mean(self, nanoseconds: int) -> float:
        """The mean of all runs for so long."""
        end, times = self.machine.now + nanoseconds, [self.run()]
        while self.machine.now < end:
            times.append(self.run())
        return sum(times) / len(times)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    clock = SimpleNamespace(monotonic_ns=lambda: found.now, sleep=found.sleep)
    monkeypatch.setattr(pool, "time", clock)
    monkeypatch.setattr(usable_cores, "time", clock)
    monkeypatch.setattr(usable_cores, "cores", lambda: found.cores)
    return found


@pytest.mark.one_in(5)
@pytest.mark.parametrize("probes", [True, False])
@pytest.mark.parametrize(
    ("alone", "together"),
    [
        (50, 30),
        (50, 200),
        (70, 1300),
        (700, 690),
        (2600, 1500),
        (100_000, 55_000),
        (60_000, 90_000),
    ],
)
def test_the_faster_way_is_found_and_the_other_hardly_tried(
    machine: Machine, alone: int, together: int, probes: bool
) -> None:
    machine.probes = probes
    runs = Runs(machine, alone * US, together * US)
    runs.mean(50 * max(alone, 1000) * US)
    mean = runs.mean(1500 * MS + 100 * alone * US)
    assert mean <= 1.015 * min(alone, together) * US


def test_runs_that_wake_threads_do_not_count(machine: Machine) -> None:
    """Each of them is late, and is reviewed before the next one."""
    runs = Runs(machine, 15 * US, 12 * US, cold=(8, 45 * US))
    runs.mean(500 * MS)
    assert runs.mean(1500 * MS) <= 1.03 * 12 * US


def test_a_busy_machine_is_not_even_tried(machine: Machine) -> None:
    machine.busy = True
    runs = Runs(machine, 2600 * US, 1500 * US)
    assert runs.mean(5000 * MS) == 2600 * US
    assert machine.started == []


def test_load_that_comes_costs_two_stalls_and_that_it_goes_is_seen_in_a_few_runs(
    machine: Machine,
) -> None:
    runs = Runs(machine, 2600 * US, 1500 * US)
    runs.mean(500 * MS)
    assert runs.shared()
    machine.busy = True
    slow = [runs.run() for _ in range(1000)]
    assert sum(took > 2600 * US for took in slow) <= 2
    machine.rest()
    for _ in range(8):
        runs.run()
    assert runs.shared()


def test_rare_stalls_do_not_end_what_saves_more(machine: Machine) -> None:
    """A stall of 4 ms in each 100 ms costs less than the 40 ms that sharing saves there."""
    runs = Runs(machine, 2600 * US, 1500 * US)
    runs.mean(500 * MS)
    for _ in range(20):
        machine.busy = True
        runs.run()
        machine.rest()
        assert runs.mean(100 * MS) <= 1.05 * 1500 * US  # trials of one thread among them


def test_where_nothing_can_be_asked_stalls_take_a_hundredth_of_the_time(machine: Machine) -> None:
    machine.probes, machine.busy = False, True
    runs = Runs(machine, 2600 * US, 1500 * US)
    assert runs.mean(20_000 * MS) <= 1.03 * 2600 * US


def test_a_prober_that_is_wrong_is_believed_less_and_less(machine: Machine) -> None:
    """It sees an idle core each time, and yet each shared run stalls."""
    runs = Runs(machine, 2600 * US, 1500 * US)
    machine.ask = lambda: setattr(machine, "answered", machine.now)  # type: ignore[method-assign]
    machine.busy = True
    runs.mean(5000 * MS)
    assert machine.idle._wanted >= 256
    assert runs.mean(20_000 * MS) <= 1.01 * 2600 * US
    assert machine.idle._wanted <= MOST


def test_times_decide_where_a_busy_machine_does_not_stall(machine: Machine) -> None:
    """As beside a process that takes the memory's bandwidth."""
    runs = Runs(machine, 2600 * US, 1500 * US)
    runs.mean(500 * MS)
    runs.together = 2900 * US
    runs.mean(500 * MS)
    assert not runs.shared()
    runs.together = 1500 * US
    runs.mean(5000 * MS)
    assert runs.shared()


def test_a_stall_is_no_reason_where_sharing_is_slow(machine: Machine) -> None:
    """A program whose sharing does not pay does not keep others from it."""
    slow, fast = Runs(machine, 70 * US, 1300 * US), Runs(machine, 2600 * US, 1500 * US)
    for _ in range(2000):
        slow.run()
        fast.run()
    assert not slow.shared()
    assert fast.shared()


def test_the_cores_of_the_moment_count(machine: Machine) -> None:
    runs = Runs(machine, 2600 * US, 1500 * US)
    runs.mean(500 * MS)
    machine.cores = 1
    runs.mean(25 * MS)
    assert not runs.shared()
    machine.cores = 2
    runs.mean(25 * MS)
    assert runs.shared()


@pytest.mark.parametrize(("alone", "shares"), [(30 * US, False), (2 * MS, True)])
def test_short_runs_after_pauses_stay_alone(machine: Machine, alone: int, shares: bool) -> None:
    runs = Runs(machine, alone=alone, together=alone // 2)
    shared = 0
    for _ in range(5_000):
        machine.now += 10 * MS
        runs.run()
        shared += runs.shared()
    assert (shared > 0) == shares
    runs.mean(50 * MS)  # without pauses they are shared
    assert runs.shared()
    machine.now += 10 * MS
    runs.run()  # one pause is one run alone
    assert runs.shared() == shares
    runs.run()
    assert runs.shared()


def test_runs_after_pauses_are_not_reviewed(machine: Machine) -> None:
    """Caches are cold, and a review takes 0.3 ms: runs would be late by that."""
    runs = Runs(machine, alone=60 * US, together=30 * US)
    for _ in range(1000):
        machine.now += 5 * MS
        runs.run()
    assert runs.reviews <= 5


@pytest.mark.parametrize("estimate", [20 * MS, 80 * MS, 320 * MS])
def test_long_runs_are_shared_from_the_first_on(machine: Machine, estimate: int) -> None:
    """And are tried alone once in the first hundred, even if the estimate is far off."""
    runs = Runs(machine, 80 * MS, 41 * MS, estimate=estimate)
    shared = []
    for _ in range(100):
        runs.run()
        shared.append(runs.shared())
    assert shared[:3] == [True] * 3
    assert 1 <= shared.count(False) <= 2


def test_a_long_run_that_is_slower_if_shared_is_soon_alone(machine: Machine) -> None:
    runs = Runs(machine, 80 * MS, 90 * MS, estimate=80 * MS)
    shared = [(runs.run(), runs.shared())[1] for _ in range(100)]
    assert shared.index(False) <= 5
    assert shared.count(True) <= 8


def test_milliseconds_are_shared_after_a_few_runs(machine: Machine) -> None:
    """No run waits for long until an idle core is seen: the first are alone."""
    runs = Runs(machine, 2 * MS, 1100 * US, estimate=MS)
    shared = [(runs.run(), runs.shared())[1] for _ in range(20)]
    assert shared.index(True) <= 4
    assert shared.count(False) <= 5


@pytest.mark.parametrize("alone", [2 * MS, 80 * MS])
def test_a_busy_machine_is_asked_for_a_hundredth_of_the_time(machine: Machine, alone: int) -> None:
    machine.busy = True
    runs = Runs(machine, alone, alone // 2, estimate=alone)
    for _ in range(100):
        runs.run()
    assert machine.started == []
    assert machine.now <= 1.03 * 100 * alone
    machine.rest()
    for _ in range(5):
        runs.run()
    assert runs.shared()


def test_load_that_comes_ends_the_sharing_of_long_runs(machine: Machine) -> None:
    """They stall longer than short ones, and take the time of two runs."""
    runs = Runs(machine, 80 * MS, 41 * MS, estimate=80 * MS)
    runs.mean(500 * MS)
    machine.busy = True
    runs.together = 150 * MS
    shared = [(runs.run(), runs.shared())[1] for _ in range(50)]
    assert shared.count(True) <= 10
    machine.rest()
    runs.together = 41 * MS
    for _ in range(10):
        runs.run()
    assert runs.shared()


def test_a_shared_run_may_be_late_by_a_quarter(machine: Machine) -> None:
    runs = Runs(machine, 2000 * US, 1500 * US)
    runs.mean(500 * MS)
    assert runs.word("deadline") == int(LATE * 2000 * US) + SPARE


def test_answers_must_be_prompt(machine: Machine) -> None:
    idle = machine.idle
    assert not idle.free()
    for _ in range(5):  # answered, but late
        machine.now += 10 * PROMPT
        machine.answered = machine.now
        assert not idle.free()
    machine.busy = True
    for _ in range(5):  # not answered
        machine.now += 10 * PROMPT
        assert not idle.free()
    machine.rest()
    asked = 0
    while not idle.free():
        machine.now += 10 * PROMPT
        asked += 1
    assert FIRST <= asked <= FIRST + 2
