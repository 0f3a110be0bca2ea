"""The whole of it: `run` and `sync` as processes, mosquitto with the example files, an operator with a key."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_runtime.process.control import ask
from edge_runtime.sync.commands.book import read_audit
from edge_runtime.sync.commands.judge import MOST_BYTES
from edge_runtime.sync.commands.signatures import make_key
from edge_runtime.sync.sparkplug.payload import DataType, Metric, Payload, decode, encode
from tests.support.waiting import until
from tests.sync.sync_rig import mosquitto_program
from tests.sync.uplink_rig import (
    BASE,
    BOX,
    ExampleBroker,
    Person,
    Process,
    client_tls,
    edge_runtime,
    is_up,
    make_authority,
    make_model,
    station,
)

CMD = f"{BASE}/cmd"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A running line, its uplink, the broker between it and the people."""
    if not mosquitto_program() or shutil.which("openssl") is None:
        pytest.skip("needs mosquitto and openssl")
    folder = tmp_path_factory.mktemp("site")
    authority = make_authority(folder / "authority", BOX, "box-2", "operator", "consumer", "scada")
    private, _ = make_key(folder / "keys", "ops")
    for version in ("1", "2"):
        make_model(folder / "models", version)
    with ExitStack() as stack:
        broker = ExampleBroker("mosquitto", folder / "broker", authority).start()
        stack.callback(broker.stop)
        sync = {
            "host": "localhost", "port": broker.port, "tls": True, "ca_file": str(authority / "ca.pem"),
            "cert_file": str(authority / f"{BOX}.pem"), "key_file": str(authority / f"{BOX}.key"),
            "commands": "signature", "keys": str(folder / "keys"), "evidence": "mqtt", "sparkplug": {"commands": True},
        }  # fmt: skip
        file = station(folder, sync)
        state = folder / "state"
        (folder / "models" / "slots.json").write_text(json.dumps({"tiny": {"active": "1"}}))
        for name in ("run", "sync"):
            stack.callback(Process(folder, name, "--config", str(file), name).stop)
        box, uplink = state / "control.sock", state / "sync.sock"
        until(lambda: is_up(box) and is_up(uplink), 60, "both daemons")
        until(lambda: is_up(uplink)["state"] == "ok", 60, "an uplink that is well")
        yield SimpleNamespace(
            folder=folder, state=state, file=file, authority=authority, broker=broker, private=private, box=box,
            uplink=uplink,
        )  # fmt: skip


@pytest.fixture
def person(site, closing):
    def make(name: str, *topics: str, authority: Path | None = None, client_id: str = "") -> Person:
        tls = client_tls(authority or site.authority, name, ca=site.authority / "ca.pem")
        made = Person(site.broker.port, tls, topics, client_id)
        closing.callback(made.close)
        return made

    return make


@pytest.fixture
def operator(person):
    return person("operator", f"{BASE}/cmd/reply", f"{BASE}/state")


def sign(site, do: str, *words: str, key: Path | None = None, box: str = BOX) -> str:
    done = edge_runtime("sync", "sign", do, *words, "--key", str(key or site.private), "--box", box)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def order(site, operator: Person, do: str, *words: str) -> dict:
    operator.publish(CMD, sign(site, do, *words))
    reply = operator.reply()
    assert reply["do"] == do
    return reply


def audit(site) -> list[dict]:
    return read_audit(site.state / "commands.db", 1000)


def untouched(site) -> tuple:
    """What a command could have changed."""
    shot = ask(site.box, "status")
    return shot["automation"], shot["model"], (site.folder / "models" / "slots.json").read_text()


# -- obeyed ------------------------------------------------------------------------------------------------------------


def test_status_tells_of_the_line_and_of_the_uplink(site, operator):
    reply = order(site, operator, "status")
    assert reply["result"] == "done"
    assert reply["answer"]["run"]["station"] == BOX
    assert reply["answer"]["sync"]["health"]["records"]["state"] == "ok"


def test_automation_goes_down_and_not_up(site, operator):
    try:
        assert order(site, operator, "automation", "degree=partial")["answer"] == {"before": "full", "now": "partial"}
        up = order(site, operator, "automation", "degree=full")
        assert (up["result"], ask(site.box, "status")["automation"]) == ("failed", "partial")
        assert "downwards only" in up["reason"]
    finally:
        ask(site.box, "automation", degree="full")


def test_a_model_is_staged_from_afar_and_rolled_back_but_put_to_work_by_a_person(site, operator):
    assert order(site, operator, "stage", "model=tiny@2")["answer"]["candidate"] == "2"
    assert ask(site.box, "status")["model"] == "tiny@1"
    assert ask(site.box, "model", 60, verb="promote")["now"] == "tiny@2"
    assert order(site, operator, "rollback")["answer"] == {"before": "tiny@2", "now": "tiny@1"}
    assert ask(site.box, "status")["model"] == "tiny@1"
    again = order(site, operator, "rollback")
    assert (again["result"], "no previous version" in again["reason"]) == ("failed", True)


def test_a_model_that_is_not_there_is_not_staged(site, operator):
    before = untouched(site)
    assert order(site, operator, "stage", "model=tiny@99")["result"] == "failed"
    assert untouched(site) == before


def test_rebirth_brings_every_birth_again(site, operator, person):
    scada = person("scada", "spBv1.0/#")
    assert order(site, operator, "rebirth")["result"] == "done"
    until(lambda: {"NBIRTH", "DBIRTH"} <= {topic.split("/")[2] for topic, _ in scada.kept})


def test_a_picture_is_sent_when_it_is_asked_for(site, operator, person):
    consumer = person("consumer", f"{BASE}/file")

    def pictured() -> str:
        with sqlite3.connect(f"file:{site.state}/journal.db?mode=ro", uri=True) as db:
            row = db.execute("SELECT boot_id, part_id FROM part WHERE evidence IS NOT NULL LIMIT 1").fetchone()
        return f"{row[0]:04x}-{row[1]}" if row else ""

    part = until(pictured, 60, "a part with a picture")
    assert order(site, operator, "evidence", f"part={part}")["answer"]["file"].startswith("evidence/")
    until(lambda: [raw for topic, raw in consumer.kept if part.encode() in raw], why="its bytes")
    assert order(site, operator, "evidence", "part=ffff-1")["result"] == "failed"


def test_a_sparkplug_host_lowers_automation_and_no_more(site, person):
    scada = person("scada", f"spBv1.0/plant/NBIRTH/{BOX}", f"spBv1.0/plant/DBIRTH/{BOX}/line")

    def write(name: str, value: object, datatype: DataType) -> None:
        metric = Metric(name, value, datatype, timestamp_ms=1)
        scada.publish(f"spBv1.0/plant/DCMD/{BOX}/line", encode(Payload([metric], 1, None)))

    before = len(audit(site))
    try:
        write("Control/Automation Degree", "human_only", DataType.STRING)
        until(lambda: ask(site.box, "status")["automation"] == "human_only")
        write("Control/Automation Degree", "full", DataType.STRING)
        until(lambda: len(audit(site)) >= before + 2)
        assert ask(site.box, "status")["automation"] == "human_only"
        assert [(row["key"], row["result"]) for row in audit(site)[before:]] == [
            ("sparkplug", "done"),
            ("sparkplug", "failed"),
        ]
    finally:
        ask(site.box, "automation", degree="full")
    assert decode(b"").metrics == ()


def test_what_was_commanded_is_a_record_too(site, operator, person):
    consumer = person("consumer", f"{BASE}/rec")
    reply = order(site, operator, "status")
    events = until(lambda: [r for _, r in consumer.kept if r["kind"] == "event" and r["data"]["event"] == "command"])
    assert (events[-1]["data"]["detail"]["command"], events[-1]["data"]["detail"]["key"]) == (reply["id"], "ops")


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(site, operator: Person, *messages: str | bytes) -> list[dict]:
    """Send them; the lines of the audit that they left, and nothing else happened, and nobody was answered."""
    before, lines = untouched(site), len(audit(site))
    for message in messages:
        operator.publish(CMD, message)
    until(lambda: len(audit(site)) >= lines + len(messages))
    assert untouched(site) == before
    rows = audit(site)[lines:]
    assert {row["result"] for row in rows} == {"refused"}
    return rows


def test_a_replayed_command_is_refused(site, operator):
    message = sign(site, "status")
    operator.publish(CMD, message)
    assert operator.reply()["result"] == "done"
    assert "replayed" in refused(site, operator, message)[0]["reason"]
    assert "replayed" in operator.reply()["reason"]


def test_what_is_malformed_oversized_or_unsigned_is_refused_without_a_word(site, operator):
    plain = json.dumps({"id": "1", "do": "status", "args": {}, "box": BOX, "counter": 1})
    rows = refused(site, operator, b"\x00\xff", "{}", plain, b"{" + b" " * MOST_BYTES)
    assert len(rows) == 4
    order(site, operator, "status")  # the next answer is to this one


def test_a_key_that_the_box_does_not_know_is_refused(site, operator, tmp_path):
    stranger, _ = make_key(tmp_path, "ops")  # the right name
    unknown, _ = make_key(tmp_path, "intern")
    message = sign(site, "automation", "degree=human_only", key=stranger)
    assert len(refused(site, operator, message, sign(site, "rollback", key=unknown))) == 2


def test_a_command_for_another_box_is_refused(site, operator):
    assert "this is" in refused(site, operator, sign(site, "rollback", box="box-2"))[0]["reason"]


def test_the_certificate_of_another_authority_gets_no_connection(site, tmp_path):
    elsewhere = make_authority(tmp_path / "elsewhere", "operator")
    lines = len(audit(site))
    tls = client_tls(elsewhere, "operator", ca=site.authority / "ca.pem")
    sock = socket.create_connection(("localhost", site.broker.port), 5)
    with sock, pytest.raises(OSError), tls.wrap_socket(sock, server_hostname="localhost") as link:
        link.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")  # CONNECT
        if not link.recv(4):
            raise ConnectionResetError
    assert len(audit(site)) == lines


def is_sent(person: Person, message: str) -> bool:
    """Whether the broker took it: who shares a client id with a box is thrown out by turns with it."""
    sent = person.client.publish(CMD, message, 1)
    try:
        sent.wait_for_publish(1.0)
        return sent.is_published()
    except RuntimeError:
        return False


@pytest.mark.parametrize("client_id", ["", f"edge-{BOX}-cmd", f"edge-{BOX}"], ids=["own", "commands", "records"])
def test_a_wrong_certificate_reaches_nobody_whatever_client_id_it_takes(site, person, operator, client_id):
    """A foreign client id costs the box a reconnection, not more: what may be said hangs on the certificate."""
    lines = len(audit(site))
    intruder = person("box-2", f"{BASE}/cmd", f"{BASE}/ack", client_id=client_id)
    message = sign(site, "automation", "degree=human_only")
    until(lambda: is_sent(intruder, message), why="a moment in which the broker hears the intruder")
    intruder.close()
    until(lambda: is_up(site.uplink)["state"] == "ok", 60, "the box is back")
    reply = order(site, operator, "status")
    assert [row["command"] for row in audit(site)[lines:]] == [reply["id"]]
    assert not [topic for topic, _ in intruder.kept if topic == CMD]


def test_the_audit_is_printed(site, operator):
    reply = order(site, operator, "status")
    done = edge_runtime("sync", "audit", "--config", str(site.file), "--json", "--last", "1")
    assert [row["command"] for row in json.loads(done.stdout)] == [reply["id"]]
    assert "ops" in edge_runtime("sync", "audit", "--config", str(site.file)).stdout
