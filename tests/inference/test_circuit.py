"""When a server is asked: never while it fails, and again soon after it answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND
from edge_runtime.inference.circuit import MISSES, REST_NS, Circuit, Phase


def up() -> Circuit:
    circuit = Circuit()
    assert circuit.begin_trial(0)
    circuit.answered()
    return circuit


def test_the_first_trial_is_at_once_and_parts_are_asked_after_it():
    circuit = Circuit()
    assert circuit.phase is Phase.RESTING and circuit.rests_for_ns(0) == 0
    assert circuit.begin_trial(0) and circuit.phase is Phase.TRIAL and not circuit.begin_trial(0)
    circuit.answered()
    assert circuit.phase is Phase.UP


def test_misses_in_a_row_end_it_and_an_answer_between_them_does_not():
    circuit = up()
    for _ in range(5):
        for _ in range(MISSES - 1):
            circuit.missed(0)
        circuit.answered()
    assert circuit.phase is Phase.UP
    for _ in range(MISSES):
        circuit.missed(SECOND)
    assert circuit.phase is Phase.RESTING and circuit.rests_for_ns(SECOND) == REST_NS[0]


def test_a_server_that_stays_away_is_tried_less_and_less_often_and_never_given_up():
    circuit, now, rests = up(), 0, []
    circuit.broke(now)
    for _ in range(len(REST_NS) + 3):
        rests.append(circuit.rests_for_ns(now))
        assert not circuit.begin_trial(now + rests[-1] - 1)
        now += rests[-1]
        assert circuit.begin_trial(now)
        circuit.missed(now)
    assert rests == [*REST_NS, *[REST_NS[-1]] * 3]
    assert circuit.begin_trial(now + REST_NS[-1])
    circuit.answered()
    circuit.broke(now)
    assert circuit.rests_for_ns(now) == REST_NS[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["answered", "missed", "broke", "try"]), max_size=40))
def test_a_dead_server_is_never_asked_more_than_a_few_times_in_a_row(events):
    """Whatever happened before: from now on nothing is answered, and parts are asked MISSES times at most."""
    circuit, now = Circuit(), 0
    for event in events:
        now += SECOND
        if event == "try":
            circuit.begin_trial(now)
        elif event == "answered":
            if circuit.phase is not Phase.RESTING:
                circuit.answered()
        else:
            getattr(circuit, event)(now)
    asked = 0
    for _ in range(200):
        now += SECOND // 10
        circuit.begin_trial(now)
        asked += circuit.phase is Phase.UP
        if circuit.phase is not Phase.RESTING:
            circuit.missed(now)
    assert asked <= MISSES
