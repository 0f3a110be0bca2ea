"""Doctor on the uplink: files, certificate, broker, the running `sync`, what waits. Each with its fix."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.commissioning import doctor_uplink
from edge_runtime.commissioning.doctor_uplink import uplink_findings
from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import load
from edge_runtime.sync.app import Uplink
from edge_runtime.sync.mqtt import certificates
from edge_runtime.sync.mqtt.certificates import Certificate, read_certificate
from edge_runtime.sync.outbox.schema import OUTBOX
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Line, free_port, mosquitto_program
from tests.sync.uplink_rig import BOX, Process, edge_runtime, is_up, make_authority, station


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    return make_authority(tmp_path_factory.mktemp("pki"), BOX, "box-2")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def found(tmp_path: Path) -> Any:
    """Findings of a station named BOX; its broker is somebody who is not there, unless told."""

    def look(*settings: str, env: dict[str, str] | None = None) -> dict[str, Finding]:
        words = [f"recording.state_dir={tmp_path}", f"station.name={BOX}", "sync.enabled=true",
                 f"sync.port={free_port()}", *settings]  # fmt: skip
        return {finding.name: finding for finding in uplink_findings(load(None, words), env or {})}

    return look


def files(pki: Path, **others: Path | str) -> list[str]:
    named = {"ca_file": pki / "ca.pem", "cert_file": pki / f"{BOX}.pem", "key_file": pki / f"{BOX}.key"} | others
    return ["sync.tls=true", "sync.host=localhost", *(f"sync.{key}='{file}'" for key, file in named.items())]


def test_a_station_without_an_uplink_has_one_line() -> None:
    assert list(uplink_findings(load(None), {})) == [Finding("uplink", "ok", "off")]


def test_a_missing_library_is_named_with_what_to_install(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_uplink, "find_spec", lambda name: None if name == "paho" else object())
    finding = found()["uplink"]
    assert finding.state == "fail" and "paho" in finding.detail and "edge-runtime[sync]" in finding.fix


# -- files and certificate ---------------------------------------------------------------------------------------------


def test_good_files_and_a_good_certificate_are_named(found: Any, pki: Path) -> None:
    every = found(*files(pki))
    assert every["uplink.files"].state == "ok"
    certificate = every["uplink.certificate"]
    assert certificate.state == "ok" and certificate.detail.startswith(f"'{BOX}', good until ")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"ca_file": "/none/ca.pem"}, "sync.ca_file = /none/ca.pem: no such file"),
        ({"cert_file": "/none/box.pem"}, "sync.cert_file = /none/box.pem: no such file"),
        ({"key_file": "{pki}/box-2.key"}, "does not belong to sync.cert_file"),
    ],
)
def test_a_file_that_is_no_good_is_a_failure_with_its_key(
    found: Any, pki: Path, others: dict[str, str], words: str
) -> None:
    every = found(*files(pki, **{key: file.format(pki=pki) for key, file in others.items()}))
    finding = every["uplink.files"]
    assert finding.state == "fail" and words in f"{finding.detail}: {finding.fix}" and finding.fix.startswith("put ")
    assert "uplink.broker" in every  # the other checks have their turn


def test_a_password_file_is_looked_at_without_tls_too(found: Any, tmp_path: Path) -> None:
    finding = found("sync.username=box", f"sync.password_file='{tmp_path / 'none'}'")["uplink.files"]
    assert finding.state == "fail" and "sync.password_file" in finding.detail


def test_a_bare_name_is_looked_for_where_the_service_has_it(
    found: Any, pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = files(pki, ca_file="ca.pem", cert_file=f"{BOX}.pem", key_file=f"{BOX}.key")
    assert found(*bare, env={"CREDENTIALS_DIRECTORY": str(pki)})["uplink.files"].state == "ok"
    monkeypatch.setattr(doctor_uplink, "CREDENTIALS", str(pki))
    assert found(*bare)["uplink.files"].state == "ok"


def test_what_only_root_may_read_is_no_failure(found: Any, pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    finding = found(*files(pki))["uplink.files"]
    assert finding.state == "warn" and "Permission denied" in finding.detail and "as root" in finding.fix


NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("certificate", "state", "words", "fix"),
    [
        (Certificate(BOX, NOW - 9 * DAY, NOW + 99 * DAY), "ok", "good until", ""),
        (Certificate(BOX, NOW - 9 * DAY, NOW + 29.5 * DAY), "warn", "expires in 29 days", "make a new one"),
        (Certificate(BOX, NOW - 9 * DAY, NOW - DAY), "fail", "has expired on", "make a new one"),
        (Certificate(BOX, NOW + DAY, NOW + 99 * DAY), "fail", "is good from", "set this box's clock"),
        (
            Certificate("box-2", NOW - DAY, NOW + 99 * DAY),
            "warn",
            f"'box-2', and station.name is '{BOX}'",
            "access list",
        ),
    ],
)
def test_the_certificate_is_looked_at(
    found: Any, pki: Path, monkeypatch: pytest.MonkeyPatch, certificate: Certificate, state: str, words: str, fix: str
) -> None:
    monkeypatch.setattr(certificates, "read_certificate", lambda file: certificate)
    every = found(*files(pki))
    finding = every.get("uplink.name") or every["uplink.certificate"]
    assert finding.state == state and words in finding.detail and fix in finding.fix


def test_a_certificate_that_nobody_understands_does_not_hide_the_rest(
    found: Any, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: str) -> Certificate:
        raise ValueError("negative serial number")

    monkeypatch.setattr(certificates, "read_certificate", refuse)
    every = found(*files(pki))
    assert every["uplink.certificate"].state == "fail" and "negative serial" in every["uplink.certificate"].detail
    assert {"uplink.broker", "uplink.sync", "uplink.waiting"} <= set(every)


def test_a_certificate_says_who_and_how_long(pki: Path) -> None:
    certificate = read_certificate(str(pki / f"{BOX}.pem"))
    assert certificate.name == BOX and certificate.begins <= datetime.now(UTC)
    assert 1095 <= (certificate.ends - certificate.begins).days <= 1097


# -- broker ------------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_not_there_is_a_warning(found: Any) -> None:
    finding = found()["uplink.broker"]
    assert finding.state == "warn" and "nobody listens there" in finding.detail
    assert finding.fix == "check sync.host, sync.port and that the broker runs"


def test_a_name_that_nobody_knows_is_a_warning(found: Any) -> None:
    finding = found("sync.host=broker.invalid")["uplink.broker"]
    assert finding.state == "warn" and "broker.invalid" in finding.detail and "sync.host" in finding.fix


def test_a_name_server_that_hangs_is_not_waited_for(found: Any, monkeypatch: pytest.MonkeyPatch, stack: Any) -> None:
    is_over = threading.Event()
    stack.callback(is_over.set)

    def hang(*_: object) -> None:
        is_over.wait(60)
        raise OSError("at last")

    monkeypatch.setattr(doctor_uplink, "REACH_S", 0.05)
    monkeypatch.setattr(doctor_uplink.socket, "create_connection", hang)
    finding = found()["uplink.broker"]
    assert finding.state == "warn" and "no answer" in finding.detail


@pytest.mark.parametrize("host", ["a" * 70, "..", " "])
def test_a_host_that_is_none_is_a_finding(found: Any, host: str) -> None:
    assert found(f"sync.host='{host}'")["uplink.broker"].state in ("warn", "fail")


@pytest.fixture
def tls_broker(pki: Path, tmp_path: Path, stack: ExitStack) -> Broker:
    if not mosquitto_program():
        pytest.skip("needs mosquitto")
    extra = f"cafile {pki}/ca.pem\ncertfile {pki}/broker.pem\nkeyfile {pki}/broker.key\nrequire_certificate true"
    broker = Broker("mosquitto", tmp_path / "broker", extra).start()
    stack.callback(broker.kill)
    return broker


def test_a_broker_that_trusts_and_is_trusted_is_good(found: Any, pki: Path, tls_broker: Broker) -> None:
    finding = found(*files(pki), f"sync.port={tls_broker.port}")["uplink.broker"]
    assert finding == Finding("uplink.broker", "ok", f"localhost:{tls_broker.port} answers in TLSv1.3")


def test_a_broker_that_is_not_trusted_or_does_not_trust_is_a_failure(
    found: Any, pki: Path, tls_broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_authority(tmp_path_factory.mktemp("other"), BOX)
    port = f"sync.port={tls_broker.port}"
    untrusted = found(*files(pki, ca_file=other / "ca.pem"), port)["uplink.broker"]
    assert untrusted.state == "fail" and "not trusted" in untrusted.detail
    stranger = found(*files(pki, cert_file=other / f"{BOX}.pem", key_file=other / f"{BOX}.key"), port)["uplink.broker"]
    assert stranger.state == "fail" and "sync.cert_file" in stranger.detail + stranger.fix


# -- the running uplink, and what waits --------------------------------------------------------------------------------


def test_an_uplink_that_does_not_run_is_a_warning(found: Any) -> None:
    finding = found()["uplink.sync"]
    assert finding.state == "warn" and "no uplink runs here" in finding.detail
    assert "systemctl start edge-runtime-sync" in finding.fix


def test_a_running_uplink_is_asked_and_its_troubles_are_told(found: Any, tmp_path: Path, stack: ExitStack) -> None:
    (tmp_path / "commands.db").write_bytes(b"x" * 5000)
    words = ["sync.enabled=true", "sync.host=127.0.0.1", f"sync.port={free_port()}", "sync.tls=false",
             "sync.commands=nonce", f"recording.state_dir={tmp_path}", f"station.name={BOX}"]  # fmt: skip
    uplink = Uplink(load(None, words).config, {})
    uplink.start()
    stack.callback(uplink.stop)
    until(lambda: "mended or removed" in uplink.healths()["commands"].detail)
    until(lambda: uplink.healths()["records"].detail)  # nobody is at its broker's port
    every = found("sync.commands=nonce")
    assert every["uplink.sync"].state == "ok" and every["uplink.sync"].detail.startswith(f"process {os.getpid()}, 0 ")
    assert every["uplink.commands"].state == "warn" and "mended or removed" in every["uplink.commands"].detail
    assert every["uplink.records"].state == "warn"
    assert every["uplink.records"].fix == every["uplink.commands"].fix == "edge-runtime sync status"


def test_nothing_was_ever_to_be_delivered(found: Any) -> None:
    assert found()["uplink.waiting"] == Finding("uplink.waiting", "ok", "nothing was to be delivered yet")


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `spool status` finds, for the test to change."""
    shot: dict[str, Any] = {"records": 3, "unread": 0, "used_bytes": 1000, "age": DAY / 24}
    shot["aside"] = {"refused": 0, "unproven": 0, "reasons": {}, "gone": {}}
    (tmp_path / OUTBOX).touch()

    def status(_: Path) -> dict[str, Any]:
        age = shot["age"]
        return {**shot, "oldest": None if age is None else (datetime.now(UTC) - age).isoformat()}

    monkeypatch.setattr(doctor_uplink, "spool_status", status)
    return shot


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({}, "ok", "3 records wait, the oldest for 1 h 0 min"),
        ({"records": 0, "age": None}, "ok", "nothing waits"),
        ({"unread": 4}, "ok", "7 records wait"),
        ({"age": 2 * DAY}, "warn", "the oldest for 2 d"),
        ({"used_bytes": 950 << 20}, "warn", "950 of 1000 MB"),
    ],
)
def test_what_waits_is_told_with_its_age_and_room(
    found: Any, spool: dict[str, Any], changes: dict[str, Any], state: str, words: str
) -> None:
    spool.update(changes)
    finding = found()["uplink.waiting"]
    assert finding.state == state and words in finding.detail and bool(finding.fix) is (state == "warn")


def test_a_damaged_outbox_is_a_failure(found: Any, tmp_path: Path) -> None:
    (tmp_path / OUTBOX).write_bytes(b"no database" * 100)
    finding = found()["uplink.waiting"]
    assert finding.state == "fail" and "cannot read the outbox" in finding.detail and finding.fix


def test_doctor_prints_the_lines_of_a_station_with_an_uplink(tmp_path: Path, stack: ExitStack) -> None:
    if not mosquitto_program():
        pytest.skip("needs mosquitto")
    broker = Broker("mosquitto", tmp_path / "broker").start()
    stack.callback(broker.kill)
    file = station(tmp_path, {"port": broker.port})
    line = Line(tmp_path / "state")
    line.parts(5)
    line.stop()
    process = Process(tmp_path, "sync", "--config", str(file), "sync")
    stack.callback(process.stop)
    until(lambda: (shot := is_up(tmp_path / "state" / "sync.sock")) and shot["state"] == "ok")
    done = edge_runtime("doctor", "--json", "--config", str(file))
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    for name in ("uplink.broker", "uplink.sync", "uplink.waiting"):
        assert found[name]["state"] == "ok", found[name]
    assert found["microphone"] == {"name": "microphone", "state": "ok", "detail": "off", "fix": ""}
