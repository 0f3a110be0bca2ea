"""The message catalogue: one JSON file a language in `static/messages/`, flat, `{"name": "text with {places}"}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static" / "messages"
DEFAULT = "en"


@cache
def languages() -> Mapping[str, Mapping[str, str]]:
    """Language -> name -> text. Every language is complete."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}


def choose(asked: str, accepted: str) -> str:
    """A language that there is. asked: by the switch, or empty. accepted: the header Accept-Language."""
    if asked in languages():
        return asked
    ranked = sorted(_ranked(accepted), reverse=True)
    return next((name for _, _, name in ranked if name in languages()), DEFAULT)


def _ranked(header: str) -> list[tuple[float, int, str]]:
    """(weight, the earlier the larger, language) of each that is well formed."""
    found = []
    for place, one in enumerate(header[:500].split(",")):
        name, _, weight = one.strip().partition(";q=")
        try:
            found.append((float(weight or 1.0), -place, name.partition("-")[0].lower()))
        except ValueError:
            continue
    return found
