"""What is said of a server in the house: never well before it answered, and when it is tried again where it rests."""

from __future__ import annotations

from datetime import datetime

import pytest

from edge_runtime.core.remote_standing import RemoteStanding, Standing
from edge_runtime.core.typed_json import from_json, to_json

NOW = datetime(2030, 1, 2, 23, 59, 50)
SAID = [
    (RemoteStanding(Standing.NOT_ASKED, 150.0), "not asked about a part yet; 150 ms are allowed"),
    (
        RemoteStanding(Standing.NOT_ASKED, 150.0, tried_s=4.2),
        "not asked about a part yet; a trial was answered 4 s ago; 150 ms are allowed",
    ),
    (
        RemoteStanding(Standing.ANSWERS, 150.0, last_answer_s=0.3, tried_s=70.0, p95_ms=41.4),
        "answers: last answer 0 s ago, p95 41 ms of 150 ms allowed",
    ),
    (
        RemoteStanding(Standing.FAILS, 150.0, last_answer_s=61.0, p95_ms=41.4, failures=1, why="it says 500"),
        "fails: 1 failure in a row, last answer 1 min 1 s ago: it says 500",
    ),
    (
        RemoteStanding(Standing.RESTS, 150.0, failures=5, next_try_s=20.0, why="cannot be reached"),
        "rests until 00:00:10 after 5 failures (no answer ever): cannot be reached",
    ),
    (
        RemoteStanding(Standing.RESTS, 150.0, last_answer_s=50.0, failures=4, next_try_s=0.5, why="late"),
        "rests until 23:59:50 after 4 failures (last answer at 23:59:00): late",
    ),
]


@pytest.mark.parametrize(("standing", "words"), SAID)
def test_each_standing_has_its_words_and_crosses_the_wire(standing: RemoteStanding, words: str) -> None:
    assert standing.words(NOW) == words
    assert from_json(RemoteStanding, to_json(standing)) == standing
