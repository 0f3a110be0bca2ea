"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import stat

import pytest

from edge_runtime.core import files
from edge_runtime.core.custody import Custody
from edge_runtime.core.files import identity_of, is_still_at, sync, write_atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def synced(monkeypatch):
    """Files and folders that were synced, by inode."""
    seen = []
    real = os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda fd: (seen.append(os.fstat(fd).st_ino), real(fd))[1])
    return seen


def test_a_file_takes_the_place_of_another_and_both_are_on_the_medium(tmp_path, synced):
    path = tmp_path / "mark"
    path.write_text("old")
    with path.open("rb") as old:
        write_atomic(path, "new")
        assert old.read() == b"old"  # who reads the old one reads all of it
    assert path.read_text() == "new" and names(tmp_path) == ["mark"]
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]


def test_a_folder_is_left_alone_where_the_old_file_is_as_good(tmp_path, synced):
    write_atomic(tmp_path / "mark", b"new", sync_folder=False)
    assert synced == [(tmp_path / "mark").stat().st_ino]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "mark"
    path.write_text("old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os if call == "fsync" else files.Path, call, refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["mark"]


def test_what_somebody_left_unfinished_is_in_nobodys_way(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "mark.new").symlink_to(elsewhere)
    write_atomic(tmp_path / "mark", "new")
    assert (elsewhere.read_text(), (tmp_path / "mark").read_text()) == ("mine", "new")
    assert names(tmp_path) == ["elsewhere", "mark"]


def test_an_unfinished_file_lies_where_it_is_told_and_takes_its_owners_mode(tmp_path):
    (tmp_path / "aside").mkdir()
    before = os.umask(0o077)
    try:
        custody = Custody(None, None, 0o755)
        write_atomic(tmp_path / "slots", "x", beside=tmp_path / "aside" / "slots", custody=custody)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "slots").stat().st_mode) == 0o644
    assert names(tmp_path / "aside") == []


def test_a_name_leads_to_its_file_until_it_is_replaced_or_removed(tmp_path):
    path = tmp_path / "lock"
    assert identity_of(path) is None
    write_atomic(path, "one")
    first = identity_of(path)
    with path.open() as held:
        assert is_still_at(path, held.fileno())
        write_atomic(path, "two")
        assert not is_still_at(path, held.fileno()) and identity_of(path) != first
        path.unlink()
        assert not is_still_at(path, held.fileno()) and identity_of(path) is None
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(path)
