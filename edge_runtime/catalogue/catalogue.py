"""The station's catalogue: parts, defects and work instructions, searched by code, by name and by what is said of them.

One SQLite file with an FTS5 index in the state folder, filled from a CSV file that people edit in a spreadsheet::

    code,kind,name,aliases,instruction,picture
    A742,part,display glass 6.1 inch,"front glass; screen","Wipe with IPA, turn 180 degrees, lay it on again.",

A search tries the code first, because that is what an operator spells. Then the words, ranked by BM25 (Robertson and
Zaragoza, 2009) as SQLite computes it. A code that is not there finds nothing: those one symbol off are asked for apart
(`near`), so that no caller can take one for what was meant.

Standard library only: the page, the command line and the voice line all ask here.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.catalogue.spoken import CODE_WORD, as_code, as_words
from edge_runtime.core.custody import custody_of, rights_fix
from edge_runtime.core.errors import ConfigError, StorageError
from edge_runtime.recording.database import connect
from edge_runtime.recording.trouble import explain, is_of_the_place

DATABASE = "catalogue.db"
SHIPPED = Path(__file__).parent / "demo.csv"
COLUMNS = ("code", "kind", "name", "aliases", "instruction", "picture")
REQUIRED = ("code", "name")
KINDS = ("part", "defect", "instruction")
MOST_ROWS, MOST_CHARACTERS = 200_000, 10_000  # a catalogue, not a library
CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")
WEIGHTS = (0.0, 0.0, 8.0, 6.0, 1.0)  # of the columns below in BM25: a name says more than a sentence in an instruction
LEAST_SPELLED = 3  # words that each stand for a symbol: fewer may be part of a name
NEAR_CODES = 5  # more than that is a list to read, not a hint

_SCHEMA = """
    CREATE TABLE item (
        id INTEGER PRIMARY KEY,
        code TEXT NOT NULL UNIQUE COLLATE NOCASE,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        aliases TEXT NOT NULL,
        instruction TEXT NOT NULL,
        picture TEXT NOT NULL
    );
    CREATE VIRTUAL TABLE words USING fts5 (
        code UNINDEXED, kind UNINDEXED, name, aliases, instruction,
        content = 'item', content_rowid = 'id', tokenize = 'porter unicode61', prefix = '2 3'
    );
"""


@dataclass(frozen=True, slots=True)
class Item:
    code: str
    kind: str
    name: str
    aliases: str
    instruction: str
    picture: str  # file beside the catalogue, or empty


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. `score` is 0..1: 1 is the very code, less is the share of the asked words it holds."""

    item: Item
    score: float
    why: str  # "code", "words"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self.item), "score": round(self.score, 3), "why": self.why, "said": as_words(self.item.code)}


class Catalogue:
    """One open catalogue. Use it in the thread that made it; close it, or use `with`."""

    def __init__(self, path: Path) -> None:
        """path: the database file; made, and filled with the shipped sample, when it is not there.

        Where it cannot be made the sample is asked all the same. Raises StorageError when it cannot be opened.
        """
        self.path = path
        self._not_made: sqlite3.Error | OSError | None = None
        try:
            self._open()
        except (sqlite3.Error, OSError) as err:
            if isinstance(err, PermissionError) or not path.parent.is_dir() or path.exists():
                raise self._trouble("open", err) from err
            self._not_made = err
            self._db = connect(Path(":memory:"))
            self._prepare()

    def _open(self) -> None:
        custody = custody_of(self.path.parent)
        custody.make_folder(self.path.parent)
        is_new = not self.path.exists()
        self._db = connect(self.path)
        self._prepare()
        if is_new:
            custody.take(self.path)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        with self._told():
            return int(self._db.execute("SELECT count(*) FROM item").fetchone()[0])

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What is wrong with the file is told in one sentence with its fix."""
        try:
            yield
        except sqlite3.Error as err:
            raise self._trouble("read", err) from err

    def _trouble(self, what: str, error: sqlite3.Error | OSError) -> StorageError:
        """Only a file that is no good is to be removed: a full disk, a lock or a missing right is not its fault."""
        if isinstance(error, PermissionError):
            return StorageError(f"may not {what} the catalogue {self.path}", rights_fix(self.path, to_write=False))
        if is_of_the_place(error):
            return StorageError(explain(error, "the catalogue", self.path.parent))
        return StorageError(
            f"cannot {what} the catalogue {self.path}: {error}",
            "remove it and import the CSV file again (edge-runtime search --import FILE.csv)",
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    def search(self, text: str, limit: int = 5) -> list[Hit]:
        """What matches a typed or spoken text, the best first. Any text is fine; nothing found is an empty list."""
        code, is_spelled = _asked(text)
        exact = self.item(code) if code else None
        hits = [Hit(exact, 1.0, "code")] if exact else []
        if not is_spelled:  # the words of a spelled code are no words to look for
            with self._told():
                hits += [hit for hit in self._by_words(text, limit) if hit.item != exact]
        return hits[:limit]

    def near(self, text: str) -> list[str]:
        """Codes one symbol off from the code that a text is, for a person to look at; none where that code is there.

        A changed symbol comes before a lost or an added one: it is what a recogniser does more often.
        """
        code, _ = _asked(text)
        if code is None or len(code) < 2 or self.item(code):  # one symbol alone is off by one from all others
            return []
        lengths = (len(code) - 1, len(code) + 1)
        with self._told():
            rows = self._db.execute("SELECT code FROM item WHERE length(code) BETWEEN ? AND ?", lengths).fetchall()
        near = [other for (other,) in rows if _is_one_off(code.upper(), other.upper())]
        return sorted(near, key=lambda other: (len(other) != len(code), other))[:NEAR_CODES]

    def item(self, code: str) -> Item | None:
        with self._told():
            row = self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM item WHERE code = ?", (code,)).fetchone()
        return Item(*row) if row else None

    def items(self) -> Iterator[Item]:
        """All of them, by code."""
        with self._told():
            rows = self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM item ORDER BY code").fetchall()
        yield from (Item(*row) for row in rows)

    def _by_words(self, text: str, limit: int) -> list[Hit]:
        words = re.findall(r"\w+", text.lower())[:32]
        if not words:
            return []
        terms = [f'"{word}"' + ("*" if len(word) > 2 else "") for word in words]
        rows = self._db.execute(
            f"SELECT item.id, {', '.join(f'item.{name}' for name in COLUMNS)} FROM words "
            "JOIN item ON item.id = words.rowid "
            f"WHERE words MATCH ? ORDER BY bm25(words, {', '.join(map(str, WEIGHTS))}) LIMIT ?",
            (" OR ".join(terms), 4 * limit),
        ).fetchall()
        held = self._held(terms, [row[0] for row in rows])
        hits = [Hit(Item(*row[1:]), 0.95 * held[row[0]] / len(terms), "words") for row in rows]
        return sorted(hits, key=lambda hit: -hit.score)  # a stable sort: BM25 decides among equals

    def _held(self, terms: Sequence[str], ids: Sequence[int]) -> Counter[int]:
        """How many of the asked words each of these items holds, as the index understands words."""
        held: Counter[int] = Counter()
        marks = ", ".join("?" * len(ids))
        for term in terms:
            query = f"SELECT rowid FROM words WHERE words MATCH ? AND rowid IN ({marks})"
            held.update(row[0] for row in self._db.execute(query, (term, *ids)))
        return held

    # -- filling ------------------------------------------------------------------------------------------------------

    def import_csv(self, path: Path) -> int:
        """Replace everything by the rows of a file, whole or not at all; the number of rows.

        Raises ConfigError with file, line and the fix when a row is wrong.
        """
        items = read_csv(path)
        if self._not_made:
            raise self._trouble("make", self._not_made)
        try:
            self._fill(items)
        except sqlite3.Error as err:
            raise StorageError(f"cannot write the catalogue {self.path}: {err}") from err
        return len(items)

    def _prepare(self) -> None:
        if not self._db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'item'").fetchone():
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._fill(read_csv(SHIPPED))

    def _fill(self, items: Sequence[Item]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("DELETE FROM item")
            self._db.executemany(
                f"INSERT INTO item ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)",
                [tuple(getattr(item, name) for name in COLUMNS) for item in items],
            )
            self._db.execute("INSERT INTO words (words) VALUES ('rebuild')")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


def read_csv(path: Path) -> list[Item]:
    """The rows of a catalogue file: UTF-8, a header line, comma or semicolon. Raises ConfigError with the line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as err:
        raise ConfigError(f"cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not UTF-8 at byte {err.start}", "save it as CSV UTF-8") from err
    lines = io.StringIO(text, newline="")  # a line break inside quotes is a character of its field
    header_line = lines.readline()
    lines.seek(0)
    delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
    rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in rows.fieldnames or ()]
        _check_header(path, header)
        rows.fieldnames = header
        items = [
            _item(path, rows.line_num, row)
            for row in rows
            if any(isinstance(v, str) and v.strip() for v in row.values())
        ]
    except csv.Error as err:
        raise ConfigError(f"{path}, line {rows.line_num}: {err}", "check the quotes") from err
    return _distinct(path, items)


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    if missing or unknown:
        what = f"no column {', '.join(missing)}" if missing else f"unknown column {', '.join(unknown)}"
        raise ConfigError(f"{path}: {what}; the first line names columns: {','.join(COLUMNS)}")


def _item(path: Path, line: int, row: dict[str, Any]) -> Item:
    if None in row or None in row.values():
        raise ConfigError(
            f"{path}, line {line}: another number of fields than the header", "put text with commas in quotes"
        )
    fields = {name: (row.get(name) or "").strip() for name in COLUMNS}
    for name in ("name", "aliases"):  # are shown and said in one line; an instruction keeps its own
        fields[name] = " ".join(fields[name].split())
    fields["kind"] = fields["kind"].lower() or KINDS[0]
    too_long = next((name for name, value in fields.items() if len(value) > MOST_CHARACTERS), None)
    if not CODE.fullmatch(fields["code"]):
        raise ConfigError(
            f"{path}, line {line}: code '{fields['code']}' must be letters, digits and dashes, 32 at most"
        )
    if not fields["name"]:
        raise ConfigError(f"{path}, line {line}: {fields['code']} has no name")
    if fields["kind"] not in KINDS:
        raise ConfigError(f"{path}, line {line}: kind '{fields['kind']}' is none of {', '.join(KINDS)}")
    if too_long:
        raise ConfigError(f"{path}, line {line}: {too_long} has more than {MOST_CHARACTERS} characters")
    return Item(**fields)


def _distinct(path: Path, items: list[Item]) -> list[Item]:
    if not items:
        raise ConfigError(f"{path}: no rows; the catalogue stays as it is")
    if len(items) > MOST_ROWS:
        raise ConfigError(f"{path}: {len(items)} rows, at most {MOST_ROWS}")
    seen: set[str] = set()
    for item in items:
        if item.code.upper() in seen:
            raise ConfigError(f"{path}: code {item.code} stands there twice")
        seen.add(item.code.upper())
    return items


def _asked(text: str) -> tuple[str | None, bool]:
    """The code that a text may be, and whether it was spelled: announced, or in so many words that it is nothing else.

    "glass 6 1" and "delta 1" may as well be names.
    """
    spelled, typed, words = as_code(text), text.strip(), text.lower().split()
    is_spelled = spelled is not None and len(words) > 1 and (words[0] == CODE_WORD or len(words) >= LEAST_SPELLED)
    return spelled or (typed if CODE.fullmatch(typed) else None), is_spelled


def _is_one_off(a: str, b: str) -> bool:
    """One symbol changed, added or dropped."""
    short, long = sorted((a, b), key=len)
    at = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    return a != b and short[at + (len(short) == len(long)) :] == long[at + 1 :]
