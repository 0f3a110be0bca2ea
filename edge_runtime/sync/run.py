"""Run the uplink: as a daemon, or once until what waits is delivered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig, SyncConfig
from edge_runtime.core.errors import ConfigError, StorageError
from edge_runtime.process.credentials import credential
from edge_runtime.process.daemon_loop import DaemonLoop, settle_memory
from edge_runtime.sync.app import Uplink
from edge_runtime.sync.outbox.status import spool_status
from edge_runtime.sync.paths import CREDENTIALS, MISSING

LOOK_EVERY_S = 1.0


def run_uplink(cfg: EdgeConfig) -> None:
    """Until SIGTERM. Raises ConfigError and StorageError where it cannot start."""
    uplink = _open(cfg)
    with DaemonLoop(uplink.line, uplink.stuck, every_s=LOOK_EVERY_S) as loop:
        uplink.start()
        try:
            settle_memory()
            loop.ready()
            loop.turn(uplink.look_after)
        finally:
            uplink.stop()


def deliver_once(cfg: EdgeConfig, timeout_s: float) -> tuple[bool, str]:
    """Whether all was delivered within that time, and how it went, in words.

    Records only: a box that is up for a minute is not born as a Sparkplug node.
    """
    records = _open(cfg).records
    records.start()
    try:
        is_done = records.flush(timeout_s)
        health, aside = records.health(), records.report()["aside"]
    finally:
        records.stop()
    if is_done and not (aside["refused"] or aside["unproven"]):
        return True, "all delivered"
    if is_done:
        return False, f"all sent, not all delivered: {health.detail}"
    try:
        unread = f", {spool_status(state_dir(cfg))['unread']} parts of the journal are not read yet"
    except StorageError:  # the detail says what is wrong with the outbox
        unread = ""
    return False, f"not all delivered{unread}: {health.detail} (gave up after {timeout_s:g} s, --timeout)"


def _open(cfg: EdgeConfig) -> Uplink:
    _check_credentials(cfg.sync, os.environ)
    return Uplink(cfg)


def _check_credentials(cfg: SyncConfig, env: Mapping[str, str]) -> None:
    """The unit puts a word in the place of a file that is not there, because systemd would not start it otherwise."""
    for key in ("ca_file", "cert_file", "key_file", "password_file"):
        name = getattr(cfg, key)
        file = Path(credential(name, env))
        if str(file) != name and file.is_file() and file.read_bytes().strip() == MISSING:
            raise ConfigError(
                f"sync.{key} is {name!r}, and {CREDENTIALS}/{name} is not there", "put it there and restart the service"
            )
