"""Slots changed by several processes, by processes that are killed, and by users with any umask."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.core.custody import custody_of
from edge_runtime.core.errors import StorageError
from edge_runtime.modelstore import slots_file
from edge_runtime.modelstore.slots import Slots, held_of
from edge_runtime.modelstore.slots_file import FILE, LOCK, Slot
from edge_runtime.modelstore.store import ModelStore

ROUNDS = 100  # without the lock 61 of them lose a change
NOBODY = 65534
STAGER = """
import sys
from edge_runtime.modelstore.slots import Slots
from edge_runtime.modelstore.store import ModelStore
slots = Slots(ModelStore(sys.argv[1], []))
print("ready", flush=True)
for line in sys.stdin:
    slots.stage(line.strip(), by=sys.argv[2])
    print("done", flush=True)
"""


def forked(work: Callable[[], object], uid: int | None = None, umask: int | None = None) -> subprocess.Popen | int:
    """Run in a process of its own, as another user; its exit code is 0 unless it raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: the child only does this
        pid = os.fork()
    if pid:
        return pid
    try:
        if umask is not None:
            os.umask(umask)
        if uid is not None:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def succeeds(work: Callable[[], object], uid: int | None = None, umask: int | None = None) -> bool:
    return os.waitpid(forked(work, uid, umask), 0)[1] == 0


@pytest.fixture
def store(tmp_path, make_bundle):
    store = ModelStore(tmp_path / "store", [])
    for name in ("a", "b", "c"):
        for version in ("1", "2"):
            store.install(make_bundle("heatmap", name=name, version=version, folder=tmp_path / name / version))
    return store


def test_three_programs_that_stage_at_once_lose_nothing_in_a_hundred_rounds(store):
    names = ("a", "b", "c")
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", STAGER, str(store.own), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for name in names
    ]  # fmt: skip
    try:
        assert [program.stdout.readline() for program in programs] == ["ready\n"] * 3
        lost = 0
        for turn in range(ROUNDS):
            version = str(1 + turn % 2)
            for name, program in zip(names, programs, strict=True):
                program.stdin.write(f"{name}@{version}\n")
                program.stdin.flush()
            assert [program.stdout.readline() for program in programs] == ["done\n"] * 3
            slots = Slots(store)
            lost += sorted(slots.waiting()) != [f"{name}@{version}" for name in names]
        assert lost == 0
        changes = slots.untold()
        assert [change.number for change in changes] == list(range(changes[0].number, changes[0].number + len(changes)))
    finally:
        for program in programs:
            program.stdin.close()
            program.wait()
            program.stdout.close()


def test_a_lock_that_another_program_keeps_is_told_and_nothing_is_changed(store, monkeypatch):
    monkeypatch.setattr(slots_file, "LOCK_WAIT_S", 0.1)
    slots = Slots(store)
    slots.stage("a@1")
    with (store.own / LOCK).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="held by another program"):
            slots.stage("a@2")
    assert slots.waiting() == ["a@1"]
    slots.stage("a@2")


def test_a_process_killed_at_any_point_of_a_change_leaves_one_choice_or_the_other(store):
    one, two = held_of(store.resolve("a@1")), held_of(store.resolve("a@2"))
    slots, chance = Slots(store), random.Random(7)
    slots.change("a", "set", lambda slot: Slot(active=one, previous=two))

    def turn_about():
        while True:
            slots.change("a", "promoted", lambda slot: replace(slot, active=slot.previous, previous=slot.active))

    seen = set()
    for _ in range(60):
        pid = forked(turn_about)
        try:
            signal.sigtimedwait([], chance.uniform(0.0, 0.03))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        slot = Slots(store).of("a")
        assert {slot.active, slot.previous} == {one, two}
        seen.add(slot.active)
        slots.stage("b@1")  # the lock went with the process
        slots.stage("b@2")
    assert seen == {one, two}


@pytest.mark.parametrize("failure", ["full", "read-only"])
def test_a_disk_that_refuses_changes_nothing_and_says_so(store, monkeypatch, failure):
    slots = Slots(store)
    slots.stage("a@1")
    before = (store.own / FILE).read_bytes()
    number = 28 if failure == "full" else 30

    def refuse(fd):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="cannot write"):
        slots.stage("a@2")
    monkeypatch.undo()
    assert (store.own / FILE).read_bytes() == before
    assert sorted(path.name for path in store.own.iterdir()) == ["a", "activations.jsonl", "b", "c", FILE, LOCK]


# -- whoever writes ----------------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to write as one user and read as another")
UMASKS = [0o000, 0o022, 0o027, 0o077]


@pytest.fixture
def state():
    """A state folder as the unit makes it, where its user can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="edge-state-"))
    folder.chmod(0o755)
    state = folder / "state"
    state.mkdir()
    state.chmod(0o750)
    yield state
    shutil.rmtree(folder)


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (folder, *folder.rglob("*"))}


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in (folder, *folder.rglob("*"))}


@needs_root
@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_what_root_writes_belongs_to_whom_the_folder_belongs_and_is_of_use_to_them(state, make_bundle, umask):
    os.chown(state, NOBODY, NOBODY)
    bundles = [make_bundle("heatmap", name="a", version=version) for version in ("1", "2", "3")]
    store = ModelStore(state / "models", [])

    def as_root():
        for bundle in bundles[:2]:
            store.install(bundle)
        Slots(store).change("a", "set", lambda slot: Slot(active=held_of(bundles[0])))
        Slots(store).stage("a@2")

    assert succeeds(as_root, umask=umask)
    assert owners(state) == {(NOBODY, NOBODY)}
    assert modes(state) == {0o750, 0o640}

    def as_the_service():
        slots = Slots(store)
        assert [one.label for one in store.list()] == ["a@2", "a@1"]
        assert store.resolve("a@2").digest == bundles[1].digest
        slots.change("a", "promoted", lambda slot: Slot(active=slot.candidate, previous=slot.active))
        assert slots.of("a").previous == held_of(bundles[0])

    assert succeeds(as_the_service, uid=NOBODY, umask=umask)
    assert succeeds(lambda: store.install(bundles[2]), umask=umask)  # and root again
    assert succeeds(lambda: Slots(store).stage("a@3"), uid=NOBODY)
    assert owners(state) == {(NOBODY, NOBODY)} and modes(state) == {0o750, 0o640}


@needs_root
@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_what_an_earlier_root_left_behind_is_mended_by_the_next_change(state, make_bundle, umask):
    os.chown(state, NOBODY, NOBODY)
    store = ModelStore(state / "models", [])
    store.install(make_bundle("heatmap", name="a"))
    Slots(store).stage("a@1")
    mask = 0o777 & ~umask
    for path in (store.own, *store.own.rglob("*")):
        os.chown(path, 0, 0)
        path.chmod(mask if path.is_dir() else mask & 0o666)
    if umask == 0o077:

        def look():
            with pytest.raises(StorageError):
                store.list()

        assert succeeds(look, uid=NOBODY), "a store that cannot be read is told, not taken for an empty one"
    store.install(make_bundle("heatmap", name="b"))
    Slots(store).stage("b@1")
    assert owners(state) == {(NOBODY, NOBODY)}
    assert succeeds(lambda: Slots(store).stage("a@1"), uid=NOBODY)


@needs_root
@pytest.mark.parametrize("hidden", ["models", "models/a", "models/a/1", f"models/{FILE}"])
def test_what_the_service_may_not_read_is_told_with_the_fix(state, make_bundle, hidden):
    os.chown(state, NOBODY, NOBODY)
    store = ModelStore(state / "models", [])
    store.install(make_bundle("heatmap", name="a"))
    Slots(store).stage("a@1")
    os.chown(state / hidden, 0, 0)
    (state / hidden).chmod(0o700 if (state / hidden).is_dir() else 0o600)

    def look():
        with pytest.raises(StorageError, match="chown -R --reference="):
            store.list()
            Slots(store).of("a")

    assert succeeds(look, uid=NOBODY)


@needs_root
def test_a_link_in_the_store_is_not_followed_to_what_root_could_give_away(state, tmp_path):
    os.chown(state, NOBODY, NOBODY)
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (state / "models").mkdir()
    os.chown(state / "models", NOBODY, NOBODY)
    (state / "models" / LOCK).symlink_to(secret)
    with pytest.raises(StorageError):
        Slots(ModelStore(state / "models", [])).amend("a", lambda slot: replace(slot, starts=1))
    assert secret.stat().st_uid == 0


def test_modes_follow_the_folder_and_are_never_open_to_writing_by_others(tmp_path):
    for mode, wanted in ((0o700, 0o700), (0o750, 0o750), (0o755, 0o755), (0o775, 0o755)):
        tmp_path.chmod(mode)
        custody = custody_of(tmp_path / "models")
        assert (custody.folder_mode, custody.file_mode) == (wanted, wanted & 0o666)
    tmp_path.chmod(0o777)
    assert custody_of(tmp_path / "models").folder_mode == 0o755
    tmp_path.chmod(0o700)
