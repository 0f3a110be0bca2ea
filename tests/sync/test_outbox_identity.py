"""No (epoch, seq) ever has two contents, and nothing that was accepted vanishes uncounted, whatever is done to files.

Real SQLite files. Everything that is handed out is written down as a consumer would see it, over all copies of a box.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.core.machine import Machine
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.aside import Aside, Why
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.guard import READ_BACK_NS, OutboxGuard
from edge_runtime.sync.outbox.mark import mark_file
from edge_runtime.sync.outbox.schema import MIGRATIONS
from edge_runtime.sync.outbox.seal import BLOCK, FILE_BYTES, last_file, read_seal, seal_file
from edge_runtime.sync.records.format import Kind, RecordFormat, own_record

CLOCK = ManualClock()
WALL = WallClock(CLOCK, lambda: 1_800_000_000 * SECOND)
FILES = ("outbox.db", "outbox.db-wal", "outbox.db-shm", "outbox.seal", "outbox.last", "outbox.mark")
BOOT = "boot1"


class Cloud:
    """Keeps the first content of each name, as a consumer does."""

    def __init__(self) -> None:
        self.contents: dict[tuple[str, int], bytes] = {}
        self.twice: list[tuple[str, int]] = []

    def take(self, payload: bytes) -> None:
        record = json.loads(payload)
        name = record["epoch"], record["seq"]
        if self.contents.setdefault(name, payload) != payload:
            self.twice.append(name)

    def data(self, kind: str) -> list[dict]:
        found = [json.loads(payload) for payload in self.contents.values()]
        return [record["data"] for record in found if record["kind"] == kind]

    def made(self) -> set[int]:
        return {data["n"] for data in self.data("metrics")}

    def dropped(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for data in self.data("drop"):
            total[data["what"]] += data["count"]
        return total


class Box:
    """An outbox with a sender that hands all to the cloud. `made`: records whose commit returned."""

    def __init__(
        self, folder: Path, cloud: Cloud, numbers: Iterator[int], machine: Machine | None = None, boot: str = BOOT
    ) -> None:
        self.folder, self.cloud, self.numbers = folder, cloud, numbers
        self.made: set[int] = set()
        self.outbox = Outbox(folder / "outbox.db", RecordFormat("box-7"), WALL, lambda _: machine or {}, boot)
        self.guard = OutboxGuard(self.outbox, CLOCK)
        self.aside = Aside(self.outbox, 10**9, WALL)
        self.outbox.open()

    def make(self, count: int) -> None:
        some = [next(self.numbers) for _ in range(count)]

        def add() -> None:
            with self.outbox.transaction():
                self.outbox.add(own_record(Kind.METRICS, {"n": number, "pad": "x" * 200}, WALL) for number in some)

        self.mended(add)
        self.made |= set(some)

    def set_aside(self, share: float, rng: random.Random) -> None:
        """The broker refuses a share of what waits."""

        def go() -> None:
            seqs = [record.seq for record in self.outbox.backlog(0, 2**62, 10**6) if rng.random() < share]
            for why in Why:
                self.aside.begin()
                with self.outbox.transaction():
                    self.aside.put(seqs[why is Why.REFUSED :: 2], why, "no")
                self.aside.committed()

        self.mended(go)

    def send(self, share: float = 1.0, rng: random.Random | None = None) -> None:
        """Everything that waits or lies aside goes out; a share of it is acknowledged and deleted."""

        def go() -> None:
            self.aside.outbox_renewed()
            for why in Why:
                while self.aside.bring_back(why):
                    pass
            waiting = self.outbox.backlog(0, 2**62, 10**6)
            for record in waiting:
                self.cloud.take(record.payload)
            acked = [record.seq for record in waiting if (rng or random).random() < share]
            with self.outbox.transaction():
                self.outbox.settle(acked)

        self.mended(go)

    def look(self) -> None:
        CLOCK.advance_ms(READ_BACK_NS / 1_000_000)
        self.mended(self.guard.look)

    def mended(self, work: Callable[[], object]) -> None:
        """As the daemon does it: a damaged file is set aside, and a new one begins."""
        try:
            work()
        except sqlite3.Error as err:
            if not self.outbox.set_aside_if_damaged(err):
                raise
            self.outbox.open()
            work()

    def die(self) -> None:
        """As by kill -9: no goodbye, the files stay as they are."""
        kept = {}
        for name in FILES:
            path = self.folder / name
            if path.exists():
                kept[name] = path.read_bytes()
        seal = seal_file(self.outbox.path)
        stamp = seal.stat().st_ctime_ns
        self.outbox.close(in_order=False)
        for name, content in kept.items():
            if not name.endswith((".seal", ".last")):
                (self.folder / name).write_bytes(content)
        assert seal.stat().st_ctime_ns == stamp


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def numbers() -> Iterator[int]:
    return iter(range(1, 10**9))


@pytest.fixture
def box(tmp_path: Path, cloud: Cloud, numbers: Iterator[int]) -> Iterator[Box]:
    folder = tmp_path / "state"
    folder.mkdir()
    made = Box(folder, cloud, numbers)
    yield made
    made.outbox.close()


def again(box: Box, folder: Path | None = None, machine: Machine | None = None, boot: str = BOOT) -> Box:
    other = Box(folder or box.folder, box.cloud, box.numbers, machine, boot)
    other.made = set(box.made)
    return other


def whys(cloud: Cloud) -> list[str]:
    """Why each epoch began; those that were carried into the next one are the same again."""
    return [data["why"] for data in cloud.data("epoch") if "epoch" not in data]


# -- what is the same box ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_the_same_box_goes_on_in_its_epoch(box: Box, is_killed: bool) -> None:
    epoch = box.outbox.epoch
    for _ in range(5):
        box.make(700)
        box.send(0.5)
        last = box.outbox.last_seq
        if is_killed:
            box.die()
        else:
            box.outbox.close()
        box = again(box)
        assert (box.outbox.epoch, box.outbox.last_seq) == (epoch, last)
    box.send()
    assert box.cloud.twice == [] and box.cloud.made() == box.made and whys(box.cloud) == ["first"]
    assert not box.cloud.data("drop")
    box.outbox.close()


def test_a_kill_between_the_seal_and_the_commit_is_no_copy(box: Box) -> None:
    epoch = box.outbox.epoch
    with pytest.raises(ZeroDivisionError), box.outbox.transaction():
        box.outbox._keeper.write_seal(box.outbox.epoch, box.outbox.last_seq)
        raise ZeroDivisionError  # the seal is on the disk, the database never learns of it
    box.die()
    assert again(box).outbox.epoch == epoch


def test_after_a_power_cut_no_number_is_used_twice_and_the_ones_left_out_are_named(box: Box) -> None:
    box.make(10)
    box.send(0.0)
    epoch, last = box.outbox.epoch, box.outbox.last_seq
    box.die()
    box = again(box, boot="boot2")
    box.make(1)
    box.send()
    (left_out,) = box.cloud.data("drop")
    assert (left_out["why"], left_out["count"], left_out["seqs"]) == ("power_cut", 0, [[last + 1, last + 990]])
    assert box.outbox.epoch == epoch and box.outbox.last_seq == BLOCK + 3, (
        "the epoch's record and the event's come first"
    )
    names = {seq for known, seq in box.cloud.contents if known == epoch}
    (first, upto), *_ = left_out["seqs"]
    assert names | set(range(first, upto + 1)) == set(range(1, box.outbox.last_seq + 1))
    assert box.cloud.made() == box.made
    box.outbox.close()


def test_a_clean_end_leaves_nothing_out_after_a_boot(box: Box) -> None:
    box.make(10)
    last = box.outbox.last_seq
    box.outbox.close()
    assert again(box, boot="boot2").outbox.last_seq == last


def test_an_outbox_of_the_release_before_gets_a_new_epoch_and_keeps_what_waits(
    tmp_path: Path, cloud: Cloud, numbers: Iterator[int]
) -> None:
    with sqlite3.connect(tmp_path / "outbox.db") as db:
        db.executescript(MIGRATIONS[0].replace("{epoch}", "0123456789abcdef"))
        payload = json.dumps({"epoch": "0123456789abcdef", "seq": 7, "kind": "metrics", "data": {"n": 0}}).encode()
        row = (7, 0, "metrics", zlib.crc32(payload), payload)
        db.execute("INSERT INTO record (seq, lane, kind, crc, payload) VALUES (?, ?, ?, ?, ?)", row)
        db.execute("UPDATE meta SET waiting = 1")
        db.execute("PRAGMA user_version = 1")
    db.close()
    box = Box(tmp_path, cloud, numbers)
    box.send()
    assert box.outbox.epoch != "0123456789abcdef" and cloud.made() == {0} and whys(cloud) == ["unsealed"]
    box.outbox.close()


# -- copies ------------------------------------------------------------------------------------------------------------


def copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target)


def copy_with_everything(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def copy_by_tar(source: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(f"tar -C {source} -cp . | tar -C {target} -xp", shell=True, check=True)


@pytest.mark.parametrize("copy", [copy_tree, copy_with_everything, copy_by_tar], ids=lambda copy: copy.__name__)
@pytest.mark.parametrize("is_running", [False, True], ids=["stopped", "running"])
def test_a_cloned_state_folder_is_another_box(
    box: Box, tmp_path: Path, copy: Callable[[Path, Path], None], is_running: bool
) -> None:
    box.make(50)
    box.send(0.5)
    if not is_running:
        box.outbox.close()
    copy(box.folder, tmp_path / "clone")
    if not is_running:
        box = again(box)
    clone = again(box, tmp_path / "clone")
    for one in (box, clone, box, clone):
        one.make(20)
        one.send(0.7)
    assert box.outbox.epoch != clone.outbox.epoch and box.cloud.twice == []
    assert box.made | clone.made == box.cloud.made() and whys(box.cloud).count("copied") == 1
    events = [data for data in box.cloud.data("event") if data["event"] == "sync.new_epoch"]
    assert events[0]["detail"]["previous"] == box.outbox.epoch
    clone.outbox.close()
    box.outbox.close()


@pytest.mark.parametrize("is_fine", [True, False], ids=["in good order", "killed"])
@pytest.mark.parametrize("names", [FILES, FILES[:3], ("outbox.db",)], ids=["all", "database and log", "database"])
def test_an_older_copy_brought_back_in_place_begins_a_new_epoch(
    box: Box, tmp_path: Path, names: tuple[str, ...], is_fine: bool
) -> None:
    box.make(30)
    box.send(0.5)
    if is_fine:
        box.outbox.close()
    copy_with_everything(box.folder, tmp_path / "backup")
    if is_fine:
        box = again(box)
    before = set(box.made)
    box.make(40)
    box.send(0.5)
    if is_fine:
        box.outbox.close()
    else:
        box.die()
    for name in FILES:
        if name in names and (tmp_path / "backup" / name).exists():
            (box.folder / name).write_bytes((tmp_path / "backup" / name).read_bytes())  # over it: the same inode
        elif name in FILES[1:3] and name not in names:
            (box.folder / name).unlink(missing_ok=True)
    box = again(box)
    box.make(5)
    box.send()
    assert box.cloud.twice == [], names
    assert box.cloud.made() == box.made, "all of it was sent before"
    assert before < box.made and len(whys(box.cloud)) == 2
    box.outbox.close()


@pytest.mark.parametrize(
    ("before", "now", "is_other"),
    [
        ({"serial": ("a",)}, {"serial": ("a",)}, False),
        ({"serial": ("a",)}, {"serial": ("b",)}, True),
        ({"serial": ("a",), "network": ("n",)}, {"serial": ("a",), "network": ("m",)}, False),
        ({"network": ("n", "m")}, {"network": ("m",)}, False),
        ({"network": ("n",)}, {"network": ("m",)}, True),
        ({"serial": ("a",), "medium": ("c",)}, {"serial": ("a",), "medium": ("d",)}, True),
        ({"uuid": ("u",), "network": ("n",)}, {"network": ("n",)}, False),
        ({"network": ("n",)}, {"uuid": ("u",), "network": ("n",)}, False),
        ({"named": ("x",)}, {"named": ("y",)}, True),
        ({"named": ("x",)}, {"named": ("x",)}, False),
        ({"network": ("n",)}, {"named": ("x",)}, True),
        ({}, {"serial": ("a",)}, False),
        ({"serial": ("a",)}, {}, False),
    ],
)
def test_another_machine_or_card_is_another_box(box: Box, before: Machine, now: Machine, is_other: bool) -> None:
    """The same files, as when the card moves or its image was restored: only the hardware differs."""
    box.outbox.close()
    box = again(box, machine=before)
    box.make(3)
    epoch = box.outbox.epoch
    box.outbox.close()
    box = again(box, machine=now)
    box.send()
    assert (box.outbox.epoch != epoch) == is_other
    assert whys(box.cloud) == (["machine"] if is_other else ["first"]) and box.cloud.made() == box.made
    epoch = box.outbox.epoch
    box.outbox.close()
    assert again(box, machine=now).outbox.epoch == epoch, "and then it stays"


# -- damage ------------------------------------------------------------------------------------------------------------


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(64):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def fill(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(path.stat().st_size))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, cut, delete, empty, fill], ids=lambda damage: damage.__name__)
def test_whatever_happens_to_a_file_no_name_has_two_contents_and_what_is_lost_is_counted(
    box: Box, name: str, damage: Callable[[Path, random.Random], None]
) -> None:
    for seed in range(4):
        rng = random.Random(f"{name} {damage.__name__} {seed}")
        for _ in range(rng.randrange(1, 6)):
            box.make(rng.randrange(1, 80))
            box.send(0.6, rng)
        box.make(rng.randrange(0, 60))  # accepted, never sent
        box.set_aside(0.3, rng)
        if rng.random() < 0.5:
            box.outbox.mark()
        accepted = set(box.made)
        if rng.random() < 0.7:
            box.die()
        else:
            box.outbox.close()
        if (box.folder / name).exists() and (box.folder / name).stat().st_size:
            damage(box.folder / name, rng)
        box = again(box)
        box.make(10)
        box.send(1.0, rng)
        assert box.cloud.twice == []
        missing = accepted - box.cloud.made()
        assert len(missing) <= box.cloud.dropped()["metrics"], (seed, sorted(missing))
        box.made -= missing
    box.outbox.close()


@pytest.mark.parametrize("name", ["outbox.db-wal", "outbox.db-shm", "outbox.db", "outbox.seal", "outbox.last", "*"])
def test_files_deleted_under_the_open_outbox_are_made_again_and_nothing_is_lost(box: Box, name: str) -> None:
    box.make(50)
    box.send(0.3)
    box.make(30)
    box.set_aside(0.5, random.Random(1))
    epoch = box.outbox.epoch
    for path in list(box.folder.iterdir()) if name == "*" else [box.folder / name]:
        path.unlink()
    if name == "*":
        box.folder.rmdir()
    box.look()
    box.look()
    box.make(10)
    box.die()
    box = again(box)
    box.send()
    assert box.cloud.twice == [] and box.cloud.made() == box.made
    assert (box.outbox.epoch != epoch) == (name in ("outbox.db", "*")), "the old file may go on elsewhere"
    assert not box.cloud.data("drop") and whys(box.cloud)[1:] in ([], ["removed"])
    box.outbox.close()


def test_a_database_overwritten_under_the_open_outbox_is_seen_and_counted(box: Box) -> None:
    box.make(50)
    box.outbox.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    older = (box.folder / "outbox.db").read_bytes()
    box.make(40)
    box.outbox.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (box.folder / "outbox.db").write_bytes(older)
    box.look()
    box.make(1)
    box.send()
    assert whys(box.cloud) == ["damaged"] and box.cloud.dropped()["metrics"] == 90
    assert box.cloud.made() == {91} and box.cloud.twice == []


def test_a_seal_that_is_only_touched_while_it_is_open_costs_nothing(box: Box) -> None:
    box.make(3)
    epoch = box.outbox.epoch
    seal_file(box.outbox.path).chmod(0o600)
    box.look()
    box.die()
    assert again(box).outbox.epoch == epoch


def test_seal_and_last_number_take_the_same_room_for_ever(box: Box) -> None:
    for _ in range(3):
        box.make(BLOCK)
        box.outbox.mark()
        assert {seal_file(box.outbox.path).stat().st_size, last_file(box.outbox.path).stat().st_size} == {FILE_BYTES}
    seal = read_seal(box.outbox.path)
    assert seal and seal.reserved >= box.outbox.last_seq and mark_file(box.outbox.path).exists()


def test_drops_that_wait_say_of_which_epoch_the_numbers_are(box: Box, tmp_path: Path) -> None:
    box.die()
    box = again(box, boot="boot2")  # names numbers that are left out
    first = box.outbox.epoch
    box.outbox.close()
    copy_tree(box.folder, tmp_path / "clone")
    clone = again(box, tmp_path / "clone", boot="boot2")
    clone.send()
    (drop,) = clone.cloud.data("drop")
    assert drop["epoch"] == first and clone.outbox.epoch != first
    clone.outbox.close()


CHILD = """
import sys
from pathlib import Path
from tests.sync.test_outbox_identity import Box, Cloud
box = Box(Path(sys.argv[1]), Cloud(), iter(range(int(sys.argv[2]), 10**9)))
while True:
    box.make(7)
    for record in box.outbox.backlog(0, 2**62, 10**6):
        sys.stdout.buffer.write(record.payload + b"\\n")
    sys.stdout.buffer.flush()
    with box.outbox.transaction():
        box.outbox.settle(range(1, box.outbox.last_seq - 2))
"""


def test_killed_at_random_between_damages_no_name_has_two_contents(tmp_path: Path, cloud: Cloud) -> None:
    rng = random.Random(3)
    for life in range(8):
        command = [sys.executable, "-c", CHILD, str(tmp_path), str(1 + life * 10**6)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert child.stdout
        for _ in range(rng.randrange(5, 400)):
            cloud.take(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:
            if line.endswith(b"}\n"):
                cloud.take(line)
        child.wait()
        child.stdout.close()
        if life % 2:
            path = tmp_path / rng.choice(FILES[:2])
            rng.choice([flip, cut, fill])(path, rng)
    assert len(cloud.contents) > 200 and cloud.twice == []
