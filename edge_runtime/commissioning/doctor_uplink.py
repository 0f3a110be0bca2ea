"""Doctor's look at the uplink: its files, the broker, the running `sync`, and what waits.

Not beside the other checks, because `service` and `sync` do not know each other.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.commissioning.finding import Finding, Level
from edge_runtime.config.paths import state_dir
from edge_runtime.core.clock import duration
from edge_runtime.core.errors import DeviceError, StorageError
from edge_runtime.sync.mqtt.read_back import UNPROVEN_FIX, unproven
from edge_runtime.sync.outbox.schema import OUTBOX
from edge_runtime.sync.outbox.status import some_record, spool_status
from edge_runtime.sync.paths import CREDENTIALS, INSTALL, NEEDS, ask_sync
from edge_runtime.sync.records.topics import topics

if TYPE_CHECKING:
    from edge_runtime.config.load import Loaded
    from edge_runtime.config.schema import EdgeConfig
    from edge_runtime.sync.mqtt.settings import LinkSettings
    from edge_runtime.sync.mqtt.tls_files import FileTrouble

EXPIRES_SOON = timedelta(days=30)  # time to plan a visit
REACH_S = 2.0
VERDICT_S = 0.5  # for a broker to say that it does not accept our certificate
OLD = timedelta(days=1)  # a night without a network is ordinary
NEARLY_FULL = 0.9
NOT_SHOWN = "no record was there to show whether the broker keeps them"


def uplink_findings(loaded: Loaded, env: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """All there is to say; see the module."""
    cfg = loaded.config
    if not cfg.sync.enabled:
        yield Finding("uplink", "ok", "off")
        return
    missing = [package for package in ("paho", "google.protobuf", "cryptography") if not _is_installed(package)]
    if missing:
        yield Finding("uplink", "fail", f"{NEEDS} ({', '.join(missing)} is missing)", INSTALL)
    else:
        yield from _way(cfg, _with_credentials(env))
    shot = _ask(cfg)
    yield from _running(shot)
    if not missing:
        yield _proof(cfg, _with_credentials(env), shot)
    yield from _aside(cfg)
    yield _waiting(cfg)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # nor is the one around it
        return False


def _with_credentials(env: Mapping[str, str]) -> Mapping[str, str]:
    """Bare file names lie where the unit takes them from, unless systemd has handed them over already."""
    if "CREDENTIALS_DIRECTORY" in env or not Path(CREDENTIALS).is_dir():
        return env
    return {**env, "CREDENTIALS_DIRECTORY": CREDENTIALS}


def _way(cfg: EdgeConfig, env: Mapping[str, str]) -> Iterator[Finding]:
    """Files and broker. A broker is greeted without TLS where the files are no good."""
    from edge_runtime.sync.mqtt.settings import link_settings
    from edge_runtime.sync.mqtt.tls_files import FileTrouble, read_password, tls_context

    settings = link_settings(cfg.sync, cfg.station.name, env)
    context = None
    try:
        read_password(settings.password_file)
        context = tls_context(settings.tls) if settings.tls else None
    except FileTrouble as err:
        yield _file_trouble(err)
    else:
        if context or settings.password_file:
            yield Finding("uplink.files", "ok", "all there, and they belong together")
        if settings.tls and settings.tls.cert:
            yield from _certificate(settings.tls.cert, cfg.station.name)
    yield _broker(settings, context)


def _file_trouble(error: FileTrouble) -> Finding:
    if isinstance(error.__cause__, PermissionError):  # the service is handed copies by systemd, which reads as root
        return Finding("uplink.files", "warn", error.what, f"run doctor as root, or {error.fix}")
    return Finding("uplink.files", "fail", error.what, error.fix)


def _certificate(file: str, box: str) -> Iterator[Finding]:
    from edge_runtime.sync.mqtt.certificates import read_certificate

    try:
        certificate, now = read_certificate(file), datetime.now(UTC)
    except ValueError as err:
        yield Finding("uplink.certificate", "fail", f"{file} makes no sense: {err}", "make a new one (tools/certs)")
        return
    left, ends = certificate.ends - now, certificate.ends.date()
    renew = f"make a new one for '{box}' (tools/certs client), put it and its key in place"
    if certificate.begins > now:
        what = f"{file} is good from {certificate.begins.date()} on, this box has {now.date()}"
        yield Finding("uplink.certificate", "fail", what, "set this box's clock")
    elif left < timedelta(0):
        yield Finding("uplink.certificate", "fail", f"{file} has expired on {ends}", renew)
    elif left < EXPIRES_SOON:
        yield Finding("uplink.certificate", "warn", f"{file} expires in {left.days} days, on {ends}", renew)
    else:
        yield Finding("uplink.certificate", "ok", f"'{certificate.name}', good until {ends}")
    if certificate.name != box:
        what = f"{file} is for '{certificate.name}', and station.name is '{box}'"
        yield Finding("uplink.name", "warn", what, f"the broker's access list goes by the name: {renew}")


def _broker(settings: LinkSettings, context: ssl.SSLContext | None) -> Finding:
    """On a thread of its own, because nothing ends a name server that hangs."""
    found: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    threading.Thread(target=lambda: found.put(_greet(settings, context)), daemon=True).start()
    try:
        return found.get(timeout=2 * REACH_S)
    except queue.Empty:
        fix = "check sync.host, the network and its name server"
        return Finding("uplink.broker", "warn", f"no answer about {settings.host} within {2 * REACH_S:g} s", fix)


def _greet(settings: LinkSettings, context: ssl.SSLContext | None) -> Finding:
    """Connect, and with TLS look at each other's certificates; no word of MQTT, which would put a running sync out."""
    from edge_runtime.sync.mqtt.refusal import explain_refusal

    where = f"{settings.host}:{settings.port}"
    try:
        with socket.create_connection((settings.host, settings.port), REACH_S) as sock:
            if context is None:
                return Finding("uplink.broker", "ok", f"{where} answers")
            with context.wrap_socket(sock, server_hostname=settings.host) as tls:
                tls.settimeout(VERDICT_S)
                with suppress(TimeoutError):
                    tls.recv(1)
                return Finding("uplink.broker", "ok", f"{where} answers in {tls.version()}")
    except TimeoutError:
        what, fix = f"{where} does not answer within {REACH_S:g} s", "check cable, address and firewall"
        return Finding("uplink.broker", "warn", what, fix)
    except (OSError, ValueError) as err:  # ValueError: no name of a host at all
        why = explain_refusal(err, settings)
        level: Level = "fail" if isinstance(err, ssl.SSLError) else "warn"  # to be without a network is ordinary
        return Finding("uplink.broker", level, why.what, why.fix or "check sync.host and sync.port")


def _ask(cfg: EdgeConfig) -> dict[str, Any] | str:
    """What the running sync says of itself, or why it says nothing."""
    try:
        return dict(ask_sync(cfg, "status", timeout_s=2.0))
    except DeviceError as err:
        return err.what


def _running(shot: dict[str, Any] | str) -> Iterator[Finding]:
    if isinstance(shot, str):
        yield Finding("uplink.sync", "warn", shot, "systemctl start edge-runtime-sync, or: edge-runtime sync")
        return
    records = shot["records"]
    detail = f"process {shot['pid']}, {records['delivered']} delivered, {records['waiting']} wait"
    yield Finding("uplink.sync", "ok", detail)
    for name, health in shot["health"].items():
        if health["state"] not in ("ok", "starting"):
            level: Level = "fail" if health["state"] == "failed" else "warn"
            yield Finding(f"uplink.{name}", level, health["detail"] or health["state"], "edge-runtime sync status")


def _proof(cfg: EdgeConfig, env: Mapping[str, str], shot: dict[str, Any] | str) -> Finding:
    """Whether the broker keeps what it acknowledges: as the running sync found it, or tried now."""
    if cfg.sync.ack == "consumer":
        return Finding("uplink.proof", "ok", "the consumer acknowledges (sync.ack)")
    if not cfg.sync.read_back:
        return Finding("uplink.proof", "ok", "not asked for: the broker's acknowledgement is believed (sync.read_back)")
    verdict, protocol, why = _verdict(cfg, env, shot)
    if verdict == "proven":
        return Finding("uplink.proof", "ok", f"MQTT {protocol}: this box's records come back from the broker")
    if verdict == "unproven":
        topic = topics(cfg.station).records
        return Finding("uplink.proof", "warn", unproven(protocol, topic, why), UNPROVEN_FIX)
    return Finding("uplink.proof", "ok", why)


def _verdict(cfg: EdgeConfig, env: Mapping[str, str], shot: dict[str, Any] | str) -> tuple[str, str, str]:
    """Verdict, protocol, and why."""
    from edge_runtime.sync.mqtt.read_back_once import read_back_once
    from edge_runtime.sync.mqtt.settings import link_settings

    if not isinstance(shot, str):
        records = shot["records"]
        found = records.get("sender", {}).get("proof", {})
        return found.get("verdict", "open"), records.get("link", {}).get("protocol", ""), found.get("why") or NOT_SHOWN
    try:
        payload = some_record(state_dir(cfg))
    except StorageError:  # what waits says it
        payload = None
    if payload is None:
        return "open", "", NOT_SHOWN
    proof = read_back_once(link_settings(cfg.sync, cfg.station.name, env), topics(cfg.station).records, payload)
    if proof.is_proven is None:
        return "open", proof.protocol, f"not tried: {proof.why}"
    return ("proven" if proof.is_proven else "unproven"), proof.protocol, proof.why


def _aside(cfg: EdgeConfig) -> Iterator[Finding]:
    try:
        aside = spool_status(state_dir(cfg))["aside"]
    except StorageError:
        return
    if aside["refused"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in aside["reasons"].items())
        fix = "raise the broker's limit, or mend its access list, then: edge-runtime spool retry"
        yield Finding("uplink.aside", "warn", f"the broker refuses {aside['refused']} records: {reasons}", fix)
    if aside["unproven"]:
        what = f"{aside['unproven']} records were taken by a broker that nothing proves to keep them; they lie here"
        yield Finding("uplink.unproven", "warn", what, "let this box read its own records back, see uplink.proof")


def _waiting(cfg: EdgeConfig) -> Finding:
    state = state_dir(cfg)
    if not (state / OUTBOX).is_file():
        return Finding("uplink.waiting", "ok", "nothing was to be delivered yet")
    try:
        spool = spool_status(state)
    except StorageError as err:
        return Finding(
            "uplink.waiting", "fail", str(err), "mend the disk; sync sets a damaged outbox aside when it starts"
        )
    count, used_mb = spool["records"] + spool["unread"], spool["used_bytes"] / (1 << 20)
    age = datetime.now(UTC) - datetime.fromisoformat(spool["oldest"]) if spool["oldest"] else timedelta(0)
    waits = f"{count} records wait" + (f", the oldest for {duration(age.total_seconds())}" if spool["oldest"] else "")
    detail = f"{waits if count else 'nothing waits'}, {used_mb:.0f} of {cfg.sync.quota_mb} MB"
    if used_mb > NEARLY_FULL * cfg.sync.quota_mb:
        fix = "get the uplink going, or raise sync.quota_mb: past it pictures and metrics are given up"
        return Finding("uplink.waiting", "warn", detail, fix)
    if age > OLD:
        return Finding("uplink.waiting", "warn", detail, "find out what holds them up: edge-runtime sync status")
    return Finding("uplink.waiting", "ok", detail)
