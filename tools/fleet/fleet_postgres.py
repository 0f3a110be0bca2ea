"""A PostgreSQL of one's own for a trial: in a folder, on a unix socket, gone afterwards. Nothing listens on a port.

PostgreSQL refuses to run as root; then it runs as `postgres`, or `nobody`. The folder lies directly in the system's
folder for temporary files, because that user cannot enter a folder of root's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

START_WAIT_S = 30.0
STOP_WAIT_S = 20.0
INSTALL = "no PostgreSQL here; run as root: apt-get install postgresql"
_SETTINGS = ("listen_addresses=", "max_connections=40", "shared_buffers=64MB", "log_min_messages=warning")


class NoPostgres(Exception):
    """It is not installed, or does not start; the text says why."""


def programs() -> Path:
    """The folder with initdb and postgres; the newest version. Raises NoPostgres."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: _version(p.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoPostgres(INSTALL)


def _version(name: str) -> float:
    return float(name) if name.replace(".", "").isdigit() else 0.0


class PrivatePostgres:
    """start, stop, and `crash` in between. `dsn` is good while it runs."""

    def __init__(self) -> None:
        self._bin = programs()
        self._as = _user()
        self.folder = Path(tempfile.mkdtemp(prefix="edge-fleet-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        self._make()

    @property
    def dsn(self) -> str:
        return f"host={self.folder} user=fleet dbname=postgres"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def _make(self) -> None:
        words = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "fleet", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*words, "--no-sync", "--locale=C"], capture_output=True, text=True, cwd="/", check=False, **self._as
        )
        if done.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise NoPostgres(f"initdb failed: {done.stderr.strip()}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Wait until it answers. Raises NoPostgres."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        words = [str(self._bin / "postgres"), "-D", str(self._data), "-k", str(self.folder), *settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as)
        limit = time.monotonic() + START_WAIT_S
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            except psycopg.OperationalError as err:
                if self._process.poll() is not None or time.monotonic() > limit:
                    raise NoPostgres(f"it does not start: {err}\n{(self.folder / 'log').read_text()[-600:]}") from err
            time.sleep(0.05)

    def crash(self) -> None:
        """Stop without a checkpoint, as a power cut would; `start` recovers."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop, and remove the folder. Safe to call twice."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(STOP_WAIT_S)


def _user() -> dict[str, Any]:
    """For subprocess: whom to run as."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NoPostgres("PostgreSQL does not run as root, and there is no user postgres or nobody")
