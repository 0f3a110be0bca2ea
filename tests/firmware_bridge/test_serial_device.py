"""An open port on a real pty: what it does not take at once, and how a wait for it is ended."""

from __future__ import annotations

import os
import select
import tty
from collections.abc import Iterator

import pytest

from firmware_bridge.serial_device import MAX_BACKLOG, OpenPort, open_serial
from firmware_bridge.wake_pipe import WakePipe


class Pty:
    def __init__(self) -> None:
        self.far_fd, self._near_fd = os.openpty()
        tty.setraw(self.far_fd)
        os.set_blocking(self.far_fd, False)
        name = os.ttyname(self._near_fd)
        self.port = OpenPort(name, open_serial(name, 115_200), 0)

    def read(self) -> bytes:
        """All that has come out by now."""
        data = b""
        while select.select([self.far_fd], [], [], 0.05)[0]:
            data += os.read(self.far_fd, 4096)
        return data

    def close(self) -> None:
        self.port.close()
        os.close(self.far_fd)
        os.close(self._near_fd)


@pytest.fixture
def pty() -> Iterator[Pty]:
    made = Pty()
    yield made
    made.close()


def test_what_a_port_does_not_take_waits_and_goes_out_in_order(pty: Pty) -> None:
    sent = b""
    while not pty.port.has_backlog:
        piece = bytes((len(sent) + at) % 251 for at in range(500))
        assert pty.port.write(piece) == 0
        sent += piece
    got = b""
    while pty.port.has_backlog:
        got += pty.read()
        assert pty.port.write(b"") == 0
    assert got + pty.read() == sent


def test_what_waits_too_long_is_dropped_whole_and_counted(pty: Pty) -> None:
    dropped = 0
    while not dropped:
        dropped = pty.port.write(bytes(1000))
    assert MAX_BACKLOG < dropped <= MAX_BACKLOG + 1000
    assert not pty.port.has_backlog


def test_a_wait_ends_when_woken_and_the_next_one_does_not() -> None:
    pipe = WakePipe()
    pipe.wake()  # nobody waits yet
    pipe.open()
    try:
        assert not select.select([pipe.fd], [], [], 0)[0]
        pipe.wake()
        pipe.wake()
        assert select.select([pipe.fd], [], [], 0)[0]
        pipe.drain()
        pipe.drain()
        assert not select.select([pipe.fd], [], [], 0)[0]
    finally:
        pipe.close()
    assert pipe.fd == -1
