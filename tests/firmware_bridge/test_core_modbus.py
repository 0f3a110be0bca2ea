"""The Modbus server of the firmware at its edges: the compiled core behind bytes, one register, one microsecond off.

What it does as a whole, and with the box on top, is in test_plc_firmware.py.
"""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.modbus.registers import (
    BOX,
    MAP_ID,
    MAP_VERSION,
    PLC,
    RING,
    SETUP,
    BoxBlock,
    BoxStatus,
    OutcomeCode,
    PlcBlock,
    PlcControl,
    ResultAnswer,
    SetupBlock,
    VerdictCode,
)
from firmware_bridge.modbus.rtu import Request, decode_registers, exception_reply, read_reply, with_crc, write_reply
from firmware_bridge.reject.controller import EVENT_SLOTS, MODBUS_UNIT, PART_SLOTS, Controller, Transport
from firmware_bridge.reject.messages import EventKind, Flags

BOOT = 0x4D21
SILENCE_US = 1750  # above 19200 baud
SETUP_VALUES = SetupBlock(900, 1000, 40, 0, 500, 1000, VerdictCode.REJECT, 4, 0)
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6


class Server:
    """A controller that speaks Modbus, and a box's hand on it. A count of the encoder is half a millisecond."""

    def __init__(self, setup=SETUP_VALUES, *, us=0, encoder=0, **kwargs):
        self.us, self.encoder = us, encoder
        self.log = []
        self.box = BoxBlock()
        self.ctl = Controller(BOOT, us, encoder=encoder, observer=self.log.append, transport=Transport.MODBUS, **kwargs)
        if setup is not None:
            self.put(SETUP.base, setup.pack())

    def hear(self, data):
        self.ctl.on_bytes(data, self.us % 2**32)

    def wait(self, us):
        """Time passes, then the main loop comes round: once to obey, once to send. What was sent."""
        self.us += us
        for _ in range(2):
            self.ctl.on_time(self.us % 2**32)
        return b"".join(self.ctl.take_frames())

    def ask(self, frame):
        self.hear(frame)
        return self.wait(SILENCE_US)

    def do(self, request):
        return self.ask(request.encode())

    def get(self, address, count, function=3):
        request = Request(MODBUS_UNIT, function, address, count)
        reply = self.do(request)
        words = decode_registers(reply)
        assert reply == read_reply(request, words) and len(words) == count
        return list(words)

    def put(self, address, values):
        request = Request(MODBUS_UNIT, 16, address, len(values), tuple(values))
        assert self.do(request) == write_reply(request)

    def refusal(self, address, values):
        """The exception that writing has, 0 for none."""
        return refused(self.do(Request(MODBUS_UNIT, 16, address, len(values), tuple(values))), 16)

    def tell(self, **values):
        """The box block, changed like this, with the next heartbeat."""
        words = {name: getattr(self.box, name) for name in BoxBlock.__slots__}
        self.box = BoxBlock(**{**words, "heartbeat": (self.box.heartbeat + 1) % 2**16, **values})
        self.put(BOX.base, self.box.pack())

    def arm(self):
        self.tell(status=0)
        self.tell(status=BoxStatus.ARMED)
        assert self.ctl.is_armed
        return self

    def judge(self, part_id, verdict):
        self.tell(result_seq=self.box.result_seq + 1, part_id=part_id, verdict=verdict)
        return self.plc.result_answer

    def eye(self):
        part_id = self.ctl.next_part
        self.ctl.on_eye(self.encoder % 2**32, self.us % 2**32)
        return part_id

    def go(self, counts):
        """The belt moves, in no time."""
        for _ in range(counts):
            self.encoder += 1
            self.ctl.on_encoder(self.encoder % 2**32, self.us % 2**32)

    @property
    def plc(self):
        return PlcBlock.unpack(self.get(PLC.base, PLC.size))

    @property
    def bad_crc(self):
        return self._tallies()[0]

    @property
    def torn(self):
        return self._tallies()[1]

    def _tallies(self):
        told = (ctypes.c_uint32 * 4)()
        self.ctl._core.host_hidden(ctypes.c_void_p(self.ctl._host), told)
        return list(told)[:2]


def refused(reply, function):
    if reply[1:2] != bytes((function | 0x80,)):
        return 0
    assert reply == exception_reply(MODBUS_UNIT, function, reply[2])
    return reply[2]


READ = Request(MODBUS_UNIT, 3, BOX.base, 2)


# When a frame ends


def test_a_frame_ends_after_just_so_much_silence():
    server = Server()
    server.hear(READ.encode())
    assert server.wait(SILENCE_US - 1) == b""
    assert server.wait(1) == read_reply(READ, [0, 0])
    assert server.wait(10 * SILENCE_US) == b"" and server.bad_crc == 0


@pytest.mark.parametrize(("gap_us", "is_one"), [(SILENCE_US - 1, True), (SILENCE_US, False)])
def test_bytes_apart_by_less_than_the_silence_are_one_frame(gap_us, is_one):
    server, frame = Server(), READ.encode()
    for piece in (frame[:1], frame[1:5], frame[5:]):
        server.hear(piece)
        server.us += gap_us
    server.us -= gap_us
    assert server.wait(SILENCE_US) == (read_reply(READ, [0, 0]) if is_one else b"")
    assert server.bad_crc == (0 if is_one else 3)


def test_the_first_byte_after_a_long_silence_begins_a_frame_and_ends_none():
    server = Server()
    server.wait(60_000_000)
    assert server.do(READ) and server.bad_crc == 0


def test_the_clock_wraps_in_mid_frame_without_notice():
    server, frame = Server(us=2**32 - 100_000), READ.encode()
    server.us = 2**32 - 500
    server.hear(frame[:4])
    server.us += 1000
    server.hear(frame[4:])
    assert server.wait(SILENCE_US) == read_reply(READ, [0, 0])


@pytest.mark.parametrize("start_us", [0, 12_345, 2**31 - 1000, 2**32 - 1000])
def test_a_server_answers_whenever_it_was_started(start_us):
    assert Server(us=start_us).do(READ) == read_reply(READ, [0, 0])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_too_short_for_a_frame_is_dropped_and_counted(size):
    server = Server()
    server.hear(bytes((MODBUS_UNIT, 3, 0))[:size])
    assert server.wait(SILENCE_US) == b"" and server.bad_crc == 1
    assert server.do(READ) == read_reply(READ, [0, 0])


def test_the_shortest_frame_is_heard_and_refused():
    server = Server()
    assert refused(server.ask(with_crc(bytes((MODBUS_UNIT, 7)))), 7) == ILLEGAL_FUNCTION
    assert server.bad_crc == 0


def test_two_bytes_that_check_out_by_chance_are_no_frame():
    server = Server()
    assert server.ask(with_crc(b"")) == b"" and server.ask(with_crc(b"\x01")) == b"" and server.bad_crc == 2


@pytest.mark.parametrize("bit", range(64))
def test_no_flipped_bit_is_answered(bit):
    server, frame = Server(), bytearray(READ.encode())
    frame[bit // 8] ^= 1 << bit % 8
    assert server.ask(bytes(frame)) == b"" and server.bad_crc == 1


def test_every_damaged_frame_is_counted_until_the_count_is_full():
    server = Server()
    for _ in range(3):
        server.ask(b"\x01\x03\x00\x00\x00")
    assert server.bad_crc == 3


# What is sent


def test_a_reply_goes_out_in_pieces_as_the_port_has_room():
    server = Server()
    server.tell(reason=7)
    whole = Request(MODBUS_UNIT, 3, PLC.base, PLC.size)
    frame = whole.encode()
    piled = 0
    call = server.ctl._core
    while piled < 4096:  # the caller's buffer, which nobody empties
        call.host_on_bytes(server.ctl._host, frame, len(frame), server.us)
        server.us += SILENCE_US
        for _ in range(2):
            call.host_on_time(server.ctl._host, server.us)
        piled += 5 + 2 * PLC.size
    call.host_on_bytes(server.ctl._host, frame, len(frame), server.us)  # heard while it replies: an echo
    sent, one = server.wait(100), 5 + 2 * PLC.size
    assert len(sent) > 4096 and len(sent) % one == 0
    replies = [sent[at : at + one] for at in range(0, len(sent), one)]
    assert all(reply[:3] == bytes((MODBUS_UNIT, 3, 2 * PLC.size)) and with_crc(reply[:-2]) == reply
               for reply in replies)  # fmt: skip
    assert server.wait(10 * SILENCE_US) == b"" and server.do(READ) == read_reply(READ, [MAP_ID, MAP_VERSION])


def test_writes_are_answered_with_what_was_asked():
    server = Server()
    many = Request(MODBUS_UNIT, 16, BOX.address("reason"), 2, (0x1234, 0x5678))
    assert server.do(many) == write_reply(many)
    one = Request(MODBUS_UNIT, 6, BOX.address("host_echo"), 1, (0xABCD,))
    assert server.do(one) == one.encode()
    assert server.get(BOX.address("reason"), 4) == [0x1234, 0x5678, 0, 0xABCD]


def test_a_whole_block_is_the_longest_read_and_the_longest_write_has_its_exception():
    server = Server()
    assert len(server.get(PLC.base, PLC.size)) == PLC.size
    assert len(server.get(PLC.base, PLC.size, function=4)) == PLC.size
    fits = Request(MODBUS_UNIT, 16, PLC.base, 54, (0,) * 54)  # 117 bytes, as long as the buffer
    assert refused(server.do(fits), 16) == ILLEGAL_ADDRESS
    for count in (55, 56, 57, 122, 123):
        assert refused(server.do(Request(MODBUS_UNIT, 16, BOX.base, count, (0,) * count)), 16) == ILLEGAL_ADDRESS
    assert server.get(BOX.base, BOX.size) == [0] * BOX.size


@pytest.mark.parametrize("count", [PLC.size + 1, 100, 124, 125])
def test_a_read_longer_than_any_block_is_an_illegal_address(count):
    assert refused(Server().do(Request(MODBUS_UNIT, 3, PLC.base, count)), 3) == ILLEGAL_ADDRESS


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("01 03 0000 0000", ILLEGAL_VALUE),
        ("01 03 0000 0001 00", ILLEGAL_VALUE),
        ("01 03 0000 00", ILLEGAL_VALUE),
        ("01 03 0000 007e", ILLEGAL_VALUE),
        ("01 03 0000 0100", ILLEGAL_VALUE),
        ("01 06 0008", ILLEGAL_VALUE),
        ("01 06 0008 0001 00", ILLEGAL_VALUE),
        ("01 10 0000 0000 00", ILLEGAL_VALUE),
        ("01 10 0008 0001 00 0000", ILLEGAL_VALUE),
        ("01 10 0008 0001 02 00", ILLEGAL_VALUE),
        ("01 10 0008 0001 02 000000", ILLEGAL_VALUE),
        ("01 10 0008 0001 02", ILLEGAL_VALUE),
        ("01 10 0008 0001", ILLEGAL_VALUE),
        ("01 10 0008 0101 02 0000", ILLEGAL_VALUE),
        ("01 10 0000 007c f8" + "0000" * 124, ILLEGAL_VALUE),
        ("01 10 0000 0080 00" + "0000" * 110, ILLEGAL_VALUE),
        ("01 11", ILLEGAL_FUNCTION),
        ("01 05 0000 ff00", ILLEGAL_FUNCTION),
        ("01 00 0000 0000", ILLEGAL_FUNCTION),
        ("01 7f 0000 0000", ILLEGAL_FUNCTION),
    ],
)
def test_a_request_that_is_wrong_has_its_exception(body, code):
    server = Server()
    frame = with_crc(bytes.fromhex(body))
    assert refused(server.ask(frame), frame[1]) == code
    assert server.get(BOX.base, BOX.size) == [0] * BOX.size and server.bad_crc == 0


@pytest.mark.parametrize("unit", [0, 2, 3, 247, 255])
def test_reads_for_another_unit_and_for_all_are_not_answered(unit):
    server = Server()
    for function in (3, 4):
        assert server.do(Request(unit, function, 0, 1)) == b""
    assert server.ask(with_crc(bytes((unit, 99)))) == b""
    assert server.do(READ) == read_reply(READ, [0, 0]) and server.bad_crc == 0


@pytest.mark.parametrize("function", [6, 16])
def test_a_write_to_all_is_done_and_one_for_another_unit_is_not(function):
    server = Server()
    for unit, value in ((2, 5), (0, 6)):
        assert server.do(Request(unit, function, BOX.address("reason"), 1, (value,))) == b""
        assert server.get(BOX.address("reason"), 1) == [0 if unit else value]


def test_what_another_server_said_is_not_obeyed():
    server = Server()
    for function in (0x83, 0x86, 0x90, 0x80):
        assert server.ask(with_crc(bytes((MODBUS_UNIT, function, 2)))) == b""
    assert server.do(READ) == read_reply(READ, [0, 0])


# Registers


BLOCKS = [BOX, PLC, SETUP]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_ends_where_it_ends(block):
    server = Server()
    assert len(server.get(block.base, block.size)) == block.size
    assert len(server.get(block.base + block.size - 1, 1)) == 1
    for address, count in ((block.base, block.size + 1), (block.base + 1, block.size), (block.base + block.size, 1)):
        assert refused(server.do(Request(MODBUS_UNIT, 3, address, count)), 3) == ILLEGAL_ADDRESS
    for address in (block.base + block.size, block.base + block.size - 1):
        assert server.refusal(address, [0, 0]) == ILLEGAL_ADDRESS
    if block.base:
        assert refused(server.do(Request(MODBUS_UNIT, 3, block.base - 1, 1)), 3) == ILLEGAL_ADDRESS


@pytest.mark.parametrize("address", [BOX.base + 256, PLC.base + 256 - 44, SETUP.base + 256, 0x8000, 0xFFFF])
def test_addresses_far_behind_a_block_are_not_folded_into_it(address):
    server = Server()
    assert refused(server.do(Request(MODBUS_UNIT, 3, address, 1)), 3) == ILLEGAL_ADDRESS
    assert server.refusal(address, [1]) == ILLEGAL_ADDRESS


def test_what_the_controller_says_cannot_be_written():
    assert Server().refusal(PLC.base, [1]) == ILLEGAL_ADDRESS


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BLOCKS), st.data())
def test_any_part_of_a_block_reads_as_in_the_whole(block, data):
    server = Server(us=5_000_000).arm()
    server.eye()
    server.go(77)
    first = data.draw(st.integers(0, block.size - 1))
    count = data.draw(st.integers(1, block.size - first))
    whole = server.get(block.base, block.size)
    assert server.get(block.base + first, count) == whole[first : first + count]


def test_without_a_setup_all_its_values_read_as_0():
    server = Server(None)
    assert server.get(SETUP.base, SETUP.size) == [MAP_ID, MAP_VERSION, *[0] * (SETUP.size - 3), MAP_ID]


@pytest.mark.parametrize("verdict", [VerdictCode.ACCEPT, VerdictCode.REJECT])
def test_a_setup_reads_back_as_it_was_written(verdict):
    words = SetupBlock(0x0102, 0x0304, 0x0506, 0x0708, 0x090A, 0x0B0C, verdict, 0x0D0E, 0x30).pack()
    server = Server(None)
    server.put(SETUP.base, words)
    assert server.get(SETUP.base, SETUP.size) == words
    assert server.ctl.config.fire_counts == 0x0304


def test_a_setup_of_another_table_or_of_unknown_inputs_is_refused():
    server = Server()
    for name, value in (("map_id", 0), ("map_id_end", 0), ("map_version", 0), ("inputs_mask", 0x100),
                        ("inputs_mask", 0x110), ("inputs_mask", 0x40), ("default_verdict", 0), ("default_verdict", 3),
                        ("watchdog_ms", 0)):  # fmt: skip
        assert server.refusal(SETUP.address(name), [value]) == ILLEGAL_VALUE, name
    assert server.get(SETUP.base, SETUP.size) == SETUP_VALUES.pack()


def test_a_setup_while_armed_is_busy_and_the_same_one_is_no_change():
    server = Server().arm()
    assert server.refusal(SETUP.address("pulse_counts"), [41]) == BUSY
    assert server.refusal(SETUP.address("pulse_counts"), [40]) == 0
    assert server.ctl.config.pulse_counts == 40


# What the controller says of itself


def test_the_plc_block_holds_counts_and_ids_of_32_bits():
    server = Server(us=1000, encoder=0x89ABCDEF, next_part=0x12345678)
    server.eye()
    server.go(0x10)
    block = server.plc
    assert (block.boot_id, block.part_id, block.trigger_seq) == (BOOT, 0x12345678, 0x5678)
    assert (block.encoder, block.encoder_now) == (0x89ABCDEF, 0x89ABCDFF)
    assert block.triggers[0x5678 % RING] == (0x5678, 0xCDEF) and block.map_version == MAP_VERSION
    assert [entry for entry in block.triggers if entry != (0, 0)] == [(0x5678, 0xCDEF)]
    assert set(block.outcomes) == {(0, 0, 0)}


@pytest.mark.parametrize("start_us", [7000, 2**32 - 150_000])
def test_the_heartbeat_counts_tenths_of_a_second(start_us):
    server = Server(None, us=start_us)

    def beats_at(us):
        server.us = start_us + us
        server.ctl.on_time(server.us % 2**32)
        return server.ctl, server.plc.heartbeat

    assert [beats_at(us)[1] for us in (90_000, 97_000)] == [0, 0]
    server.us = start_us + 100_000 - SILENCE_US - 1
    assert server.plc.heartbeat == 0  # one microsecond to go
    server.us = start_us + 100_000 - SILENCE_US + 1
    assert server.plc.heartbeat == 1
    assert beats_at(198_000)[1] == 1 and beats_at(201_000)[1] == 2
    assert beats_at(450_000)[1] == 3  # a late one is not made up for
    assert beats_at(545_000)[1] == 3 and beats_at(550_000)[1] == 4


def test_a_beat_comes_on_the_microsecond():
    server = Server(None)
    for us, beats in ((99_999, 0), (100_000, 1), (199_999, 1), (200_000, 2)):
        server.ctl.on_bytes(Request(MODBUS_UNIT, 3, PLC.address("heartbeat"), 1).encode(), us - SILENCE_US)
        for _ in range(2):
            server.ctl.on_time(us)
        assert decode_registers(b"".join(server.ctl.take_frames())) == (beats,)


def test_the_control_word_follows_the_controller():
    server = Server()
    assert server.plc.control == PlcControl.TRIPPED  # a new start, until the box has seen it
    server.tell(status=0)
    assert server.plc.control == 0
    server.tell(status=BoxStatus.ARMED)
    assert server.plc.control == PlcControl.ENABLE | PlcControl.HEALTHY
    server.eye()
    server.go(1000)
    assert server.plc.control == PlcControl.ENABLE | PlcControl.HEALTHY | PlcControl.GATE
    server.go(40)
    server.tell(status=0)
    assert server.plc.control == 0
    server.tell(status=BoxStatus.ARMED)
    server.wait(501_000)
    assert server.plc.control == PlcControl.TRIPPED


def test_a_trip_is_told_until_armed_is_taken_back_even_when_it_was_short():
    server = Server().arm()
    server.us += 501_000
    server.ctl.on_time(server.us)
    server.tell()  # ARMED still stands in the block
    assert server.plc.control == PlcControl.TRIPPED and not server.ctl.is_armed
    server.tell()
    assert not server.ctl.is_armed
    server.arm()


def test_a_trip_in_the_same_instant_as_the_next_block_is_noticed():
    server = Server().arm()
    server.tell()
    for _ in range(PART_SLOTS + 1):
        server.go(4)
        server.ctl._core.host_on_eye(server.ctl._host, server.encoder, server.us)
    server.tell(status=BoxStatus.ARMED)
    assert server.plc.control & PlcControl.TRIPPED and not server.ctl.is_armed


def test_the_rings_hold_the_newest_eight_and_the_oldest_of_them_last():
    server = Server(us=0).arm()
    eyes = []
    for at in range(20):
        server.us += 1000
        eyes.append(server.encoder)
        server.eye()
        server.judge(at + 1, VerdictCode.REJECT if at % 3 else VerdictCode.ACCEPT)
        server.go(130)
    block = server.plc
    assert (block.trigger_seq, block.encoder) == (20, eyes[-1])
    assert {block.triggers[seq % RING] for seq in range(13, 21)} == {(seq, eyes[seq - 1]) for seq in range(13, 21)}
    assert all(block.triggers[seq % RING][0] == seq for seq in range(13, 21))
    done = sum(eye + 1000 <= server.encoder for eye in eyes)
    assert block.outcome_seq == done > RING
    for seq in range(done - RING + 1, done + 1):
        kind = OutcomeCode.FIRED if (seq - 1) % 3 else OutcomeCode.PASSED
        assert block.outcomes[seq % RING] == (seq, kind, eyes[seq - 1] + 1000)


def test_the_rings_are_right_when_the_log_was_overwritten_and_the_sequences_wrap():
    server = Server(encoder=2**32 - 3000, next_part=0x2_FFD8, next_event=0xFFC0).arm()
    eyes = {}
    for _ in range(EVENT_SLOTS):
        eyes[server.eye()] = server.encoder % 2**32
        server.tell()
        server.go(200)
    block = server.plc
    newest = list(eyes)[-1]
    assert block.part_id == newest and block.encoder == eyes[newest] and newest > 0x3_0000
    parts = list(eyes)[-RING:]
    expected = {part & 0xFFFF: eyes[part] & 0xFFFF for part in parts}
    assert dict(block.triggers) == expected
    ended = [part for part in eyes if (server.encoder - eyes[part]) % 2**32 >= 1000][-RING:]
    assert {entry[0] for entry in block.outcomes} == {part & 0xFFFF for part in ended}
    assert all(entry[1] == OutcomeCode.DEFAULTED for entry in block.outcomes)


def test_an_overflow_is_a_trigger_and_an_outcome():
    server = Server().arm()
    for _ in range(PART_SLOTS):
        server.eye()
        server.go(4)
    lost = server.eye()
    block = server.plc
    assert (block.trigger_seq, block.part_id, block.outcome_seq) == (lost, lost, 1)
    assert block.triggers[lost % RING] == (lost, server.encoder) and block.encoder == server.encoder
    assert block.outcomes[1] == (lost, OutcomeCode.OVERFLOW, server.encoder)


def test_inputs_are_in_control_word_and_ring():
    server = Server(SetupBlock(900, 1000, 40, 0, 10_000, 1000, VerdictCode.REJECT, 4, 0x30))

    def levels(**good):
        for _ in range(12):
            server.us += 1000
            server.ctl.on_inputs(server.us, **good)

    levels(bin_ok=True, air_ok=True)
    server.arm()
    levels(bin_ok=False, air_ok=True)
    block = server.plc
    assert block.control == PlcControl.TRIPPED | PlcControl.BIN_FULL
    last = block.outcomes[block.outcome_seq % RING]
    assert last[1] == OutcomeCode.INPUT and last[0] & Flags.BIN_FULL
    server.tell(status=0)
    server.tell(status=BoxStatus.ARMED)
    assert not server.ctl.is_armed
    levels(bin_ok=True, air_ok=True)
    assert not server.ctl.is_armed
    server.tell()
    assert server.ctl.is_armed


# What the box says


def test_the_box_block_reads_back_as_it_was_written():
    server = Server()
    words = [MAP_ID, MAP_VERSION, *range(0x1100, 0x1109), 0x0203, MAP_ID]
    server.put(BOX.base, words)
    assert server.get(BOX.base, BOX.size) == words and server.torn == 0


def test_the_first_sequence_after_a_start_is_done_with_and_the_next_is_obeyed():
    server = Server().arm()
    server.eye()
    assert server.plc.result_ack == 0
    server.tell(result_seq=0, part_id=1, verdict=VerdictCode.ACCEPT)
    assert server.judge(1, VerdictCode.ACCEPT) == ResultAnswer.STORED


@pytest.mark.parametrize("first", [0, 7, 0xFFFF])
def test_a_result_that_stood_there_before_is_acknowledged_and_not_obeyed(first):
    server = Server()
    server.eye()
    server.tell(status=0, result_seq=first, part_id=1, verdict=VerdictCode.ACCEPT)
    server.arm()
    assert (server.plc.result_ack, server.plc.result_answer) == (first, ResultAnswer.NOT_TOLD)
    server.go(1000)
    assert [event.event for event in server.log] == [EventKind.TRIGGER, EventKind.DEFAULTED]


def test_parts_are_named_by_32_bits():
    server = Server(next_part=0x0001_0002).arm()
    server.eye()
    server.tell(result_seq=1)
    assert server.judge(0x0002, VerdictCode.ACCEPT) == ResultAnswer.LATE
    assert server.judge(0x0002_0001, VerdictCode.ACCEPT) == ResultAnswer.UNKNOWN
    assert server.judge(0x0001_0002, VerdictCode.ACCEPT) == ResultAnswer.STORED


def test_every_answer_is_handed_on():
    server = Server().arm()
    first = server.eye()
    server.go(10)
    second = server.eye()
    said = [server.judge(*what) for what in (
        (first, VerdictCode.ACCEPT), (first, VerdictCode.ACCEPT), (first, VerdictCode.REJECT),
        (second, VerdictCode.UNSURE), (second, VerdictCode.NONE), (second, 77), (second, VerdictCode.REJECT),
        (99, VerdictCode.REJECT))]  # fmt: skip
    told = ResultAnswer
    assert said == [told.STORED, told.DUP, told.CONFLICT, *[told.NOT_TOLD] * 3, told.STORED, told.UNKNOWN]
    assert server.plc.result_ack == server.box.result_seq
    server.go(1100)
    assert server.judge(second, VerdictCode.ACCEPT) == ResultAnswer.CONFLICT


def test_a_result_while_not_armed_waits_in_the_block():
    server = Server()
    server.tell(result_seq=1, status=0)
    part = server.eye()
    server.tell(result_seq=2, part_id=part, verdict=VerdictCode.ACCEPT)
    assert server.plc.result_ack == 1
    server.tell(status=BoxStatus.ARMED)
    assert (server.plc.result_ack, server.plc.result_answer) == (2, ResultAnswer.STORED)


def test_the_same_sequence_again_is_no_news():
    server = Server().arm()
    first, _ = server.eye(), server.go(10)
    second = server.eye()
    server.judge(first, VerdictCode.ACCEPT)
    server.tell(part_id=second, verdict=VerdictCode.ACCEPT)
    server.go(1100)
    ends = {event.part_id: event.event for event in server.log if event.event is not EventKind.TRIGGER}
    assert ends == {first: EventKind.PASSED, second: EventKind.DEFAULTED}


@pytest.mark.parametrize("name", ["map_id", "map_version", "map_id_end"])
def test_a_torn_block_is_counted_and_does_nothing(name):
    server = Server().arm()
    words = BoxBlock(heartbeat=99, status=0).pack()
    words[BOX.offsets[name]] ^= 0x100
    server.put(BOX.base, words)
    assert server.ctl.is_armed and server.torn == 1
    server.put(BOX.base, words)
    assert server.torn == 2


def test_only_a_new_heartbeat_keeps_it_alive():
    server = Server().arm()
    for _ in range(4):
        server.wait(200_000)
        server.tell()
    assert server.ctl.is_armed
    for _ in range(2):
        server.wait(200_000)
        server.put(BOX.base, server.box.pack())
    server.wait(102_000)
    assert not server.ctl.is_armed


def test_a_heartbeat_that_wraps_is_a_new_one():
    server = Server().arm()
    server.tell(heartbeat=0xFFFF)
    server.wait(400_000)
    server.tell(heartbeat=0)
    server.wait(400_000)
    assert server.ctl.is_armed


def test_the_feed_is_held_by_a_bit_of_a_living_box():
    server = Server().arm()
    server.tell(status=BoxStatus.ARMED | BoxStatus.HOLD)
    assert server.ctl.is_holding and server.ctl.is_armed
    server.tell(status=BoxStatus.ARMED, heartbeat=server.box.heartbeat)
    assert server.ctl.is_holding  # the same heartbeat: an old block
    server.tell(status=BoxStatus.ARMED)
    assert not server.ctl.is_holding


def test_taking_armed_back_disarms_at_once_and_makes_the_default_of_open_parts():
    server = Server().arm()
    part = server.eye()
    server.judge(part, VerdictCode.ACCEPT)
    server.tell(status=0)
    assert not server.ctl.is_armed and not server.ctl.is_healthy
    server.tell(status=BoxStatus.ARMED)
    assert server.ctl.is_armed
    server.go(1000)
    assert server.log[-1].event is EventKind.DEFAULTED


def test_the_box_that_never_armed_disarms_nobody():
    server = Server()
    server.tell(status=0)
    part = server.eye()
    server.tell(status=0)
    server.tell(status=0)
    server.tell(status=BoxStatus.ARMED)
    assert server.ctl.is_armed
    server.tell(result_seq=1)
    assert server.judge(part, VerdictCode.ACCEPT) == ResultAnswer.STORED  # it was seen just before


def test_a_lost_encoder_is_looked_after_when_armed_is_taken_back():
    server = Server().arm()
    server.eye()
    server.us += 30_000
    server.eye()
    assert server.plc.control == PlcControl.TRIPPED | PlcControl.ENCODER_LOST
    server.tell(status=0)
    assert server.plc.control == 0
    server.arm()


def test_armed_before_a_setup_waits_for_one():
    server = Server(None)
    server.tell(status=0)
    server.tell(status=BoxStatus.ARMED)
    assert server.plc.control == 0
    server.put(SETUP.base, SETUP_VALUES.pack())
    assert not server.ctl.is_armed
    server.tell()
    assert server.plc.control == PlcControl.ENABLE | PlcControl.HEALTHY


def test_a_verdict_over_modbus_fires_at_the_exact_count():
    server = Server(encoder=2**32 - 500).arm()
    part = server.eye()
    server.tell(result_seq=1)
    server.judge(part, VerdictCode.REJECT)
    server.go(1100)
    on, off = server.ctl.edges
    assert (on.is_on, on.encoder, off.is_on, off.encoder) == (True, 500, False, 540)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=150), st.booleans(), st.integers(0, 4000)), max_size=8))
def test_no_bytes_break_the_server(pieces):
    server = Server(us=2**32 - 10_000)
    for data, is_whole, pause_us in pieces:
        server.hear(with_crc(bytes((MODBUS_UNIT,)) + data) if is_whole else data)
        server.wait(pause_us)
    server.wait(SILENCE_US)
    assert server.do(READ)[:3] == bytes((MODBUS_UNIT, 3, 4))
