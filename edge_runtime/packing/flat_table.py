"""Tables of a flatbuffer, read field by field: just enough for what a model file says about itself.

Not the `flatbuffers` library with generated classes: those of TFLite metadata are in no package that a box has. Every
offset is checked against the bytes there are: whatever points elsewhere raises ValueError, never more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MOST_ITEMS = 100_000  # of a vector of tables; a model has some hundred tensors
MOST_TEXT = 1 << 16


@dataclass(frozen=True, slots=True)
class Table:
    """One table: where it stands in the bytes. Fields go by the number that the schema gives them."""

    content: bytes
    at: int

    def table(self, field: int) -> Table | None:
        where = self._place(field)
        return None if where is None else Table(self.content, where + self._u32(where))

    def tables(self, field: int) -> list[Table]:
        start, count = self._vector(field)
        if count > MOST_ITEMS:
            raise ValueError(f"a vector of {count} tables")
        return [Table(self.content, at + self._u32(at)) for at in range(start, start + 4 * count, 4)]

    def text(self, field: int) -> str:
        """Empty where it is not there."""
        return self.data(field)[:MOST_TEXT].decode("utf-8", errors="replace")

    def texts(self, field: int) -> list[str]:
        return [table._string() for table in self.tables(field)]

    def data(self, field: int) -> bytes:
        """A vector of bytes, or the bytes of a text."""
        start, count = self._vector(field)
        return self._bytes(start, count)

    def floats(self, field: int) -> tuple[float, ...]:
        start, count = self._vector(field)
        return struct.unpack(f"<{count}f", self._bytes(start, 4 * count))

    def number(self, field: int, default: int = 0) -> int:
        """An unsigned 32-bit number."""
        where = self._place(field)
        return default if where is None else self._u32(where)

    def small(self, field: int, default: int = 0) -> int:
        """A number of one byte: enumerations, and the kind of a union, which is a field before its value."""
        where = self._place(field)
        return default if where is None else self._bytes(where, 1)[0]

    def _string(self) -> str:
        return self._bytes(self.at + 4, min(self._u32(self.at), MOST_TEXT)).decode("utf-8", errors="replace")

    def _vector(self, field: int) -> tuple[int, int]:
        where = self._place(field)
        if where is None:
            return 0, 0
        start = where + self._u32(where)
        return start + 4, self._u32(start)

    def _place(self, field: int) -> int | None:
        """Where the field stands, by the table of places that each table points back to."""
        (back,) = struct.unpack("<i", self._bytes(self.at, 4))
        places = self.at - back
        (size,) = struct.unpack("<H", self._bytes(places, 2))
        entry = 4 + 2 * field
        if entry + 2 > size:
            return None
        (offset,) = struct.unpack("<H", self._bytes(places + entry, 2))
        return self.at + offset if offset else None

    def _u32(self, at: int) -> int:
        return int(struct.unpack("<I", self._bytes(at, 4))[0])

    def _bytes(self, at: int, count: int) -> bytes:
        if at < 0 or at + count > len(self.content):
            raise ValueError(f"an offset points to byte {at} of {len(self.content)}")
        return self.content[at : at + count]


def root(content: bytes, mark: bytes) -> Table:
    """The root table of a flatbuffer with this mark. Raises ValueError."""
    if content[4:8] != mark:
        raise ValueError(f"no {mark.decode()} mark")
    return Table(content, int(struct.unpack("<I", content[:4])[0]))
