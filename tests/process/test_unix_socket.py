"""Who is answered on the box's sockets, and who is not: real peers of another user."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from edge_runtime.core.errors import DeviceError
from edge_runtime.process.json_lines import Lines, as_line
from edge_runtime.process.unix_socket import LOOK_EVERY_S, UnixServer, connected

NOBODY = 65534
WAIT_S = 30.0


def echo(client):
    return as_line(Lines(client, WAIT_S).line())


@pytest.fixture
def folder():
    """Where other users may look."""
    with tempfile.TemporaryDirectory(prefix="edge-socket-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def serve(folder):
    servers = []

    def one(**options):
        options = {"most_clients": 2, "send_s": WAIT_S} | options
        servers.append(UnixServer(folder / "s.sock", "test", options.pop("answer", echo), **options))
        servers[-1].start()
        return servers[-1]

    yield one
    for server in servers:
        server.stop()


def ask(path, **words):
    with connected(path, WAIT_S) as sock:
        sock.sendall(as_line(words))
        return Lines(sock, WAIT_S).line()


class Stranger:
    """A process of user nobody: forked before any thread, it asks when it is told to, and tells the answer."""

    def __init__(self, path, groups):
        wait, self._go = os.pipe()
        self._answer, tell = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.setgroups(groups)
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.read(wait, 1)
                os.write(tell, json.dumps(ask(path, do="echo")).encode())
            finally:
                os._exit(0)
        os.close(wait)
        os.close(tell)

    def ask(self):
        os.write(self._go, b".")
        answer = os.read(self._answer, 65536)
        os.waitpid(self._pid, 0)
        os.close(self._go)
        os.close(self._answer)
        return json.loads(answer)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("is_member", [True, False])
def test_another_user_is_answered_as_a_member_of_our_group_only(folder, serve, is_member):
    stranger = Stranger(folder / "s.sock", [os.getegid()] if is_member else [])
    server = serve()
    server.path.chmod(0o666)  # whoever can open it is still looked at
    answer = stranger.ask()
    if is_member:
        assert (answer, server.refused) == ({"do": "echo"}, 0)
    else:
        assert f"user {NOBODY} may not talk to this box" in answer["error"] and server.refused == 1


def test_one_too_many_is_hung_up_on_and_the_others_are_served(serve):
    may_answer = threading.Event()
    server = serve(answer=lambda client: may_answer.wait(WAIT_S) and echo(client))
    waiting = [connected(server.path, WAIT_S) for _ in range(2)]
    with connected(server.path, WAIT_S) as third:
        assert third.recv(1) == b""
    assert server.busy == 1
    may_answer.set()
    for sock in waiting:
        with sock:
            sock.sendall(as_line({"do": "wait"}))
            assert Lines(sock, WAIT_S).line() == {"do": "wait"}


def test_its_loop_turns_without_a_client(serve):
    server = serve()
    first, until = server.progress_ns, time.monotonic() + WAIT_S
    while server.progress_ns == first:
        assert time.monotonic() < until
        time.sleep(LOOK_EVERY_S / 10)


def test_a_client_that_leaves_in_the_middle_harms_nobody(serve):
    server = serve()
    with connected(server.path, WAIT_S) as sock:
        sock.sendall(b"{")
    assert ask(server.path, do="echo") == {"do": "echo"}


def test_a_busy_owner_keeps_its_socket(folder):
    path = folder / "busy.sock"
    with socket.socket(socket.AF_UNIX) as owner, socket.socket(socket.AF_UNIX) as waiting:
        owner.bind(str(path))
        owner.listen(0)
        waiting.connect(str(path))
        with pytest.raises(DeviceError, match="answered by a running edge-runtime"):
            UnixServer(path, "second", echo, most_clients=1, send_s=1.0).start()
        assert path.exists()
