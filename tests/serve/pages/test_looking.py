"""What the pages show is asked for once for all, and agrees with what the box itself says."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.status import Status
from edge_runtime.process.control import ControlServer
from edge_runtime.recording.reader import JournalReader
from edge_runtime.serve.pages.alarms import alarms_of
from edge_runtime.serve.pages.faces import Face, face_of
from edge_runtime.serve.pages.shift import Shift, shift_start
from tests.serve.http_box import Box, box
from tests.support.line_and_pages import Rig
from tests.support.waiting import until

STARTS = ("06:00", "14:00", "22:00")


@pytest.fixture
def status(rig: Rig) -> Status:
    return rig.line.look()


def open_stream(server: Box) -> socket.socket:
    return server.raw(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.fixture
def counted(tmp_path: Path, status: Status) -> Iterator[tuple[Box, Counter[str]]]:
    """Pages of a box that counts what it is asked."""
    asked: Counter[str] = Counter()

    def answer(name: str, told: Any) -> Any:
        asked[name] += 1
        return told

    control = ControlServer(
        tmp_path / "control.sock",
        {"status": lambda _: answer("status", status.to_json()), "preview": lambda _: answer("preview", {})},
    )
    control.start()
    try:
        with box(tmp_path) as server:
            yield server, asked
    finally:
        control.stop()


def test_eight_tabs_cost_the_line_what_one_does_and_none_costs_nothing(counted: tuple[Box, Counter[str]]) -> None:
    server, asked = counted
    server.get("/")
    assert asked == Counter()
    with ExitStack() as open_tabs:
        for _ in range(8):
            open_tabs.enter_context(open_stream(server))
        until(lambda: server.components["pages"].report()["viewers"] == 8)
        before = asked.copy()
        until(lambda: asked["status"] >= before["status"] + 2)
        assert asked["preview"] - before["preview"] <= 5 * 3 + 2  # 5 a second, whoever looks
        assert asked["status"] - before["status"] <= 3
    until(lambda: server.components["pages"].report()["viewers"] == 0)


def test_a_stream_ends_before_the_server_does(counted: tuple[Box, Counter[str]]) -> None:
    server, _ = counted
    with open_stream(server) as tab:
        until(lambda: server.components["pages"].report()["viewers"] == 1)
        server.components["pages"].stop()
        told = b""
        while not told.endswith(b"0\r\n\r\n"):  # the last chunk, which may come alone
            piece = tab.recv(65536)
            assert piece, f"the connection ended in the middle: {told[-100:]!r}"
            told += piece


def test_a_screen_too_many_is_told_to_wait(counted: tuple[Box, Counter[str]]) -> None:
    server, _ = counted
    with ExitStack() as open_tabs:
        for _ in range(64):
            open_tabs.enter_context(open_stream(server))
        until(lambda: server.components["pages"].report()["viewers"] == 64)
        with open_stream(server) as late:
            assert b"503" in late.recv(200).partition(b"\r\n")[0]


def test_the_shift_counts_what_the_journal_holds(rig: Rig) -> None:
    journal = rig.line.state / "journal.db"
    shift = Shift(journal, ["00:00"])
    for _ in range(3):  # the first look reads all, the next ones what came since
        look = shift.look()
        with JournalReader(journal) as reader:
            counts = reader.counts()
        assert 0 <= counts["parts"] - look.counts.parts <= 20  # between the two looks
        assert sum(minute.parts for minute in look.hour) == look.counts.parts
        assert look.counts.accept + look.counts.reject + look.counts.unsure <= look.counts.parts
        assert all(one.verdict in ("reject", "unsure") for one in look.rejects)
        assert [one.row for one in look.rejects] == sorted((one.row for one in look.rejects), reverse=True)


def test_a_journal_that_is_not_there_is_a_sentence_and_no_figures(tmp_path: Path) -> None:
    look = Shift(tmp_path / "journal.db", STARTS).look()
    assert (look.counts.parts, look.hour, look.rejects) == (0, (), ())
    assert "no journal" in look.trouble


@pytest.mark.parametrize(
    "now, begun", [("06:00", "06:00"), ("13:59", "06:00"), ("23:10", "22:00"), ("05:59", "22:00 the day before")]
)
def test_a_shift_began_at_the_newest_start(now: str, begun: str) -> None:
    day = datetime(2026, 3, 1).astimezone()
    hour, minute = map(int, now.split(":"))
    start = shift_start(STARTS, day.replace(hour=hour, minute=minute))
    expected = day.replace(hour=int(begun[:2])) - timedelta(days="before" in begun)
    assert start == expected


def test_a_well_line_runs_without_a_loud_alarm(status: Status) -> None:
    assert face_of(replace(status, held_by="")) is Face.RUNNING
    assert [alarm for alarm in alarms_of(status) if alarm.priority != "low"] == []
