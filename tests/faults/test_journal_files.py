"""Somebody else at the journal's files: deleted, replaced, cut, flipped, while it runs and while it stands."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.recording.log_salvage import FRAME, HEAD, proven
from tests.faults.journal_rig import (
    Writer,
    check_promise,
    copy_over,
    cut,
    delete,
    flip,
    keep_older,
    move_over,
    rows_of,
    start_again,
)

Deed = Callable[[Path, Path, random.Random], None]


def on(end: str, what: Callable[[Path, random.Random], None]) -> Deed:
    def deed(journal: Path, _: Path, rng: random.Random) -> None:
        what(journal.with_name(journal.name + end), rng)

    return deed


def remove_folder(journal: Path, _: Path, __: random.Random) -> None:
    shutil.rmtree(journal.parent)


def move_folder(journal: Path, _: Path, __: random.Random) -> None:
    journal.parent.rename(journal.parent.with_name("moved"))


RESCUED: dict[str, Deed] = {  # the open journal still has every row, so none may be missing
    "log": delete("-wal"),
    "shared memory": delete("-shm"),
    "both companions": delete("-wal", "-shm"),
    "database": delete(""),
    "database and log": delete("", "-wal"),
    "database and shared memory": delete("", "-shm"),
    "all three": delete("", "-wal", "-shm"),
    "folder": remove_folder,
    "folder moved": move_folder,
    "older one moved over": move_over,
}
RUNNING: dict[str, Deed] = {  # the same files, written over
    "older one copied over": copy_over,
    "database cut": on("", cut),
    "database flipped": on("", flip),
    "log flipped": on("-wal", flip),
    "log cut": on("-wal", cut),
    "shared memory flipped": on("-shm", flip),
}
STANDING: dict[str, Deed] = {
    "log flipped": on("-wal", flip),
    "log cut": on("-wal", cut),
    "log deleted": delete("-wal"),
    "shared memory flipped": on("-shm", flip),
    "shared memory deleted": delete("-shm"),
    "companions deleted": delete("-wal", "-shm"),
    "database flipped": on("", flip),
    "database cut": on("", cut),
    "database deleted": delete(""),
    "all deleted": delete("", "-wal", "-shm"),
    "older one restored": copy_over,
}


def run_through(tmp_path: Path, deed: Deed, seed: int) -> tuple[int, list[str], str]:
    rng = random.Random(seed)
    path = tmp_path / "state" / "journal.db"
    writer = Writer(path)
    try:
        writer.go_on(rng.randrange(3, 12))
        keep_older(path, tmp_path / "older")
        writer.go_on(rng.randrange(3, 40))
        before = rows_of(path)
        deed(path, tmp_path / "older", rng)
        writer.go_on(4)
    finally:
        writer.kill()
    found = start_again(path)
    return check_promise(found, writer.flushed, before, writer.words), found.kinds, writer.words


@pytest.mark.parametrize("what", RESCUED)
def test_what_is_taken_from_under_the_running_journal_is_rescued(tmp_path: Path, what: str) -> None:
    missing, kinds, words = run_through(tmp_path, RESCUED[what], seed=len(what))
    assert missing == 0
    assert "journal.rescued" in kinds and "rows were rescued" in words


@pytest.mark.parametrize("what", RUNNING)
def test_what_is_written_over_under_the_running_journal_is_kept_or_counted(tmp_path: Path, what: str) -> None:
    run_through(tmp_path, RUNNING[what], seed=len(what))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The state of a box whose power was cut: 60 parts flushed, all of them still in the log, and an older copy."""
    folder = tmp_path_factory.mktemp("crashed")
    writer = Writer(folder / "state" / "journal.db")
    try:
        writer.go_on(12)
        keep_older(folder / "state" / "journal.db", folder / "older")
        writer.go_on(30)
    finally:
        writer.kill()
    yield folder, writer.flushed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("what", STANDING)
def test_what_is_done_to_a_standing_box_is_kept_or_counted(
    tmp_path: Path, crashed: tuple[Path, int], what: str, seed: int
) -> None:
    folder, flushed = crashed
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "state" / "journal.db"
    shutil.copytree(tmp_path / "state", tmp_path / "look")
    before = rows_of(tmp_path / "look" / "journal.db")
    STANDING[what](path, tmp_path / "older", random.Random(f"{what} {seed}"))
    check_promise(start_again(path), flushed, before)


@pytest.mark.parametrize("seed", range(6))
def test_a_page_that_was_written_again_after_the_damage_costs_no_part(
    tmp_path: Path, crashed: tuple[Path, int], seed: int
) -> None:
    folder, flushed = crashed
    shutil.copytree(folder / "state", tmp_path / "state")
    path = tmp_path / "state" / "journal.db"
    log = path.with_name("journal.db-wal")
    frames = list(proven(log.read_bytes()))
    last = {frame.page: frame.number for frame in frames}
    overtaken = [frame.number for frame in frames if last[frame.page] > frame.number + 8]  # a transaction later
    number = random.Random(seed).choice(overtaken)
    with log.open("r+b") as file:
        file.seek(HEAD.size + number * (FRAME.size + 4096) + FRAME.size + 100 * seed)
        file.write(bytes(64))
        file.write(b"\xff" * 8)
    damaged = log.read_bytes()
    found = start_again(path)
    assert check_promise(found, flushed, {}) == 0
    assert found.kinds.count("journal.rescued") == 1 and "journal.db-wal was damaged" in found.detail
    assert path.with_name("journal.damaged.db-wal").read_bytes() == damaged
