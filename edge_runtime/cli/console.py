"""Text on terminals that cannot show every sign: serial consoles and old locales get a plain one, not an error."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

PLAIN = {
    "✔": "+", "▲": "!", "✖": "x", "●": "*", "○": "o", "•": "*", "·": ".", "→": "->", "←": "<-", "…": "...", "–": "-",
    "—": "-", "−": "-", "×": "x", "≤": "<=", "≥": ">=", "°": " deg", "µ": "u", "│": "|", "─": "-", "━": "=", "█": "#",
}  # fmt: skip


def speak_plainly() -> None:
    """From now on stdout and stderr replace what their encoding does not have; nothing changes where it has all."""
    codecs.register_error("plain", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wanted = error.object[error.start : error.end]
    return "".join(_plain(sign) for sign in wanted), error.end


def _plain(sign: str) -> str:
    """A sign's stand-in: of the table, else its letter without accent, else a question mark."""
    for text in (PLAIN.get(sign, ""), unicodedata.normalize("NFKD", sign)[:1]):
        if text and text.isascii():
            return text
    return "?"
