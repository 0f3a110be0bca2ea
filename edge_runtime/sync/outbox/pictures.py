"""Pictures that are to be uploaded, in their order: a table of the outbox. The bytes stay where recording put them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.records.format import Draft


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture on its way. `file` lies in the state folder; `acked`: bytes the far side has."""

    id: int
    file: str
    part: str
    verdict: str
    asked: bool
    size: int
    sha256: str
    acked: int


class PictureQueue:
    """Used by the thread that owns the outbox. Methods raise sqlite3.Error, OSError; nothing is half done."""

    def __init__(self, outbox: Queue) -> None:
        self._outbox = outbox

    def next(self, *, only_asked: bool) -> Upload | None:
        """The one to go on with: what somebody waits for first, then the oldest."""
        row = self._outbox.db.execute(
            "SELECT id, file, part, verdict, asked, size, sha256, acked FROM upload"
            f" {'WHERE asked = 1' if only_asked else ''} ORDER BY asked DESC, id LIMIT 1"
        ).fetchone()
        return None if row is None else Upload(*row)

    def ask(self, file: str, part: str, verdict: str) -> None:
        """Somebody waits for this picture: it goes before the others."""
        with self._outbox.transaction():
            self._outbox.db.execute(
                "INSERT INTO upload (file, part, verdict, asked) VALUES (?, ?, ?, 1)"
                " ON CONFLICT (file) DO UPDATE SET asked = 1",
                (file, part, verdict),
            )

    def begin(self, upload: Upload) -> None:
        """Note its size and digest; nothing of it is sent yet."""
        with self._outbox.transaction():
            query = "UPDATE upload SET size = ?, sha256 = ?, acked = 0 WHERE id = ?"
            self._outbox.db.execute(query, (upload.size, upload.sha256, upload.id))

    def advance(self, upload: Upload) -> None:
        """Note how much of it the far side has."""
        with self._outbox.transaction():
            self._outbox.db.execute("UPDATE upload SET acked = ? WHERE id = ?", (upload.acked, upload.id))

    def end(self, upload: Upload, record: Draft) -> None:
        """It arrived, or never will, and the record that says so waits from the same moment on."""
        with self._outbox.transaction():
            self._outbox.db.execute("DELETE FROM upload WHERE id = ?", (upload.id,))
            self._outbox.add([record])

    def count(self) -> int:
        return int(self._outbox.db.execute("SELECT count(*) FROM upload").fetchone()[0])

    def oldest(self, most: int) -> list[tuple[int, str]]:
        """Those that nobody waits for: number and file."""
        query = "SELECT id, file FROM upload WHERE asked = 0 ORDER BY id LIMIT ?"
        return self._outbox.db.execute(query, (most,)).fetchall()

    def add(self, pictures: Iterable[tuple[str, str, str]]) -> None:
        """pictures: file, part, verdict. One that waits already stays as it is. Inside a transaction."""
        self._outbox.db.executemany("INSERT OR IGNORE INTO upload (file, part, verdict) VALUES (?, ?, ?)", pictures)

    def remove(self, numbers: Iterable[int]) -> None:
        """Inside a transaction."""
        self._outbox.db.executemany("DELETE FROM upload WHERE id = ?", [(number,) for number in numbers])
