"""Pictures: whole, resumed where they were cut, in their hours, and never at the cost of a record."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.schema import SyncConfig
from edge_runtime.core.clock import SECOND
from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import PartKey
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.mqtt.settings import TlsFiles
from edge_runtime.sync.mqtt.tls_files import tls_context
from edge_runtime.sync.pictures.http import HTTP_CHUNK, HttpCarrier
from edge_runtime.sync.pictures.pace import TokenBucket, is_within
from edge_runtime.sync.pictures.upload import Upload
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Consumer, Line, Proxy
from tests.sync.uplink_rig import make_authority

START = Callable[..., Delivery]


def picture(state: Path, line: Line, number: int, size: int) -> bytes:
    """A file as recording leaves it, with its row in the journal."""
    content = hashlib.shake_128(b"%d" % number).digest(size)
    file = f"evidence/2026/03/01/{number}-reject.jpg"
    (state / file).parent.mkdir(parents=True, exist_ok=True)
    (state / file).write_bytes(content)
    line.journal.kept(PartKey(7, number), file)
    assert line.journal.flush(10)
    return content


def assembled(consumer: Consumer) -> dict[str, bytes]:
    """Whole files, as RECORDS.md tells a consumer to put them together."""
    files: dict[str, bytearray] = {}
    for header, chunk in consumer.chunks:
        content = files.setdefault(header["file"], bytearray(header["size"]))
        content[header["offset"] : header["offset"] + len(chunk)] = chunk
    whole = {header["file"]: header["sha256"] for header, _ in consumer.chunks}
    return {name: bytes(data) for name, data in files.items() if hashlib.sha256(data).hexdigest() == whole[name]}


def test_pictures_arrive_whole_over_a_link_that_is_cut_again_and_again(
    state: Path,
    mosquitto: Broker,
    consume: Callable[..., Consumer],
    make_proxy: Callable[[int], Proxy],
    line: Line,
    start_sync: START,
) -> None:
    consumer, proxy = consume(mosquitto.port), make_proxy(mosquitto.port)
    line.parts(3)
    contents = {f"evidence/2026/03/01/{n}-reject.jpg": picture(state, line, n, 300_000 + n) for n in (1, 2, 3)}
    proxy.cut_after = 200_000
    sync = start_sync(proxy.port, evidence="mqtt", evidence_kb_s=1e6)
    until(lambda: len(consumer.of("evidence")) == 3)
    assert assembled(consumer) == contents and proxy.cuts >= 3
    for record in consumer.of("evidence"):
        data = record["data"]
        assert data["sha256"] == hashlib.sha256(contents[data["file"]]).hexdigest() and data["via"] == "mqtt"
    offsets = [header["offset"] for header, _ in consumer.chunks]
    assert offsets.count(0) <= 3 + proxy.cuts, "an upload goes on where it was"
    proxy.cut_after = None
    assert sync.flush(10)


def test_an_upload_goes_on_after_a_restart(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(1)
    content = picture(state, line, 1, 600_000)
    first = start_sync(mosquitto.port, evidence="mqtt", evidence_kb_s=400)
    until(lambda: len(consumer.chunks) >= 3)
    first.stop()
    start_sync(mosquitto.port, evidence="mqtt", evidence_kb_s=1e6)
    until(lambda: consumer.of("evidence"))
    assert list(assembled(consumer).values()) == [content]
    assert len(consumer.chunks) <= 600_000 // 65_536 + 2


def test_pictures_wait_for_their_hours_and_records_do_not(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    later = time.localtime(time.time() + 3 * 3600)
    hours = f"{later.tm_hour:02d}:00-{later.tm_hour:02d}:30"
    sync = start_sync(mosquitto.port, evidence="mqtt", evidence_hours=hours)
    numbers = set(line.parts(3))
    for number in numbers:
        picture(state, line, number, 1000)
    until(lambda: consumer.parts("outcome") == numbers)
    until(lambda: sync.report()["uploads"]["held"] == f"pictures go {hours}")
    assert sync.flush(10) and consumer.chunks == []
    with pytest.raises(StorageError, match="no picture"):
        sync.request_evidence("0007-99")
    with pytest.raises(StorageError, match="look like"):
        sync.request_evidence("../../etc/passwd")
    assert sync.request_evidence("0007-2") == "evidence/2026/03/01/2-reject.jpg"
    until(lambda: consumer.of("evidence"))
    assert [record["data"]["part"] for record in consumer.of("evidence")] == ["0007-2"]


def test_on_a_metered_uplink_pictures_go_only_when_asked_for(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    sync = start_sync(mosquitto.port, evidence="mqtt", metered=True)
    line.parts(1)
    picture(state, line, 1, 1000)
    until(lambda: consumer.parts("outcome") == {1})
    assert sync.report()["uploads"]["held"] == "the uplink is metered"
    assert sync.flush(10) and not consumer.chunks


def test_a_picture_that_recording_removed_is_counted_and_told(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(2)
    picture(state, line, 1, 1000)
    picture(state, line, 2, 1000)
    (state / "evidence/2026/03/01/1-reject.jpg").unlink()
    start_sync(mosquitto.port, evidence="mqtt")
    until(lambda: consumer.of("evidence") and consumer.of("drop"))
    (drop,) = consumer.of("drop")
    assert (drop["data"]["what"], drop["data"]["why"]) == ("evidence", "removed")
    assert drop["data"]["names"] == ["evidence/2026/03/01/1-reject.jpg"]


# -- HTTP --------------------------------------------------------------------------------------------------------------


class Folder(http.server.ThreadingHTTPServer):
    """A server for resumable PUT that can be told to answer badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Put)
        self.files: dict[str, bytes] = {}
        self.partial: dict[str, bytearray] = {}
        self.answers: list[int] = []  # to give instead of doing the work
        self.requests: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Put(http.server.BaseHTTPRequestHandler):
    server: Folder

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        span = self.headers.get("Content-Range", "")
        self.server.requests.append((self.path, span))
        if self.server.answers:
            self._answer(self.server.answers.pop(0))
            return
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", span)
        if not found:
            self.server.files[self.path] = body
            self._answer(201)
            return
        first, last, size = map(int, found.groups())
        has = self.server.partial.setdefault(self.path, bytearray())
        if first > len(has):
            self._answer(409)
            return
        has[first : last + 1] = body
        if len(has) == size:
            self.server.files[self.path] = bytes(self.server.partial.pop(self.path))
            self._answer(201)
        else:
            self._answer(308, f"bytes=0-{len(has) - 1}")

    def _answer(self, status: int, span: str = "") -> None:
        self.send_response(status)
        if span:
            self.send_header("Range", span)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(closing: ExitStack) -> Folder:
    made = Folder()
    closing.callback(made.server_close)
    closing.callback(made.shutdown)
    return made


def test_pictures_are_put_over_http_in_pieces_and_survive_bad_answers(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START, server: Folder
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(2)
    small, large = picture(state, line, 1, 5000), picture(state, line, 2, 2 * HTTP_CHUNK + 1234)
    server.answers = [503, 500, 409]
    url = f"http://127.0.0.1:{server.server_port}/pictures/"
    start_sync(mosquitto.port, evidence="http", evidence_url=url, evidence_kb_s=1e6)
    until(lambda: len(consumer.of("evidence")) == 2)
    folder = "/pictures/box-7/evidence/2026/03/01"
    assert server.files == {f"{folder}/1-reject.jpg": small, f"{folder}/2-reject.jpg": large}
    assert {record["data"]["via"] for record in consumer.of("evidence")} == {"http"}
    spans = [span for path, span in server.requests if path.endswith("2-reject.jpg")]
    assert spans == [
        f"bytes 0-{HTTP_CHUNK - 1}/{len(large)}",
        f"bytes {HTTP_CHUNK}-{2 * HTTP_CHUNK - 1}/{len(large)}",
        f"bytes {2 * HTTP_CHUNK}-{len(large) - 1}/{len(large)}",
    ]


def test_a_picture_that_the_server_never_takes_is_dropped_and_the_next_goes(
    state: Path, mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START, server: Folder
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(2)
    picture(state, line, 1, 100)
    picture(state, line, 2, 100)
    server.answers = [413]
    start_sync(mosquitto.port, evidence="http", evidence_url=f"http://127.0.0.1:{server.server_port}")
    until(lambda: consumer.of("evidence") and consumer.of("drop"))
    assert consumer.of("drop")[0]["data"]["why"] == "refused"
    assert list(server.files) == ["/box-7/evidence/2026/03/01/2-reject.jpg"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("authority", ("certificate of 127.0.0.1:PORT is not trusted", "sync.ca_file", "sync.evidence_url")),
        ("plain", ("127.0.0.1:PORT does not seem to speak TLS", "https in sync.evidence_url")),
        ("old", ("refuses TLS", "protocol version", "must speak TLS 1.3")),
        ("client", ("refuses TLS", "accept sync.cert_file")),
        ("closed", ("nobody listens at 127.0.0.1:PORT: check sync.evidence_url",)),
        ("name", ("the name 127.0.0.1 is not known", "check sync.evidence_url")),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_with_what_to_look_at(
    fault: str, words: tuple[str, ...], server: Folder, tmp_path: Path, closing: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    context, port = ssl.create_default_context(), server.server_port
    if fault in ("authority", "old", "client"):
        pki = make_authority(tmp_path / "pki")
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(pki / "broker.pem", pki / "broker.key")
        if fault != "authority":
            context = tls_context(TlsFiles(str(pki / "ca.pem"), "", ""))
        if fault == "old":
            own.maximum_version = ssl.TLSVersion.TLSv1_2
        elif fault == "client":
            own.load_verify_locations(pki / "ca.pem")
            own.verify_mode = ssl.CERT_REQUIRED
        server.socket = own.wrap_socket(server.socket, server_side=True)
    elif fault == "closed":
        nobody = closing.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        port = nobody.getsockname()[1]
    elif fault == "name":
        monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(-2, "Name or service not known")))
    answered = threading.Event()
    carrier = HttpCarrier(f"https://127.0.0.1:{port}", "box-7", lambda: context, answered.set)
    try:
        carrier.send(Upload(1, "1.jpg", "7-1", "reject", False, 3, "0" * 64, 0), b"abc")
        assert answered.wait(30)
        with pytest.raises(ConnectionError) as told:
            carrier.result()
    finally:
        carrier.stop()
    assert all(word.replace("PORT", str(port)) in str(told.value) for word in words), told.value


@pytest.mark.parametrize("host", ["mqtt://broker", "me:pw@broker"])
def test_a_broker_is_named_by_its_host_alone(host: str) -> None:
    with pytest.raises(ValueError, match="address of the broker alone"):
        SyncConfig(host=host)


@pytest.mark.parametrize("url", ["", "ftp://x/y", "http:///x", "https://:1/x", "http://h:99999/", "http://me:pw@h/"])
def test_an_address_of_no_server_is_refused_without_telling_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="needs evidence_url") as told:
        SyncConfig(evidence="http", evidence_url=url)
    assert "me:pw@" not in str(told.value).partition("[type=")[0]


# -- pace --------------------------------------------------------------------------------------------------------------


@given(st.integers(100, 10**7), st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 70_000)), max_size=200))
def test_over_time_no_more_goes_than_the_rate_a_burst_and_one_piece(rate: int, steps: list[tuple[int, int]]) -> None:
    now, sent, burst = 0, 0, 65_536
    bucket = TokenBucket(rate, burst, now)
    for wait_ns, size in steps:
        now += wait_ns
        wait_s = bucket.wait_s(now)
        if wait_s == 0:
            bucket.take(size)
            sent += size
        else:
            assert bucket.wait_s(now + round(wait_s * SECOND) + 1) == 0
            now += round(wait_s * SECOND) + 1
    assert sent <= rate * now / SECOND + burst + 70_000


def test_hours_may_pass_midnight() -> None:
    def at(hour: int, minute: int) -> int:
        return round(time.mktime((2026, 3, 1, hour, minute, 0, 0, 0, -1))) * SECOND

    assert is_within("", at(12, 0))
    assert is_within("22:00-05:00", at(23, 59)) and is_within("22:00-05:00", at(4, 59))
    assert not is_within("22:00-05:00", at(5, 0)) and not is_within("22:00-05:00", at(21, 59))
    assert is_within("08:30-09:00", at(8, 30)) and not is_within("08:30-09:00", at(9, 0))
    assert is_within("07:00-07:00", at(3, 0))
