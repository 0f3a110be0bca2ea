"""`manifest.toml` read and written. Writing is deterministic: the same manifest gives the same bytes, hence digest.

Not a general TOML writer: tables of scalars and lists of scalars are all that a manifest has, and a dependency for
forty lines would have to be reviewed, pinned and carried to every box.
"""

from __future__ import annotations

import json
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_runtime.core.errors import ModelError
from edge_runtime.core.files import as_text
from edge_runtime.core.manifest import Manifest

MAX_MANIFEST_BYTES = 1 << 20  # a manifest with 2000 files is about 200 kB


def read_manifest(path: Path) -> Manifest:
    """Parse one manifest. Raises ModelError that names the file, the key and the value."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: is not a plain file")
        size = status.st_size
        if size > MAX_MANIFEST_BYTES:
            raise ModelError(f"{path}: manifest of {size} bytes, at most {MAX_MANIFEST_BYTES} are read")
        table = tomllib.loads(as_text(path.read_bytes()))
    except FileNotFoundError as err:
        raise ModelError(f"{path.parent}: no manifest.toml, this is not a model bundle") from err
    except (ValueError, RecursionError) as err:
        raise ModelError(f"{path}: not readable as TOML ({str(err)[:200]})") from err
    except OSError as err:
        raise ModelError(f"{path}: cannot be read ({err.strerror or err})") from err
    return parse_manifest(table, str(path))


def parse_manifest(table: Mapping[str, Any], where: str) -> Manifest:
    """The typed manifest of a table. `where` starts the sentence when it is wrong."""
    try:
        return Manifest.model_validate(table)
    except RecursionError as err:
        raise ModelError(f"{where}: nested too deeply to be a manifest") from err
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "manifest"
        more = f" (and {err.error_count() - 1} more)" if err.error_count() > 1 else ""
        shown = "" if first["type"] == "missing" else f", found {_short(first['input'])}"
        raise ModelError(f"{where}: {key}: {first['msg']}{shown}{more}") from err


def manifest_toml(manifest: Manifest) -> str:
    """The manifest as TOML text, keys in the order of the schema, file names sorted."""
    table = manifest.model_dump(mode="json", exclude_none=True)
    table["files"] = dict(sorted(table["files"].items()))
    lines: list[str] = []
    _write_table(table, (), lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(table: Mapping[str, Any], at: tuple[str, ...], lines: list[str]) -> None:
    lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict) and value:
            lines += ["", "[" + ".".join(_key(part) for part in (*at, key)) + "]"]
            _write_table(value, (*at, key), lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)  # int and float: Python's shortest repr is TOML; the schema lets no nan and inf through


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _quoted(key)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML forbids a bare DEL, JSON does not


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
