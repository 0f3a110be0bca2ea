"""JSON lines over a socket: whatever comes, and however slowly, it costs a bounded time and a bounded size."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.errors import ProtocolError
from edge_runtime.process.json_lines import MOST_BLOCK, HungUp, Lines, as_line


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_lines_and_blocks_come_out_as_they_went_in(ends):
    ours, theirs = ends
    theirs.sendall(as_line({"do": "hear", "text": "Öl \ud800"}) + b"\x00\n\x01" + as_line({}) + b'{"half')
    lines = Lines(ours, 5.0)
    assert lines.line() == {"do": "hear", "text": "Öl \ud800"}
    assert lines.block(3) == b"\x00\n\x01"
    assert lines.line() == {}
    with pytest.raises(TimeoutError):
        lines.within(0).line()
    theirs.sendall(b'": 1}\n')
    assert lines.within(0).line() == {"half": 1}


def test_sizes_are_bounded(ends):
    ours, theirs = ends
    lines = Lines(ours, 5.0, most_line=100)
    with pytest.raises(ProtocolError, match="at most"):
        lines.block(MOST_BLOCK + 1)
    theirs.sendall(b"x" * 200)
    with pytest.raises(ProtocolError, match="a line of more than 100 bytes"):
        lines.line()


def test_a_far_side_that_ends_is_told_from_one_that_is_silent(ends):
    ours, theirs = ends
    lines = Lines(ours, 0.01)
    with pytest.raises(TimeoutError):
        lines.line()
    theirs.close()
    with pytest.raises(HungUp):
        lines.within(5.0).line()


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_no_bytes_are_more_than_a_protocol_error(data):
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.suppress(ProtocolError):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        Lines(ours, 5.0).line()
