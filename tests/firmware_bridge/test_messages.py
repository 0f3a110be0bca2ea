"""The message table: every row packs and unpacks, and nothing else unpacks."""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum, IntFlag
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.reject import messages
from firmware_bridge.reject.frames import MAX_PAYLOAD
from firmware_bridge.reject.messages import (
    PROTOCOL_VERSION,
    TABLE,
    Hello,
    HelloR,
    Verdict,
    WireError,
    hello_version,
    unpack,
)

_SIZES = {"B": 8, "H": 16, "I": 32}


def _values(cls):
    hints = get_type_hints(cls, include_extras=True)
    row = {}
    for field in fields(cls):
        kind, code = get_args(hints[field.name])
        if kind is bool:
            row[field.name] = st.booleans()
        elif issubclass(kind, IntEnum):
            row[field.name] = st.sampled_from(list(kind))
        elif issubclass(kind, IntFlag):
            row[field.name] = st.integers(0, 255).map(kind)
        else:
            row[field.name] = st.integers(0, 2 ** _SIZES[code] - 1)
    return st.builds(cls, **row)


@given(st.sampled_from(TABLE).flatmap(_values))
def test_every_message_comes_back_as_it_was(message):
    payload = message.pack()
    assert len(payload) <= MAX_PAYLOAD
    assert unpack(payload) == message


@given(st.binary(max_size=40))
def test_any_payload_is_a_message_or_a_wire_error(payload):
    try:
        message = unpack(payload)
    except WireError:
        return
    assert message.pack()[0] == payload[0]


@given(st.sampled_from(TABLE).flatmap(_values), st.integers(1, 4))
def test_a_cut_or_longer_message_is_refused(message, by):
    payload = message.pack()
    for wrong in (payload[:-by], payload + bytes(by)):
        with pytest.raises(WireError):
            unpack(wrong)


def test_the_version_changes_with_the_table(monkeypatch):
    assert 0 < PROTOCOL_VERSION < 2**16
    before = messages._describe()
    monkeypatch.setattr(messages, "TABLE", TABLE[:-1])
    assert messages._describe() != before


def test_hello_tells_its_version_in_any_release():
    assert hello_version(Hello(0x1234, 7).pack()) == 0x1234
    assert hello_version(bytes([HelloR.KIND, 0x34, 0x12]) + b"of a later release, longer") == 0x1234
    assert hello_version(b"\x05\x34\x12") is None
    assert hello_version(b"") is None


def test_no_small_damage_turns_a_verdict_into_another():
    assert (Verdict.ACCEPT ^ Verdict.REJECT).bit_count() == 8
    assert Verdict.ACCEPT.bit_count() == Verdict.REJECT.bit_count() == 4
