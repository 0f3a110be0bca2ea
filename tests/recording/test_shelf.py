"""Which pictures stay when there is no room for all, and what a crash leaves behind."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND, Clock, ManualClock
from edge_runtime.core.messages import Label, PartKey, Verdict
from edge_runtime.recording import shelf as shelf_module
from edge_runtime.recording.retention import Retention
from edge_runtime.recording.shelf import QuotaFull, Shelf, heat_file

DAY_NS = 86_400 * SECOND
NOON = 20_800 * DAY_NS + 43_200 * SECOND  # in 2026
KEEP = {Verdict.ACCEPT: 7, Verdict.UNSURE: 90, Verdict.REJECT: 90}


def open_shelf(
    state: Path,
    quota: int = 10_000,
    labels: dict[int, Label] | None = None,
    reserve: int = 0,
    clock: Clock | None = None,
) -> Shelf:
    retention = Retention(state, clock or ManualClock())
    said = labels or {}
    shelf = Shelf(state, quota, KEEP, reserve, retention, lambda: nullcontext(lambda key: said.get(key.part_id)))
    shelf.scan()
    return shelf


def put(shelf: Shelf, number: int, verdict: Verdict, size: int = 1000, utc_ns: int = NOON) -> str:
    file = shelf.place(PartKey(1, number), verdict, utc_ns + number * SECOND, ".jpg")
    shelf.put(file, verdict, bytes(size), None)
    return file


def left(state: Path) -> list[str]:
    return sorted(file.name.split("-", 2)[2].split(".")[0] for file in (state / "evidence").rglob("*-*.jpg"))


def test_the_place_tells_day_time_part_and_verdict(tmp_path: Path) -> None:
    file = open_shelf(tmp_path).place(PartKey(0x7F3A, 12), Verdict.REJECT, NOON + 5_250_000_000, ".png")
    assert file == "evidence/2026/12/13/120005.250-7f3a-12-reject.png"


def test_accepted_ones_go_first_the_oldest_first(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, quota=5050)
    for number, verdict in enumerate([Verdict.REJECT, Verdict.ACCEPT, Verdict.UNSURE, Verdict.ACCEPT, Verdict.REJECT]):
        put(shelf, number, verdict)
    put(shelf, 5, Verdict.REJECT)
    assert left(tmp_path) == ["0-reject", "2-unsure", "3-accept", "4-reject", "5-reject"]


def test_an_accepted_part_never_displaces_a_rejected_one(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, quota=3000)
    for number in range(3):
        put(shelf, number, Verdict.REJECT)
    with pytest.raises(QuotaFull):
        put(shelf, 3, Verdict.ACCEPT)
    assert left(tmp_path) == ["0-reject", "1-reject", "2-reject"]


def test_what_a_person_labelled_stays_longest(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, quota=4050, labels={0: Label.ACCEPT, 2: Label.REJECT})
    put(shelf, 0, Verdict.ACCEPT)
    for number in range(1, 6):
        put(shelf, number, Verdict.REJECT)
    assert left(tmp_path) == ["0-accept", "2-reject", "4-reject", "5-reject"]
    for number in range(6, 9):
        put(shelf, number, Verdict.REJECT)
    assert left(tmp_path) == ["0-accept", "2-reject", "7-reject", "8-reject"]


def test_labelled_ones_go_when_there_is_nothing_else_but_never_for_an_accepted_one(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, quota=2050, labels={0: Label.REJECT, 1: Label.REJECT})
    put(shelf, 0, Verdict.REJECT)
    put(shelf, 1, Verdict.ACCEPT)
    with pytest.raises(QuotaFull):
        put(shelf, 2, Verdict.ACCEPT)
    put(shelf, 3, Verdict.REJECT)
    assert left(tmp_path) == ["1-accept", "3-reject"]


def test_of_the_labelled_ones_the_rejects_stay_longest_whatever_the_model_said_of_them(tmp_path: Path) -> None:
    labels = {0: Label.REJECT, 1: Label.ACCEPT, 2: Label.CANNOT_TELL, 3: Label.REJECT}
    shelf = open_shelf(tmp_path, quota=4050, labels=labels)
    for number, verdict in enumerate([Verdict.ACCEPT, Verdict.REJECT, Verdict.UNSURE, Verdict.REJECT]):
        put(shelf, number, verdict)
    put(shelf, 4, Verdict.REJECT)
    assert left(tmp_path) == ["0-accept", "2-unsure", "3-reject", "4-reject"]
    labels[4] = Label.REJECT
    put(shelf, 5, Verdict.REJECT)
    assert left(tmp_path) == ["0-accept", "3-reject", "4-reject", "5-reject"]
    labels[5] = Label.REJECT
    put(shelf, 6, Verdict.REJECT)
    assert left(tmp_path) == ["3-reject", "4-reject", "5-reject", "6-reject"]


@pytest.mark.parametrize("days", [500, -800, 27_000, -20_000], ids=lambda days: f"{days} d")
def test_room_is_made_in_the_order_of_writing_whatever_the_dates_say(days: int, tmp_path: Path) -> None:
    clock = ManualClock()
    shelf = open_shelf(tmp_path, quota=4050, clock=clock)
    for number, off_days in enumerate([0, days, 0.5, days, 1.5]):
        clock.advance_ms(8 * 3_600_000)
        put(shelf, number, Verdict.ACCEPT, utc_ns=NOON + round(off_days * DAY_NS))
    assert left(tmp_path) == [f"{number}-accept" for number in range(1, 5)]
    for number in range(5, 7):
        clock.advance_ms(8 * 3_600_000)
        put(shelf, number, Verdict.ACCEPT, utc_ns=NOON + number * DAY_NS)
    assert "4-accept" in left(tmp_path) and "0-accept" not in left(tmp_path)


def test_a_new_start_counts_what_is_there_and_throws_half_files_away(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    file = put(shelf, 1, Verdict.REJECT)
    (tmp_path / "evidence/.unfinished/120001.000-0001-2-reject.jpg").write_bytes(b"half")
    orphan = heat_file(tmp_path / file.replace("-1-", "-2-"))
    orphan.write_bytes(b"a heat map whose picture never came")
    (tmp_path / "evidence/2026/12/13/notes.txt").write_text("somebody else's")
    again = open_shelf(tmp_path)
    assert again.used_bytes == 1000 and left(tmp_path) == ["1-reject"]
    assert not orphan.exists() and list((tmp_path / "evidence/.unfinished").iterdir()) == []


def test_a_heat_map_comes_and_goes_with_its_picture(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, quota=2500)
    file = shelf.place(PartKey(1, 1), Verdict.ACCEPT, NOON, ".png")
    shelf.put(file, Verdict.ACCEPT, bytes(1500), bytes(500))
    assert heat_file(tmp_path / file).is_file() and shelf.used_bytes == 2000
    put(shelf, 2, Verdict.REJECT)
    assert not heat_file(tmp_path / file).exists() and shelf.used_bytes == 1000


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = open_shelf(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shelf_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put(shelf, 1, Verdict.REJECT)
    assert [path for path in (tmp_path / "evidence").rglob("*") if path.is_file()] == [] and shelf.used_bytes == 0


def test_the_journals_reserve_is_left_free_and_costs_accepted_pictures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_shelf(tmp_path, reserve=5000)
    monkeypatch.setattr(shelf_module, "free_bytes", lambda _: 100_000)
    put(shelf, 1, Verdict.ACCEPT)
    put(shelf, 2, Verdict.REJECT)
    monkeypatch.setattr(shelf_module, "free_bytes", lambda _: 5_500)
    put(shelf, 3, Verdict.REJECT)
    assert left(tmp_path) == ["2-reject", "3-reject"]
    with pytest.raises(OSError, match="No space"):
        put(shelf, 4, Verdict.REJECT)
    assert left(tmp_path) == ["2-reject", "3-reject"]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(Verdict)), st.integers(100, 3000)), max_size=25))
def test_the_quota_holds_and_the_sum_is_the_disks(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[tuple[Verdict, int]]
) -> None:
    state = tmp_path_factory.mktemp("state")
    shelf = open_shelf(state, quota=6000)
    for number, (verdict, size) in enumerate(pictures):
        try:
            put(shelf, number, verdict, size)
        except QuotaFull:
            assert verdict is Verdict.ACCEPT
        on_disk = sum(file.stat().st_size for file in (state / "evidence").rglob("*.jpg"))
        assert shelf.used_bytes == on_disk <= 6000
