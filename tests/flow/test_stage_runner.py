"""The worker that is replaced when it hangs."""

from __future__ import annotations

import queue
import threading

import pytest

from edge_runtime.core.clock import MS, ManualClock
from edge_runtime.flow.components import State
from edge_runtime.flow.handoff import Bounded, Latest
from edge_runtime.flow.stage_runner import FAULTS_IN_A_ROW, MOST_ABANDONED, Hung, StageRunner

WAIT_S = 10.0


class Bench:
    """A runner over a stage that does what each item says, and a note of what came out."""

    def __init__(self, make_stage=None):
        self.clock = ManualClock()
        self.queue: Bounded[str] = Bounded(8)
        self.out: queue.Queue = queue.Queue()
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.built = 0
        self.runner = StageRunner(
            "test",
            self.queue,
            make_stage or self.make_stage,
            lambda item, result: self.out.put((item, result)),
            lambda item, error: self.out.put((item, error)),
            100 * MS,
            self.clock,
        )

    def make_stage(self):
        self.built += 1

        def stage(item: str) -> str:
            self.entered.release()
            if item == "hang":
                assert self.release.wait(WAIT_S)
                return "too late"
            if item == "raise":
                raise ValueError("broken")
            return item.upper()

        return stage

    def next(self):
        return self.out.get(timeout=WAIT_S)


@pytest.fixture
def bench():
    bench = Bench()
    bench.runner.start()
    yield bench
    bench.release.set()
    bench.runner.stop()


def test_items_pass_in_order(bench):
    for item in "abc":
        assert bench.queue.offer(item)
    assert [bench.next() for _ in range(3)] == [("a", "A"), ("b", "B"), ("c", "C")]
    assert bench.runner.health().state is State.OK


def test_hung_item_is_a_fault_and_the_next_one_passes(bench):
    bench.queue.offer("hang")
    assert bench.entered.acquire(timeout=WAIT_S)
    bench.runner.supervise(bench.clock.advance_ms(99))
    assert bench.out.empty()
    bench.runner.supervise(bench.clock.advance_ms(2))
    item, error = bench.next()
    assert item == "hang" and isinstance(error, Hung)
    bench.queue.offer("b")
    assert bench.next() == ("b", "B")
    assert (bench.runner.replaced, bench.built) == (1, 2)


def test_late_answer_of_an_abandoned_worker_is_thrown_away(bench):
    bench.queue.offer("hang")
    assert bench.entered.acquire(timeout=WAIT_S)
    bench.runner.supervise(bench.clock.advance_ms(200))
    assert isinstance(bench.next()[1], Hung)
    bench.release.set()
    bench.queue.offer("b")
    assert bench.next() == ("b", "B")
    assert bench.out.empty()


def test_exception_is_a_fault_of_its_item_only(bench):
    for item in ("raise", "b"):
        bench.queue.offer(item)
    item, error = bench.next()
    assert item == "raise" and isinstance(error, ValueError)
    assert bench.next() == ("b", "B")
    assert bench.built == 1


def test_stage_that_keeps_raising_is_built_anew(bench):
    for _ in range(FAULTS_IN_A_ROW):
        bench.queue.offer("raise")
        bench.next()
    bench.queue.offer("b")
    assert bench.next() == ("b", "B")
    assert bench.built == 2


def test_sink_that_raises_costs_its_item_and_not_the_worker():
    bench = Bench()
    put = bench.runner._sink

    def sink(item, result):
        if item == "bad":
            raise OSError("no space")
        put(item, result)

    bench.runner._sink = sink
    bench.runner.start()
    for item in ("bad", "b"):
        bench.queue.offer(item)
    item, error = bench.next()
    assert item == "bad" and isinstance(error, OSError)
    assert bench.next() == ("b", "B")
    bench.runner.stop()


def test_too_many_hung_calls_are_a_failure_the_watchdog_sees(bench):
    for _ in range(MOST_ABANDONED + 1):
        bench.queue.offer("hang")
        assert bench.entered.acquire(timeout=WAIT_S)
        bench.runner.supervise(bench.clock.advance_ms(200))
        bench.next()
    assert bench.runner.health().state is State.FAILED


def test_stage_that_cannot_be_built_fails_the_start():
    def broken():
        raise ValueError("no such model")

    bench = Bench(broken)
    with pytest.raises(ValueError, match="no such model"):
        bench.runner.start()
    assert bench.runner.health().state is State.FAILED


def test_stop_twice_and_without_start():
    bench = Bench()
    bench.runner.stop()
    bench.runner.start()
    bench.runner.stop()
    bench.runner.stop()
    assert bench.runner.health().state is State.STOPPED


def test_bounded_gives_back_what_does_not_fit():
    queue_: Bounded[int] = Bounded(2)
    assert [queue_.offer(n) for n in range(3)] == [True, True, False]
    assert [queue_.take(0.01) for _ in range(3)] == [0, 1, None]
    assert queue_.offer(3) and len(queue_) == 1
    with pytest.raises(ValueError, match="at least 1"):
        Bounded(0)


def test_latest_keeps_the_newest():
    slot: Latest[int] = Latest()
    assert slot.get() is None
    slot.put(1)
    slot.put(2)
    assert slot.get() == slot.get() == 2
