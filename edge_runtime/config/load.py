"""Reading the station file, and saying what is wrong with it so that a technician can mend it.

A message names file, key, value, the allowed range and, for an unknown key, the nearest known one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_runtime.config.moved import drop_old_keys, move_old_keys
from edge_runtime.config.paths import with_service_folders
from edge_runtime.config.schema import EdgeConfig, kinds_of
from edge_runtime.core.errors import ConfigError
from edge_runtime.core.files import as_text

EMBEDDED = "embedded demo station"
DEMO = {"modelstore": {"require_signature": False}}  # it trusts no repository yet: any model may be tried on it
COMMAND_LINE = "command line"  # who set a key with --set
MOST_SHOWN = 120  # characters of a line
MOST_FAULTS = 20  # told at once: what has more is another kind of file, and each costs a search for the nearest key
_TOO_DEEP = "{}: is nested too deeply to be a station file"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The effective station: where it came from, and which keys the file or the command line set."""

    config: EdgeConfig
    origin: str
    given: Mapping[str, str]  # dotted key -> who set it; every other key is a default
    moved: tuple[str, ...] = ()  # a sentence for each key that stands where an earlier release had it

    @property
    def digest(self) -> str:
        return digest(self.config)


def digest(config: EdgeConfig) -> str:
    """SHA-256 over the effective values in canonical JSON: equal stations have equal digests."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path | None, settings: Iterable[str] = ()) -> Loaded:
    """Read and check a station file. `settings` are `section.key=value` from the command line, values in TOML.

    Raises ConfigError with one line for each thing that is wrong.
    """
    try:
        return _load(path, settings)
    except RecursionError as err:
        raise ConfigError(_TOO_DEEP.format(path or EMBEDDED)) from err


def _load(path: Path | None, settings: Iterable[str]) -> Loaded:
    origin = str(path) if path else EMBEDDED
    tree = _read(path) if path else {section: dict(keys) for section, keys in DEMO.items()}
    given = {key: origin for key, _ in _leaves(tree)}
    moved = move_old_keys(tree, given, winner=COMMAND_LINE)
    for setting in settings:
        key, value = _parse_setting(setting)
        _assign(tree, key, value, setting)
        given[key] = COMMAND_LINE
    moved += move_old_keys(tree, given, winner=COMMAND_LINE) + drop_old_keys(tree, given)
    try:
        config = EdgeConfig.model_validate(with_service_folders(path, tree))
    except ValidationError as err:
        faults = err.errors(include_url=False)
        lines = [_sentence(origin, fault) for fault in faults[:MOST_FAULTS]]
        if len(faults) > MOST_FAULTS:
            lines.append(f"{origin}: {len(faults) - MOST_FAULTS} more faults")
        raise ConfigError("\n".join(lines)) from err
    return Loaded(config, origin, given, tuple(moved))


def _read(path: Path) -> dict[str, Any]:
    text = ""
    try:
        text = as_text(path.read_bytes())
        return tomllib.loads(text)
    except FileNotFoundError as err:
        raise ConfigError(f"{path}: no such file", "give --config FILE or unset EDGE_RUNTIME_CONFIG") from err
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {err.start})", "save it as UTF-8") from err
    except ValueError as err:  # also what Python says of a number with thousands of digits
        raise ConfigError(f"{path}: is not valid TOML: {err}{_shown(text, str(err))}") from err
    except RecursionError as err:
        raise ConfigError(_TOO_DEEP.format(path)) from err


def _shown(text: str, fault: str) -> str:
    """The line that a fault of TOML is about, its place marked; a line that may hold a secret is not shown."""
    where = re.search(r"at line (\d+), column (\d+)", fault)
    lines = text.splitlines()
    if not where or not 1 <= int(where[1]) <= len(lines):
        return ""
    line, column = lines[int(where[1]) - 1], int(where[2])
    if len(line) > MOST_SHOWN or re.search("pass|secret|token|url", line, re.IGNORECASE):
        return ""
    return f"\n  {line}\n  {' ' * (column - 1)}^"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def leaves(config: BaseModel) -> Iterable[tuple[str, Any]]:
    """Every dotted key of a checked configuration with its effective value."""
    return _leaves(config.model_dump(mode="json"))


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, sep, text = setting.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set {setting}: write it as section.key=value, such as camera.fps=20")
    key, text = key.strip(), text.strip()
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        return key, text  # a bare word is a string
    return key, text if isinstance(value, (int, float)) and _is_text(key) else value


def _is_text(key: str) -> bool:
    """Whether a key takes nothing but text: who types 5 or true for it means the text."""
    *sections, last = key.split(".")
    section = _section_of(tuple(sections))
    info = section.model_fields.get(last) if section else None
    if info is None:
        return False
    return all(isinstance(kind, type) and issubclass(kind, str) for kind in kinds_of(info.annotation))


def _assign(tree: dict[str, Any], key: str, value: Any, setting: str) -> None:
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {setting}: '{section}' is a value, not a section")
    node[last] = value


def _sentence(origin: str, detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = _nearest(detail["loc"])
        return f"{origin}: unknown key '{key}'" + (f"; did you mean '{near}'?" if near else "")
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = "" if isinstance(detail["input"], dict) else f" = {detail['input']!r:.80}"  # a section may hold a password
    quotes = "; it is text: write it in quotes" if _is_text(key) and not isinstance(detail["input"], str) else ""
    return f"{origin}: {key or 'station'}{given}: {message}{_allowed(detail['loc'])}{quotes}"


def _section_of(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = EdgeConfig
    for part in loc:
        info = model.model_fields.get(str(part))
        if info is None or not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            return None
        model = info.annotation
    return model


def _nearest(loc: tuple[int | str, ...]) -> str:
    """The known key that looks most like an unknown one: first in its own section, then anywhere."""
    section = _section_of(loc[:-1])
    word = str(loc[-1])
    if section:
        found = difflib.get_close_matches(word, section.model_fields, n=1)
        if found:
            return ".".join([*map(str, loc[:-1]), found[0]])
    everywhere = {key.rsplit(".", 1)[-1]: key for key, _ in leaves(EdgeConfig())}
    found = difflib.get_close_matches(word, everywhere, n=1)
    return everywhere[found[0]] if found else ""


def _allowed(loc: tuple[int | str, ...]) -> str:
    """The range of a number in words, from the field's own limits."""
    section = _section_of(loc[:-1])
    info = section.model_fields.get(str(loc[-1])) if section and loc else None
    if info is None:
        return ""
    words = {"ge": "from {}", "gt": "more than {}", "le": "up to {}", "lt": "less than {}"}
    limits = [
        text.format(getattr(meta, name))
        for meta in _metadata(info)
        for name, text in words.items()
        if getattr(meta, name, None) is not None
    ]
    return f" (allowed: {', '.join(limits)})" if limits else ""


def _metadata(info: Any) -> list[Any]:
    """Limits of a field, also those inside `Share | None`."""
    found = list(info.metadata)
    for inner in getattr(info.annotation, "__args__", ()):
        for meta in getattr(inner, "__metadata__", ()):
            found += getattr(meta, "metadata", None) or [meta]
    return found
