"""What keeps a catalogue from being opened is named, and only a file that is no good is advised to be removed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from edge_runtime.catalogue.catalogue import Catalogue
from edge_runtime.core.errors import StorageError
from edge_runtime.recording import database

REMOVE = "remove it and import"


def folder_in_its_place(path: Path, _: ExitStack) -> None:
    path.mkdir()


def file_above(path: Path, _: ExitStack) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def another_program(path: Path, stack: ExitStack) -> None:
    other = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")


def nonsense(path: Path, _: ExitStack) -> None:
    path.write_bytes(b"no database at all " * 300)


def damaged(path: Path, _: ExitStack) -> None:
    Catalogue(path).close()
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def other_tables(path: Path, _: ExitStack) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE VIEW item AS SELECT 1 AS x")
        db.commit()


@pytest.mark.parametrize(
    ("make", "word", "must_go"),
    [
        (folder_in_its_place, "check permissions", False),
        (file_above, "check permissions", False),
        (another_program, "another program holds", False),
        (nonsense, "not a database", True),
        (damaged, "malformed", True),
        (other_tables, "no such", True),
    ],
)
def test_only_a_file_that_is_no_good_is_to_be_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path, ExitStack], None],
    word: str,
    must_go: bool,
) -> None:
    monkeypatch.setattr(database, "BUSY_WAIT_S", 0.05)
    path = tmp_path / "state" / "catalogue.db"
    path.parent.mkdir()
    with ExitStack() as stack:
        make(path, stack)
        with pytest.raises(StorageError) as told, Catalogue(path) as catalogue:
            catalogue.search("bolt")
    said = f"{told.value} {told.value.fix}"
    assert word in said and (REMOVE in said) is must_go
