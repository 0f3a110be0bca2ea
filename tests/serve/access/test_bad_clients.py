"""Clients that are slow, many, or talk nonsense: each costs little, and others are answered meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest

from edge_runtime.serve import http_server
from edge_runtime.serve.api.shelf import memory_of
from edge_runtime.serve.head_limit import MOST_HEAD_BYTES
from tests.serve.http_box import box
from tests.support.waiting import until

MOST = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_server, "HEAD_S", 0.4)
        patch.setattr(http_server, "LINGER_S", 0.2)
        patch.setattr(http_server, "TAKE_S", 0.4)
        with box(
            tmp_path_factory.mktemp("state"), f"serve.max_connections={MOST}", "serve.body_s=0.4", "serve.max_body_mb=1"
        ) as running:
            yield running


def said(sock):
    """All that it says until it closes."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data


def test_a_head_that_does_not_come_ends_the_connection(server):
    with server.raw() as silent, server.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n") as slow:
        assert said(silent) == b"" and said(slow) == b""


def test_a_head_that_trickles_ends_the_connection(server):
    """Each byte must not buy more time."""
    with server.raw(b"GET /healthz HTTP/1.1\r\nX: ") as slow:
        slow.settimeout(0.05)

        def is_cut():
            try:
                slow.sendall(b"x")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        until(is_cut, within_s=20)


def test_a_body_that_does_not_come_is_408(server):
    head = b"POST /v2/models/scratch/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
    with server.raw(head) as slow:
        assert said(slow).startswith(b"HTTP/1.1 408")


def test_too_large_a_body_is_413_whether_it_says_so_or_not(server):
    ask = b"POST /v2/models/scratch/infer HTTP/1.1\r\nHost: localhost\r\n"
    with server.raw(ask + b"Content-Length: 99999999\r\n\r\n") as told:
        assert said(told).startswith(b"HTTP/1.1 413")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with server.raw(ask + b"Transfer-Encoding: chunked\r\n\r\n") as silent:
        with contextlib.suppress(OSError):
            silent.sendall(chunk * 20)
        assert said(silent).startswith(b"HTTP/1.1 413")


def test_who_does_not_take_the_answer_is_given_up(server):
    """A hundred answers of 48 kB for a client that reads none: neither they nor the connection are kept."""
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(server.address)
        deaf.sendall(ask * 100)
        until(lambda: server.components["http"].report()["connections"] > 0)
        until(lambda: server.components["http"].report()["connections"] == 0)


@pytest.mark.parametrize("head", [
    b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
], ids=range(8))  # fmt: skip
def test_nonsense_is_refused_in_json(server, head):
    with server.raw(head) as sock:
        answer, _, body = said(sock).partition(b"\r\n\r\n")
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 421", b"HTTP/1.1 431")
    assert json.loads(body)["error"]


@pytest.mark.parametrize("at", [MOST_HEAD_BYTES // 2, MOST_HEAD_BYTES - 1, MOST_HEAD_BYTES, MOST_HEAD_BYTES + 10])
@pytest.mark.parametrize("more, status", [(0, b"200"), (1, b"431"), (8, b"431"), (20_000, b"431")])
def test_a_large_head_gets_the_same_answer_however_it_is_cut(server, at, more, status):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
    head += b"x" * (MOST_HEAD_BYTES - len(head) - 4 + more) + b"\r\n\r\n"
    answers = []
    for pieces in ((head,), (head[:at], head[at:])):
        with server.raw() as sock:
            for piece in pieces:
                with contextlib.suppress(OSError):  # it is refused before its end
                    sock.sendall(piece)
            answers.append(said(sock))
    assert [answer[9:12] for answer in answers] == [status] * 2
    assert json.loads(answers[0].partition(b"\r\n\r\n")[2]) == json.loads(answers[1].partition(b"\r\n\r\n")[2])


def test_more_connections_than_allowed_are_turned_away_and_the_rest_lives(server):
    until(lambda: server.components["http"].report()["connections"] == 0)
    crowd = [server.raw() for _ in range(MOST)]
    try:
        until(lambda: server.components["http"].report()["connections"] >= MOST)
        with server.raw() as late:
            assert said(late).startswith(b"HTTP/1.1 503")
    finally:
        for one in crowd:
            one.close()
    until(lambda: server.get("/healthz").status == 200)


def test_a_thousand_connections_cost_no_memory_and_nobody_is_shut_out_for_long(server):
    def resident():
        return memory_of(os.getpid())

    before = resident()
    for _ in range(10):
        crowd = []
        for _ in range(100):
            with contextlib.suppress(OSError):
                crowd.append(socket.create_connection(server.address, timeout=5))
        for one in crowd:
            one.close()
    until(lambda: server.get("/healthz").status == 200)
    assert resident() - before < 32 << 20


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_page_of_another_site_cannot_make_the_box_do_something(server, origin):
    answer = server.post("/v2/repository/models/scratch/load", {}, {"Origin": origin})
    assert answer.status == 403
    assert server.post("/v2/repository/models/nope/load", {}, {"Origin": server.url}).status == 404


def test_every_write_is_in_the_audit(server):
    server.post("/v2/repository/models/audited/load", {})
    lines = (server.state / "serve-audit.jsonl").read_text().splitlines()
    assert '"path": "/v2/repository/models/audited/load", "status": 404' in lines[-1]
    assert '"who": "loopback"' in lines[-1]


def test_an_answer_of_two_packets_is_not_held_back(server):
    """Nagle's delay makes 40 ms of each."""
    with server.raw():
        connections = server.components["http"]._server.server_state.connections
        until(lambda: connections)
        socks = [one.transport.get_extra_info("socket") for one in connections]
        assert all(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in socks)
