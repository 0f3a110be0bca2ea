"""The control socket: real sockets, real peers, bad requests."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import DeviceError
from edge_runtime.process import control
from edge_runtime.process.control import (
    MAX_REQUEST,
    SHARED_S,
    ControlServer,
    SharedAnswer,
    ask,
)
from edge_runtime.process.sd_notify import Notifier
from edge_runtime.process.unix_socket import is_answering, listener
from tests.support.waiting import until


@pytest.fixture
def server(tmp_path):
    server = ControlServer(tmp_path / "c.sock", {"echo": lambda request: request.get("word"), "fail": fail})
    server.start()
    yield server
    server.stop()


def fail(_):
    raise DeviceError("no such device")


def raw(path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_request_is_answered(server):
    assert ask(server.path, "echo", word="hello") == "hello"
    assert server.path.stat().st_mode & 0o777 == 0o660


def test_unknown_request_names_the_known_ones(server):
    with pytest.raises(DeviceError, match=r"unknown request .dance.*echo, fail"):
        ask(server.path, "dance")


def test_error_of_a_handler_is_a_sentence(server):
    with pytest.raises(DeviceError, match="no such device"):
        ask(server.path, "fail")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_nonsense_is_refused_and_the_server_lives(server, data):
    answer = raw(server.path, data.replace(b"\n", b"") + b"\n")
    assert "error" in json.loads(answer)
    assert ask(server.path, "echo", word=1) == 1


def test_endless_line_is_refused(server):
    raw(server.path, b"x" * (MAX_REQUEST + 70000))
    assert ask(server.path, "echo", word=1) == 1


def test_nobody_there_is_said_with_the_fix(tmp_path):
    with pytest.raises(DeviceError, match=r"no edge-runtime is running here.*edge-runtime run"):
        ask(tmp_path / "none.sock", "status")


def test_socket_left_by_a_crash_is_replaced_and_a_live_one_is_not(tmp_path, server):
    second = ControlServer(server.path, {})
    with pytest.raises(DeviceError, match="answered by a running edge-runtime"):
        second.start()
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(dead))
    assert not is_answering(dead)
    third = ControlServer(dead, {"echo": lambda request: 3})
    third.start()
    assert ask(dead, "echo") == 3
    third.stop()
    third.stop()
    assert not dead.exists()


def test_file_in_the_way_is_not_removed(tmp_path):
    path = tmp_path / "c.sock"
    path.write_text("mine")
    with pytest.raises(DeviceError, match="not a socket"):
        ControlServer(path, {}).start()
    assert path.read_text() == "mine"


def test_path_too_long_for_a_socket_is_a_sentence(tmp_path):
    with pytest.raises(DeviceError, match=r"set service\.socket"):
        ControlServer(tmp_path / ("x" * 120), {}).start()


def test_many_clients_at_once(server):
    answers = []
    threads = [threading.Thread(target=lambda n=n: answers.append(ask(server.path, "echo", word=n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == list(range(8))


def test_systemd_hears_ready_alive_and_stopping(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"})
        assert notifier.watchdog_s == 3.0
        notifier.ready("up")
        notifier.alive("3 parts")
        notifier.stopping()
        assert [systemd.recv(200) for _ in range(3)] == [
            b"READY=1\nSTATUS=up",
            b"WATCHDOG=1\nSTATUS=3 parts",
            b"STOPPING=1",
        ]


def test_without_systemd_nothing_is_said(tmp_path):
    Notifier({}).ready("up")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).alive("x")
    assert Notifier({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_all_who_ask_together_share_one_answer_and_a_change_is_seen_at_once(tmp_path):
    made, now = [], [0.0]
    shared = SharedAnswer(lambda _: made.append(0) or len(made), clock=lambda: now[0])
    server = ControlServer(tmp_path / "c.sock", {"change": lambda _: "done"}, {"status": shared})
    server.start()
    try:
        assert [ask(server.path, "status") for _ in range(5)] == [1] * 5
        now[0] += SHARED_S
        assert ask(server.path, "status") == 2
        assert ask(server.path, "change") == "done"
        assert ask(server.path, "status") == 3
    finally:
        server.stop()


def test_a_client_that_sends_a_byte_now_and_then_loses_its_place(server, monkeypatch):
    monkeypatch.setattr(control, "CLIENT_TIMEOUT_S", 0.3)
    with socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(10)
        slow.connect(str(server.path))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(10_000):
                slow.send(b" ")
                select.select([slow], [], [], 0.02)
    assert ask(server.path, "echo", word=1) == 1


def test_a_listener_is_known_by_its_process_and_a_socket_left_behind_is_none(server, tmp_path):
    assert listener(server.path) == os.getpid()
    assert listener(tmp_path / "none.sock") is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert listener(tmp_path / "dead.sock") is None


def test_a_box_whose_queue_is_full_is_there(tmp_path):
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as box, socket.socket(socket.AF_UNIX) as waiting:
        box.bind(str(path))
        box.listen(0)
        waiting.connect(str(path))
        assert (listener(path), is_answering(path)) == (0, True)


@pytest.mark.parametrize("slow", [16, 40])
def test_clients_with_a_byte_a_second_do_not_lock_others_out(tmp_path: Path, slow: int) -> None:
    server = ControlServer(tmp_path / "c.sock", {"status": lambda _: "well"})
    server.start()
    clients: list[socket.socket] = []
    try:
        for _ in range(slow):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.settimeout(5.0)
            with suppress(BlockingIOError):  # the queue of the kernel is full of the others
                client.connect(str(server.path))
                client.sendall(b"{")
        for _ in range(5):
            assert ask(server.path, "status", 4.0) == "well"
    finally:
        for client in clients:
            client.close()
        server.stop()


def test_a_client_whose_question_is_being_answered_keeps_its_place(tmp_path: Path) -> None:
    must_end, answers = threading.Event(), []
    server = ControlServer(tmp_path / "c.sock", {"flush": lambda _: must_end.wait(20.0), "status": lambda _: "well"})
    server.start()
    askers = [
        threading.Thread(target=lambda: answers.append(ask(server.path, "flush", 20.0)), daemon=True) for _ in range(15)
    ]
    try:
        for asker in askers:
            asker.start()
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(server.path))
            slow.sendall(b"{")
            until(lambda: ask(server.path, "status", 4.0) == "well")
        must_end.set()
        for asker in askers:
            asker.join(10.0)
    finally:
        must_end.set()
        server.stop()
    assert answers == [True] * 15
