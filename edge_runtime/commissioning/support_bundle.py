"""`bundle`: what somebody far away needs to help, in one archive, and no secret of the station.

No file that holds a secret is read into it. As a second net every secret that the station knows is looked for in all
that goes in, and struck out: a device may have said one in an error that stands in the log.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_runtime import __version__
from edge_runtime.commissioning.doctor import examine
from edge_runtime.commissioning.doctor_uplink import uplink_findings
from edge_runtime.config.load import Loaded, leaves
from edge_runtime.config.paths import JOURNAL, socket_path, state_dir
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.files import write_atomic
from edge_runtime.modelstore.store import open_store
from edge_runtime.predictors.model_reports import list_models
from edge_runtime.process.ask_status import ask_status
from edge_runtime.process.credentials import credential
from edge_runtime.recording.reader import JournalReader
from edge_runtime.serve.access.audit import AUDIT
from edge_runtime.serve.access.role_tokens import role_token
from edge_runtime.serve.access.roles import Role
from edge_runtime.serve.access.token import TOKEN

MOST_BYTES = 2 << 20  # of one file; its end is kept, as the newest stands there. Packed, all is some 500 kB
LAST_EVENTS, LAST_RUNS, LAST_LOG_LINES = 1000, 5, 5000
LOG_S = 20.0  # that journalctl may take
LEAST_SECRET = 4  # characters; what is shorter would strike out ordinary text
MOST_SECRET = 64 << 10  # bytes of a file with one
STRUCK = "[struck out]"
SECRET_KEY = re.compile(r"password|secret|token|passphrase|key_file|user_?name", re.IGNORECASE)

Say = Callable[[Loaded], Any]  # JSON types, or text


def collect(loaded: Loaded, out: Path) -> Mapping[str, int]:
    """Write the archive (.tar.gz) whole or not at all; the size of each file in it. Raises StorageError."""
    secrets = secrets_of(loaded)
    files = {name: _bounded(strike(_text(loaded, say), secrets)) for name, say in CONTENT.items()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(f"support/{name}")
            about.size, about.mtime, about.mode = len(content), int(time.time()), 0o640
            archive.addfile(about, io.BytesIO(content))
    try:
        write_atomic(out, packed.getvalue())
    except OSError as err:
        raise StorageError(f"{out}: {err.strerror}", "give --out a folder that may be written") from err
    return {name: len(content) for name, content in files.items()}


def _text(loaded: Loaded, say: Say) -> str:
    try:
        told = say(loaded)
    except (EdgeError, OSError) as err:  # what is missing is told in its place
        told = {"not_there": str(err)}
    return told if isinstance(told, str) else json.dumps(told, indent=1, default=str)


def _bounded(text: str) -> bytes:
    content = text.encode(errors="replace")
    return content if len(content) <= MOST_BYTES else b"[the beginning was left out]\n" + content[-MOST_BYTES:]


# -- secrets -----------------------------------------------------------------------------------------------------------


def secrets_of(loaded: Loaded) -> frozenset[str]:
    """Every secret that the station knows: what stands in its secret files, and the tokens of its page."""
    found = set()
    for key, value in leaves(loaded.config):
        if SECRET_KEY.search(key) and isinstance(value, str) and value:
            found |= _lines(Path(credential(value, os.environ))) if key.endswith("_file") else {value}
    found |= (box := _lines(state_dir(loaded.config) / TOKEN))
    found |= {role_token(token, role) for token in box for role in Role if role is not Role.PREDICT}
    return frozenset(secret for secret in found if len(secret) >= LEAST_SECRET)


def _lines(file: Path) -> set[str]:
    """Line by line, as a private key is; the lines around it are no secret."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_SECRET).decode(errors="ignore")
    except OSError:
        return set()
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("-----")}


def strike(text: str, secrets: frozenset[str]) -> str:
    """The longest first: a secret may begin as another does."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(json.dumps(secret)[1:-1], STRUCK).replace(secret, STRUCK)
    return text


# -- what goes in ------------------------------------------------------------------------------------------------------


def _config(loaded: Loaded) -> Any:
    def shown(key: str, value: Any) -> Any:
        return STRUCK if value and SECRET_KEY.search(key) and not key.endswith("_file") else value

    values = {
        key: {"value": shown(key, value), "origin": loaded.given.get(key, "default")}
        for key, value in leaves(loaded.config)
    }
    return {"origin": loaded.origin, "digest": loaded.digest, "moved": loaded.moved, "values": values}


def _journal(loaded: Loaded) -> Any:
    with JournalReader(state_dir(loaded.config) / JOURNAL) as reader:
        return {
            "runs": [{**run, "config": "in config.json, or by its digest"} for run in reader.runs(LAST_RUNS)],
            "latency": reader.latency(),
            "losses": reader.losses(),
            "shortfall": reader.shortfall(),
            "newest_parts": [row.as_dict() for row in reader.newest(50)],
        }


def _events(loaded: Loaded) -> Any:
    with JournalReader(state_dir(loaded.config) / JOURNAL) as reader:
        return reader.events(LAST_EVENTS)


def _versions(loaded: Loaded) -> Any:
    from importlib.metadata import distributions

    packages = {one.name: one.version for one in distributions()}
    return {
        "edge_runtime": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": dict(sorted(packages.items())),
    }


def _audit(loaded: Loaded) -> str:
    return (state_dir(loaded.config) / AUDIT).read_text(errors="replace")


def _log(_: Loaded) -> str:
    asked = ["journalctl", "--no-pager", "-o", "short-iso", "-n", str(LAST_LOG_LINES), "-u", "edge-runtime-*"]
    try:
        done = subprocess.run(asked, capture_output=True, timeout=LOG_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as err:
        return f"no log: {err}"
    return done.stdout.decode(errors="replace") or f"no log: {done.stderr.decode(errors='replace').strip()}"


def _doctor(loaded: Loaded) -> Iterator[Mapping[str, Any]]:
    return examine(loaded, [uplink_findings])


CONTENT: Mapping[str, Say] = {
    "doctor.json": lambda loaded: list(_doctor(loaded)),
    "status.json": lambda loaded: ask_status(socket_path(loaded.config)).to_json(),
    "config.json": _config,
    "journal.json": _journal,
    "events.json": _events,
    "models.json": lambda loaded: list_models(loaded.config, open_store(loaded.config)),
    "versions.json": _versions,
    AUDIT: _audit,
    "log.txt": _log,
}
