"""The way of commands over a real broker: answered once, whatever happens to the link or to the box meanwhile."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import pytest

from edge_runtime.config.schema import StationConfig
from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import State
from edge_runtime.sync.commands.allowed import Proof
from edge_runtime.sync.commands.book import CommandBook
from edge_runtime.sync.commands.channel import CommandChannel
from edge_runtime.sync.commands.desk import MOST_WAITING, CommandDesk
from edge_runtime.sync.commands.judge import MOST_BYTES, Commands
from edge_runtime.sync.commands.signatures import make_key, sign
from edge_runtime.sync.mqtt.settings import LinkSettings
from edge_runtime.sync.records.topics import topics
from tests.support.waiting import until
from tests.sync.sync_rig import BASE
from tests.sync.uplink_rig import Person

TOPICS = topics(StationConfig(name="box-7", site="north", line="line-2"))


class Box:
    """A channel with handlers that a test can hold up."""

    def __init__(self, folder: Path, port: int, proof: Proof = Proof.SIGNATURE) -> None:
        self.folder, self.done = folder, []
        self.keys = folder / "keys"
        self.private, _ = make_key(self.keys, "ops")
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_at_work = threading.Event()
        self.counter = 0
        settings = LinkSettings("127.0.0.1", port, "edge-box-7", reconnect_max_s=0.3, keepalive_s=5)
        self.channel = CommandChannel(settings, TOPICS, "box-7", proof, self._open)

    def _open(self) -> Commands:
        handlers = {"status": self._status, "automation": lambda args: self.done.append(dict(args)) or args}
        return Commands("box-7", self.channel._proof, self.keys, CommandBook(self.folder / "commands.db"), handlers)

    def _status(self, args):
        self.is_at_work.set()
        assert self.may_go.wait(20)
        return {"state": "ok"}

    def order(self, do: str = "status", **words) -> str:
        self.counter += 1
        order = {"id": f"c{self.counter}", "do": do, "args": {}, "box": "box-7", "counter": self.counter, **words}
        payload = json.dumps(order).encode()
        told = {"payload": payload, "signature": sign(self.private, payload)}
        return json.dumps({**{name: base64.b64encode(raw).decode() for name, raw in told.items()}, "key": "ops"})

    def counts(self) -> tuple[int, int, int]:
        report = self.channel.report()
        return report["done"], report["failed"], report["refused"]


@pytest.fixture
def make_box(tmp_path, closing):
    def make(port: int, proof: Proof = Proof.SIGNATURE) -> Box:
        box = Box(tmp_path, port, proof)
        box.channel.start()
        closing.callback(box.channel.stop)
        return box

    return make


@pytest.fixture
def person(mosquitto, closing):
    made = Person(mosquitto.port, topics=(f"{BASE}/cmd/reply", f"{BASE}/cmd/nonce"))
    closing.callback(made.close)
    return made


def ready(box: Box) -> None:
    until(lambda: box.channel.health().state is State.OK, why="channel")


def test_a_command_is_answered_on_its_own_topic(mosquitto, make_box, person):
    box = make_box(mosquitto.port)
    ready(box)
    person.publish(f"{BASE}/cmd", box.order("automation", args={"degree": "partial"}))
    reply = person.reply()
    assert (reply["schema"], reply["box"], reply["id"]) == ("edge-runtime/reply/1", "box-7", "c1")
    assert (reply["result"], reply["answer"]) == ("done", {"degree": "partial"})
    assert box.done == [{"degree": "partial"}]


def test_a_long_command_does_not_cost_the_link(mosquitto, make_box, person):
    box = make_box(mosquitto.port)
    ready(box)
    box.may_go.clear()
    person.publish(f"{BASE}/cmd", box.order())
    assert box.is_at_work.wait(20)
    turned = box.channel.health().progress_ns
    until(lambda: box.channel.health().progress_ns > turned, why="another turn")
    box.may_go.set()
    assert person.reply()["result"] == "done"
    assert box.channel.link.losses == 0


def test_a_reply_that_finds_no_link_is_sent_when_it_is_back(mosquitto, make_proxy, make_box, person):
    proxy = make_proxy(mosquitto.port)
    box = make_box(proxy.port)
    ready(box)
    box.may_go.clear()
    person.publish(f"{BASE}/cmd", box.order())
    assert box.is_at_work.wait(20)
    proxy.is_open = False
    proxy.cut()
    until(lambda: not box.channel.link.is_up)
    box.may_go.set()
    until(lambda: box.counts() == (1, 0, 0))
    proxy.is_open = True
    assert person.reply()["answer"] == {"state": "ok"}


def test_a_reply_that_nobody_acknowledged_goes_again(mosquitto, make_proxy, make_box, person):
    proxy = make_proxy(mosquitto.port)
    box = make_box(proxy.port)
    ready(box)
    box.may_go.clear()
    person.publish(f"{BASE}/cmd", box.order())
    assert box.is_at_work.wait(20)
    proxy.is_deaf = True
    box.may_go.set()
    until(lambda: box.channel._sent, why="reply under way")
    proxy.is_deaf = False
    proxy.cut()
    until(lambda: not box.channel._sent and not box.channel._replies, why="acknowledged")
    assert person.reply()["id"] == "c1"


@pytest.mark.parametrize(
    "message",
    [b"", b"nonsense", b"[]", b'{"payload": 1}', b"{" * 5000, b"\xff\xfe", b'"' + b"x" * (MOST_BYTES + 1) + b'"'],
    ids=["empty", "words", "list", "no envelope", "deep", "not text", "oversized"],
)
def test_nonsense_is_refused_without_an_answer_and_written_down(mosquitto, make_box, person, message):
    box = make_box(mosquitto.port)
    ready(box)
    person.publish(f"{BASE}/cmd", message)
    until(lambda: box.counts() == (0, 0, 1))
    person.publish(f"{BASE}/cmd", box.order())
    assert person.reply()["id"] == "c1"  # nothing came before it


def test_a_retained_command_is_refused(mosquitto, make_box, person):
    box = Box(Path(mosquitto.folder) / "unused", mosquitto.port)
    person.publish(f"{BASE}/cmd", box.order("automation", args={"degree": "partial"}), retain=True)
    box = make_box(mosquitto.port)
    until(lambda: box.counts() == (0, 0, 1))
    assert box.done == []


def test_a_command_is_for_a_box_that_is_there(mosquitto, make_box, person):
    box = make_box(mosquitto.port)
    ready(box)
    box.channel.stop()
    person.publish(f"{BASE}/cmd", box.order())
    box.channel = CommandChannel(box.channel.link.settings, TOPICS, "box-7", Proof.SIGNATURE, box._open)
    box.channel.start()
    try:
        ready(box)
        person.publish(f"{BASE}/cmd", box.order())
        assert person.reply()["id"] == "c2"
        assert box.counts() == (1, 0, 0)
    finally:
        box.channel.stop()


def test_the_next_one_time_word_is_told_after_each_attempt(mosquitto, make_box, person):
    box = make_box(mosquitto.port, Proof.NONCE)
    words: list[str] = []

    def next_word() -> str:
        said = until(lambda: [p["nonce"] for t, p in person.kept if t.endswith("/nonce") and p["nonce"] not in words])
        words.append(said[-1])
        return said[-1]

    order = {"id": "1", "do": "status", "args": {}, "box": "box-7", "nonce": next_word()}
    person.publish(f"{BASE}/cmd", json.dumps(order))
    assert person.reply()["result"] == "done"
    person.publish(f"{BASE}/cmd", json.dumps(order))  # replayed
    next_word()
    until(lambda: box.counts() == (1, 0, 1))
    person.publish(f"{BASE}/cmd", json.dumps({**order, "nonce": next_word()}))
    assert person.reply()["result"] == "done"


def test_more_than_can_be_obeyed_is_turned_away_and_counted(tmp_path):
    may_go = threading.Event()
    started = threading.Event()

    def slow(args):
        started.set()
        assert may_go.wait(20)

    def opened() -> Commands:
        return Commands("b", Proof.SIGNATURE, tmp_path, CommandBook(tmp_path / "c.db"), {"rollback": slow})

    desk = CommandDesk(opened)
    desk.start()
    try:
        desk.receive_unsigned("rollback", {}, "sparkplug")
        assert started.wait(20)
        for _ in range(MOST_WAITING + 3):
            desk.receive_unsigned("rollback", {}, "sparkplug")
        assert desk.report()["turned_away"] == 3
        may_go.set()
        until(lambda: desk.report()["done"] == MOST_WAITING + 1)
    finally:
        may_go.set()
        desk.stop()


def test_without_a_book_nothing_is_obeyed_and_a_mended_one_is_taken(tmp_path):
    done = []
    book = tmp_path / "c.db"
    book.write_bytes(b"x" * 5000)

    def opened() -> Commands:
        handlers = {"automation": done.append}
        return Commands("b", Proof.SIGNATURE, tmp_path, CommandBook(book), handlers)

    desk = CommandDesk(opened)
    desk.start()
    try:
        until(lambda: desk.health().state is State.DEGRADED)
        desk.receive_unsigned("automation", {"degree": "partial"}, "sparkplug")
        until(lambda: desk.turned_away == 1)
        assert done == []
        book.unlink()
        desk.receive_unsigned("automation", {"degree": "partial"}, "sparkplug")
        until(lambda: done)
        assert desk.health().state is State.OK
    finally:
        desk.stop()


@pytest.mark.parametrize(
    ("do", "args"),
    [("stage", {"model": "x@1"}), ("evidence", {"part": "0001-1"}), ("automation", {}), ("rollback", {"x": "y"}),
     ("automation", {"degree": "none"}), ("nonsense", {})],
)  # fmt: skip
def test_without_a_proof_only_what_makes_the_box_more_careful(tmp_path, do, args):
    def never(args):
        raise AssertionError

    book = CommandBook(tmp_path / "c.db")
    handlers = dict.fromkeys(("stage", "evidence", "automation", "rollback"), never)
    commands = Commands("b", Proof.SIGNATURE, tmp_path, book, handlers)
    commands.receive_unsigned(do, args, "sparkplug")
    assert [(row["key"], row["do"], row["result"]) for row in book.newest()] == [("sparkplug", do, "refused")]
    book.close()


def test_a_command_that_fails_is_told_as_failed(tmp_path):
    def fails(args):
        raise DeviceError("no edge-runtime is running here")

    book = CommandBook(tmp_path / "c.db")
    told = []
    commands = Commands("b", Proof.SIGNATURE, tmp_path, book, {"rollback": fails}, tell=told.append)
    commands.receive_unsigned("rollback", {}, "sparkplug")
    assert [(row["result"], row["reason"]) for row in told] == [("failed", "no edge-runtime is running here")]
    book.close()
