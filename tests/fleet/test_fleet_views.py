"""The views, on data of which the answers are known."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from fleet_records import Read

from tests.fleet.fleet_rig import NOW, ago, ask, message, state, write

TOOLS = Path(__file__).parents[2] / "tools" / "fleet"
EIGHT, NINE = "2026-03-01T08:59:59.999Z", "2026-03-01T09:00:00.000Z"


def test_parts_are_counted_once_by_their_last_revision(dsn: str) -> None:
    parts = [
        message(seq=1, time=EIGHT, data={"row": 1, "verdict": "reject"}),
        message(seq=2, time=EIGHT, data={"row": 2}),
        message(seq=3, time=EIGHT, data={"row": 2, "revision": 1, "verdict": "unsure"}),
        message(seq=4, time=NINE, data={"row": 3}),
        message(seq=1, epoch="aa", time=NINE, data={"row": 3}, heard_at=NOW + timedelta(seconds=1)),  # told anew
        message(seq=5, time=NINE, kind="outcome", data={"row": 3}),
    ]
    asyncio.run(write(dsn, parts))
    found = ask(dsn, "SELECT hour::text, parts, accepted, rejected, unsure, reject_rate FROM parts_per_hour ORDER BY 1")
    assert [(hour[11:16], *map(float, rest)) for hour, *rest in found] == [
        ("08:00", 2, 0, 1, 1, 0.5),
        ("09:00", 1, 1, 0, 0, 0.0),
    ]


def test_a_box_is_seen_against_its_line(dsn: str) -> None:
    good = [message("good", n, time=EIGHT) for n in range(1, 10)]
    bad = [message("bad", 1, time=EIGHT, data={"verdict": "reject"})]
    asyncio.run(write(dsn, good + bad))
    found = ask(dsn, "SELECT box, reject_rate::float, line_reject_rate::float FROM reject_rate ORDER BY box")
    assert found == [("bad", 1.0, 0.1), ("good", 0.0, 0.1)]


def test_a_part_from_the_future_counts_as_now(dsn: str) -> None:
    asyncio.run(write(dsn, [message(time="2199-01-01T00:00:00.000Z", time_quality="free_running")]))
    ((is_now, unsure),) = ask(
        dsn, "SELECT hour > now() - interval '2 hours' AND hour <= now(), clock_not_sure FROM parts_per_hour"
    )
    assert (is_now, unsure) == (True, 1)


def test_boxes_are_stale_after_a_minute_or_when_the_broker_says_so(dsn: str) -> None:
    asyncio.run(
        write(
            dsn,
            [
                message("quiet", heard_at=ago(61)),
                message("talks", heard_at=ago(5)),
                message("gone", heard_at=ago(20)),
                state("gone", "offline", ago(10), "link lost"),
                state("back", "offline", ago(20), "link lost"),
                message("back", heard_at=ago(10)),
                state("reborn", "offline", ago(20), "stopped"),
                state("reborn", "online", ago(10)),
            ],
        )
    )
    assert ask(dsn, "SELECT box, why FROM stale_box ORDER BY box") == [
        ("gone", "offline: link lost"),
        ("quiet", "silent"),
    ]


def test_histograms_of_boxes_add_up_and_a_shift_is_seen(dsn: str) -> None:
    day = ["2026-03-01T12:00:00.000Z", "2026-03-02T12:00:00.000Z", "2026-03-03T12:00:00.000Z"]
    calm = [0.02 + 0.05 * (n % 10) for n in range(1000)]  # ten bins, 100 each
    shifted = [0.02 + 0.05 * (n % 10 + 5) for n in range(1000)]  # five of them, and five others
    batch: list[Read] = []
    for when, scores in zip(day, (calm, calm, shifted), strict=True):
        for n, score in enumerate(scores):
            seq = len(batch) + 1
            batch.append(message(f"box-{n % 2}", seq, time=when, data={"row": seq, "score": score}))
    asyncio.run(write(dsn, batch))
    assert ask(dsn, "SELECT DISTINCT parts FROM score_histogram") == [(100,)]  # even bins one box, odd ones the other
    found = dict(ask(dsn, "SELECT day::text, psi::float FROM score_drift"))
    assert found[day[0][:10]] == found[day[1][:10]] == 0.0
    full, empty = 100.5 / 1010, 0.5 / 1010
    assert math.isclose(found[day[2][:10]], 10 * (full - empty) * math.log(full / empty), abs_tol=1e-4)
    assert ask(dsn, "SELECT DISTINCT reference::text, by_chance::float FROM score_drift") == [("2026-03-01", 0.038)]


def test_a_day_can_be_named_as_reference(dsn: str) -> None:
    batch = [
        message("box-1", n, time=f"2026-03-0{1 + n % 2}T12:00:00.000Z", data={"score": n % 2 / 2}) for n in range(1, 99)
    ]
    asyncio.run(write(dsn, batch))
    assert ask(dsn, "SELECT * FROM score_drift") == []  # no day has 1000 parts
    ask(dsn, "INSERT INTO reference_day VALUES ('north', 'line-2', 'scratch@1', '2026-03-02') RETURNING day")
    found = dict(ask(dsn, "SELECT day::text, psi::float FROM score_drift"))
    assert found["2026-03-02"] == 0.0
    assert found["2026-03-01"] > 0.25


def test_the_delay_of_boxes_with_a_good_clock_is_told(dsn: str) -> None:
    begun = ago(100)
    stamp = begun.isoformat()
    asyncio.run(write(dsn, [message(seq=n, time=stamp, heard_at=begun + timedelta(seconds=n)) for n in range(1, 11)]))
    asyncio.run(write(dsn, [message(seq=11, time=stamp, time_quality="free_running")]))
    ((records, p50, most),) = ask(dsn, "SELECT sum(records), min(p50_s)::float, max(most_s)::float FROM uplink_delay")
    assert (records, most) == (10, 10.0)
    assert p50 <= 5.5


def label(seq: int, number: int, word: str | None, by: str, **more: Any) -> Read:
    """A label of part row 1, as a box sends it."""
    over = {name: more.pop(name) for name in ("epoch", "heard_at", "model") if name in more}
    said = {
        "part": "0007-1", "boot_id": 7, "part_id": 1, "row": 1, "number": number, "label": word, "undoes": None,
        "defect": "", "comment": "", "by": by, "where": "page", "saw_verdict": None,
    }  # fmt: skip
    return message(seq=seq, kind="label", data=said | more, **over)


def test_the_last_word_of_each_person_about_a_part_is_in_force_unless_it_was_taken_back(dsn: str) -> None:
    batch = [
        message(seq=1, data={"row": 1, "verdict": "accept"}),
        label(2, 1, "reject", "anna", defect="scratch"),
        label(3, 2, "accept", "ben", saw_verdict="accept"),
        label(4, 3, "cannot_tell", "anna"),
        label(1, 3, "cannot_tell", "anna", epoch="aa", heard_at=NOW + timedelta(seconds=1)),  # told anew
        label(5, 4, None, "anna", undoes=3),
    ]
    asyncio.run(write(dsn, batch))
    assert ask(dsn, "SELECT number, label, undoes FROM label ORDER BY number") == [
        (1, "reject", None), (2, "accept", None), (3, "cannot_tell", None), (4, None, 3),
    ]  # fmt: skip
    query = (
        "SELECT said_by, label, defect, is_last, verdict FROM label_in_force JOIN part USING (box, journal, part_row)"
    )
    assert ask(dsn, f"{query} ORDER BY 1") == [
        ("anna", "reject", "scratch", False, "accept"), ("ben", "accept", "", True, "accept"),
    ]  # fmt: skip


def test_the_report_prints_every_view_and_says_what_is_wrong(dsn: str) -> None:
    asyncio.run(write(dsn, [message("quiet", heard_at=ago(700)), message("quiet", 3, heard_at=ago(700))]))
    done = subprocess.run(
        [sys.executable, str(TOOLS / "report"), "--dsn", dsn], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "1 boxes are stale" in done.stderr
    assert "1 holes are older" in done.stderr
    assert "== stale boxes\n" in done.stdout
    assert "== set aside: none" in done.stdout
