"""A file of the box: brought to its version in whole steps, held by one writer, set aside without a loss."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.recording.database import (
    FileLock,
    NewerSchema,
    free_name,
    open_for_reading,
    open_for_writing,
    set_aside,
    version_of,
)

FIRST = "CREATE TABLE one (id INTEGER PRIMARY KEY, word TEXT)"
SECOND = "ALTER TABLE one ADD COLUMN more TEXT; UPDATE one SET more = word || '!'"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with closing(open_for_writing(path, [FIRST])) as db:
        db.execute("INSERT INTO one (word) VALUES ('kept')")
    return path


def test_a_file_is_brought_up_with_its_rows(path: Path) -> None:
    with closing(open_for_writing(path, [FIRST, SECOND])) as db:
        assert db.execute("SELECT word, more FROM one").fetchall() == [("kept", "kept!")] and version_of(db) == 2
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_step_that_fails_changes_nothing_and_the_steps_before_it_stay(path: Path) -> None:
    broken = "ALTER TABLE one ADD COLUMN last TEXT; INSERT INTO nowhere VALUES (1)"
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        open_for_writing(path, [FIRST, SECOND, broken])
    with closing(open_for_reading(path)) as db:
        assert version_of(db) == 2
        assert [column[1] for column in db.execute("PRAGMA table_info(one)")] == ["id", "word", "more"]


def test_a_file_of_a_newer_release_is_not_touched(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match="version 1, this program knows 0"):
        open_for_writing(path, [])
    assert path.read_bytes() == before


def test_a_reader_cannot_write_and_makes_no_file(path: Path) -> None:
    with closing(open_for_reading(path)) as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM one")
    with pytest.raises(sqlite3.OperationalError):
        open_for_reading(path.with_name("none.db"))
    assert not path.with_name("none.db").exists()


def test_one_writer_has_the_lock_until_it_frees_it_or_dies(path: Path) -> None:
    held = (
        "import sys; from pathlib import Path; from edge_runtime.recording.database import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); lock.take(); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", held, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == b"held\n"
    lock = FileLock(path)
    with pytest.raises(BlockingIOError):
        lock.take()
    other.kill()
    other.communicate()
    lock.take()
    lock.take()
    with pytest.raises(BlockingIOError):
        FileLock(path).take()
    lock.free()
    lock.free()
    FileLock(path).take()


def test_what_is_set_aside_is_whole_and_overwrites_nothing(path: Path) -> None:
    writer = open_for_writing(path, [FIRST])
    writer.execute("INSERT INTO one (word) VALUES ('in the log')")
    names = [set_aside(path, "damaged", 1_772_352_930 * 10**9)]
    with closing(open_for_reading(path.with_name(names[0]))) as db:
        assert db.execute("SELECT count(*) FROM one").fetchone() == (2,)
    writer.close()
    open_for_writing(path, [FIRST]).close()
    names.append(set_aside(path, "damaged", 1_772_352_930 * 10**9))
    assert names == ["some.damaged-20260301T081530Z.db", "some.damaged-20260301T081530Z-2.db"]
    assert free_name(path) == path
