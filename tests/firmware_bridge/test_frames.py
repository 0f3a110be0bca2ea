"""The codec: what goes in comes out, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from firmware_bridge.reject.frames import MAX_BODY, MAX_PAYLOAD, Deframer, cobs_decode, cobs_encode, crc16, encode_frame

payloads = st.binary(min_size=1, max_size=MAX_PAYLOAD)


def test_crc_has_the_published_check_value():
    assert crc16(b"123456789") == 0x29B1


@given(st.binary(max_size=254))
def test_cobs_round_trips_and_holds_no_zero(data):
    body = cobs_encode(data)
    assert 0 not in body and len(body) == len(data) + 1
    assert cobs_decode(body) == data


@given(st.binary(max_size=80))
def test_cobs_decodes_or_refuses_any_bytes(body):
    data = cobs_decode(body)
    assert data is None or len(data) <= len(body)


@given(st.lists(payloads, max_size=8), st.integers(1, 7))
def test_frames_come_out_whole_whatever_the_pieces(sent, step):
    wire = b"".join(map(encode_frame, sent))
    deframer = Deframer()
    got = [payload for at in range(0, len(wire), step) for payload in deframer.feed(wire[at : at + step])]
    assert got == sent
    assert deframer.counts.frames == len(sent)


@given(st.binary(max_size=300), payloads)
def test_the_frame_after_garbage_and_a_zero_is_heard(garbage, payload):
    deframer = Deframer()
    deframer.feed(garbage + b"\0")
    assert deframer.feed(encode_frame(payload)) == [payload]


@given(payloads, st.data())
def test_up_to_three_flipped_bits_are_never_accepted(payload, data):
    # in the body before stuffing: what the CRC promises at these lengths
    frame = bytearray(payload + crc16(payload).to_bytes(2, "little"))
    bits = data.draw(st.sets(st.integers(0, 8 * len(frame) - 1), min_size=1, max_size=3))
    for bit in bits:
        frame[bit // 8] ^= 1 << bit % 8
    deframer = Deframer()
    assert deframer.feed(cobs_encode(bytes(frame)) + b"\0") == []
    assert deframer.counts.bad_crc == 1


def test_random_frames_are_accepted_no_more_often_than_a_crc_by_chance():
    from random import Random

    rng = Random(5)
    deframer = Deframer()
    tries = 60_000
    accepted = sum(len(deframer.feed(cobs_encode(rng.randbytes(12)) + b"\0")) for _ in range(tries))
    assert accepted <= 6  # expected 0.9; P(> 6) < 1e-4, and the seed is fixed


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=90), max_size=6))
def test_any_bytes_are_counted_and_never_raise(pieces):
    deframer = Deframer()
    for piece in pieces:
        for payload in deframer.feed(piece):
            assert 1 <= len(payload) <= MAX_PAYLOAD


def test_a_wrong_baud_rate_shows_as_oversize():
    deframer = Deframer()
    assert deframer.feed(b"\xf0" * (MAX_BODY + 1)) == []
    assert deframer.feed(b"\xf0" * 500 + b"\0") == []
    assert deframer.counts.oversize == 1
    assert deframer.feed(encode_frame(b"ok")) == [b"ok"]


@given(payloads, payloads)
def test_a_lost_delimiter_joins_two_frames_into_none(first, second):
    wire = encode_frame(first)[:-1] + encode_frame(second)
    joined = cobs_decode(wire[:-1])
    assume(joined is None or crc16(joined[:-2]) != int.from_bytes(joined[-2:], "little"))
    assert Deframer().feed(wire) == []


@pytest.mark.parametrize("size", [0, MAX_PAYLOAD + 1])
def test_a_payload_of_the_wrong_size_is_the_callers_mistake(size):
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        encode_frame(bytes(size))
