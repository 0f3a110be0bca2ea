"""Commands from afar: who is believed, what is obeyed, and that nothing else happens."""

from __future__ import annotations

import base64
import json
import sqlite3
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ConfigError, DeviceError, StorageError
from edge_runtime.sync.commands.allowed import Proof
from edge_runtime.sync.commands.book import CommandBook
from edge_runtime.sync.commands.judge import MOST_BYTES, Commands
from edge_runtime.sync.commands.signatures import make_key, sign

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


class Box:
    def __init__(self, folder, proof: Proof) -> None:
        self.folder, self.done = folder, []
        self.keys = folder / "keys"
        self.private, _ = make_key(self.keys, "ops")
        self.book = CommandBook(folder / "commands.db")
        self.commands = Commands(
            "press-4",
            proof,
            self.keys,
            self.book,
            {
                "status": lambda args: {"state": "ok"},
                "automation": lambda args: self.done.append(args) or args,
                "rollback": self.fail,
            },
            utc=lambda: NOW,
        )

    def fail(self, args):
        raise DeviceError("no previous version")

    def signed(self, private=None, key="ops", **words) -> bytes:
        order = {"id": "1", "do": "status", "args": {}, "box": "press-4", "counter": 1, **words}
        payload = json.dumps(order).encode()
        signature = sign(private or self.private, payload)
        return self.envelope(payload, signature, key)

    @staticmethod
    def envelope(payload: bytes, signature: bytes, key: str = "ops") -> bytes:
        words = {name: base64.b64encode(raw).decode() for name, raw in (("payload", payload), ("signature", signature))}
        return json.dumps({**words, "key": key}).encode()

    def audit(self):
        return [(row["do"], row["result"], row["reason"]) for row in self.book.newest()]


@pytest.fixture
def box(tmp_path):
    box = Box(tmp_path, Proof.SIGNATURE)
    yield box
    box.book.close()


@pytest.fixture
def nonce_box(tmp_path):
    box = Box(tmp_path, Proof.NONCE)
    yield box
    box.book.close()


def test_a_signed_command_is_obeyed_answered_and_written_down(box):
    answer = box.commands.receive(box.signed())
    assert answer == {"id": "1", "do": "status", "result": "done", "reason": "", "answer": {"state": "ok"}}
    assert box.audit() == [("status", "done", "")]


def test_a_replay_is_refused_also_after_a_restart(box):
    message = box.signed(do="automation", args={"degree": "partial"}, counter=5)
    assert box.commands.receive(message)["result"] == "done"
    assert "replayed" in box.commands.receive(message)["reason"]
    box.book.close()
    box.commands.book = box.book = CommandBook(box.folder / "commands.db")
    assert "replayed" in box.commands.receive(message)["reason"]
    assert box.commands.receive(box.signed(counter=4))["result"] == "refused"
    assert box.done == [{"degree": "partial"}]


def test_a_stranger_is_refused_and_not_answered(box, tmp_path):
    stranger, _ = make_key(tmp_path / "elsewhere", "ops")
    assert box.commands.receive(box.signed(private=stranger)) is None
    assert box.commands.receive(box.signed(key="nobody")) is None
    assert box.commands.receive(box.signed(key="../elsewhere/ops")) is None
    assert [result for _, result, _ in box.audit()] == ["refused"] * 3


def test_one_flipped_bit_is_noticed(box):
    message = bytearray(box.signed())
    payload = json.loads(message)["payload"]
    at = message.index(payload.encode()) + 10
    message[at] = ord("A") if message[at] != ord("A") else ord("B")
    assert box.commands.receive(bytes(message)) is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"do": "reboot"}, "none of status"),
        ({"box": "press-5"}, "this is"),
        ({"counter": 0}, "no counter"),
        ({"counter": True}, "no counter"),
        ({"extra": 1}, "unknown field"),
        ({"id": "a b"}, "no id"),
        ({"do": "automation"}, "takes degree"),
        ({"do": "automation", "args": {"degree": "none"}}, "value that is not allowed"),
        ({"do": "automation", "args": {"degree": ["full"]}}, "value that is not allowed"),
        ({"do": "evidence", "args": {"part": "../../etc/passwd"}}, "value that is not allowed"),
        ({"args": {"x": 1}}, "takes no arguments"),
        ({"args": []}, "takes no arguments"),
        ({"expires": "2026-05-01T11:59:59+00:00"}, "expired"),
        ({"expires": "2026-05-01T12:01:00"}, "no time zone"),
        ({"expires": "soon"}, "no time"),
        ({"do": "rebirth"}, "cannot rebirth"),
    ],
)
def test_what_is_wrong_with_a_proven_command_is_told(box, words, reason):
    answer = box.commands.receive(box.signed(**words))
    assert answer["result"] in ("refused", "failed")
    assert reason in answer["reason"]
    assert box.done == []


def test_a_command_that_fails_is_answered_with_the_reason(box):
    answer = box.commands.receive(box.signed(do="rollback"))
    assert (answer["result"], answer["reason"]) == ("failed", "no previous version")


def test_an_expiry_is_not_looked_at_without_a_clock(box):
    box.commands.utc = lambda: None
    assert box.commands.receive(box.signed(expires="2020-01-01T00:00:00Z"))["result"] == "done"


def test_a_retained_command_is_refused(box):
    assert box.commands.receive(box.signed(), is_retained=True) is None
    assert "retained" in box.audit()[0][2]


def test_an_oversized_message_is_refused_unread(box):
    assert box.commands.receive(b"{" + b" " * MOST_BYTES) is None
    assert "at most" in box.audit()[0][2]


def test_a_nonce_is_used_up_by_one_attempt(nonce_box):
    order = {"id": "1", "do": "status", "args": {}, "box": "press-4", "nonce": nonce_box.commands.nonce}
    assert nonce_box.commands.receive(json.dumps({**order, "nonce": "guess"}).encode()) is None
    assert nonce_box.commands.receive(json.dumps(order).encode()) is None
    order["nonce"] = nonce_box.commands.nonce
    assert nonce_box.commands.receive(json.dumps(order).encode())["result"] == "done"
    assert nonce_box.commands.receive(json.dumps(order).encode()) is None


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_refused_without_a_word(box, data):
    assert box.commands.receive(data) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["id", "do", "args", "box", "counter", "expires", "nonce", "x"]), json_values))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_signed_object_is_answered_and_does_nothing(box, words):
    payload = json.dumps({"box": "press-4", **words}).encode()
    answer = box.commands.receive(box.envelope(payload, sign(box.private, payload)))
    assert answer["result"] in ("refused", "failed")
    assert box.done == []


def test_a_key_is_not_written_over(tmp_path):
    make_key(tmp_path, "ops")
    with pytest.raises(ConfigError, match="take another name"):
        make_key(tmp_path, "ops")
    with pytest.raises(ConfigError, match="no name"):
        make_key(tmp_path, "../ops")
    assert (tmp_path / "ops.key").stat().st_mode & 0o077 == 0


def test_a_book_that_cannot_be_written_obeys_nothing(box):
    blocker = sqlite3.connect(box.folder / "commands.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    box.book._db.execute("PRAGMA busy_timeout = 10")
    try:
        assert box.commands.receive(box.signed(do="automation", args={"degree": "partial"})) is None
        assert box.done == []
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()


def test_a_damaged_book_is_told_with_the_fix(tmp_path):
    (tmp_path / "commands.db").write_bytes(b"x" * 5000)
    with pytest.raises(StorageError, match="mended or removed"):
        CommandBook(tmp_path / "commands.db")
