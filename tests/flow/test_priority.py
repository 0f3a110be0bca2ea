"""Real-time scheduling is asked for thread by thread; where it is refused, everything works and says so."""

from __future__ import annotations

import os
import resource
import threading

import pytest

from edge_runtime.flow.priority import run_plainly, run_promptly


def on_a_thread(work):
    out = []
    thread = threading.Thread(target=lambda: out.append(work()))
    thread.start()
    thread.join(10.0)
    return out[0]


def test_refusal_is_a_sentence_with_the_way_out(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert run_promptly() == (
        "other: Operation not permitted; LimitRTPRIO=1 in the unit, or rtprio in limits.conf, allows it"
    )
    run_plainly(threading.get_native_id())


def test_stage_that_may_compute_longer_than_the_system_allows_stays_ordinary(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (500_000, 500_000))
    monkeypatch.setattr(os, "sched_setscheduler", lambda *words: asked.append(words))
    assert run_promptly(longest_ns=600_000_000).startswith("other: it may compute for 600 ms")
    assert asked == []
    assert run_promptly(longest_ns=150_000_000) == "fifo"


def test_it_is_the_calling_thread_alone_and_can_be_taken_back():
    def work():
        policy = run_promptly()
        if policy != "fifo":
            return policy, None, None, None
        inherited = on_a_thread(lambda: os.sched_getscheduler(0))
        prompt = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        run_plainly(threading.get_native_id())
        return policy, prompt, inherited, os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK

    policy, prompt, inherited, after = on_a_thread(work)
    if prompt is None:
        pytest.skip(policy)
    assert (prompt, inherited, after) == (os.SCHED_FIFO, os.SCHED_OTHER, os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
