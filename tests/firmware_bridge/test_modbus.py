"""Modbus RTU by itself: codec, client and server as state machines, on clean and on bad wires, without any port."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from firmware_bridge.modbus.client import BABBLE_NS, PIECE_NS, PIECES_NS, Answered, Failed, Failure, RtuClient
from firmware_bridge.modbus.rtu import (
    EXCEPTION_BIT,
    MS,
    ExceptionCode,
    Line,
    Request,
    crc16,
    exception_reply,
    parse_request,
    read_reply,
    read_request,
    reply_size,
    request_size,
    with_crc,
    write_reply,
    write_request,
)
from firmware_bridge.modbus.server import Refused, RtuServer

UNIT = 7
SIZE = 40  # registers of the double, from 0
LINE = Line()
WORDS = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20)


class Memory:
    """Registers that a server serves."""

    def __init__(self, size=SIZE):
        self.words = list(range(size))
        self.writes = []

    def read(self, address, count):
        if address + count > len(self.words):
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        return self.words[address : address + count]

    def write(self, address, values):
        if address + len(values) > len(self.words):
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        self.writes.append((address, tuple(values)))
        self.words[address : address + len(values)] = values


def serve(request_bytes, now_ns=0, server=None, memory=None):
    server = server or RtuServer(UNIT, LINE, memory or Memory())
    server.feed(request_bytes, now_ns)
    return server.take_output()


# Codec


def test_the_crc_has_the_check_value_of_its_catalogue():
    assert crc16(b"123456789") == 0x4B37
    assert crc16(with_crc(b"\x01\x03\x00\x00\x00\x0a")) == 0
    assert with_crc(b"\x01\x03\x00\x00\x00\x0a").hex() == "01030000000ac5cd"


@pytest.mark.parametrize(
    ("line", "char_us", "silence_us"),
    [
        (Line(9600), 1041.666, 3645.8),
        (Line(9600, "even"), 1145.833, 4010.4),
        (Line(19_200, "none", 2), 572.916, 2005.2),
        (Line(38_400), 260.416, 1750.0),
        (Line(115_200, "odd"), 95.486, 1750.0),
    ],
)
def test_silence_is_three_and_a_half_characters_but_fixed_on_fast_lines(line, char_us, silence_us):
    assert line.char_ns / 1e3 == pytest.approx(char_us, abs=0.01)
    assert line.silence_ns / 1e3 == pytest.approx(silence_us, abs=0.1)


@pytest.mark.parametrize("bad", [{"parity": "mark"}, {"stop_bits": 3}, {"baud": 0}])
def test_a_line_that_cannot_be_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Line(**bad)


@settings(deadline=None)
@given(st.integers(0, 255), st.integers(0, 0xFFFF), WORDS)
def test_requests_come_back_as_they_went(unit, address, words):
    for request in (read_request(unit, address, len(words)), write_request(unit, address, words)):
        frame = request.encode()
        assert request_size(frame) == len(frame)
        assert parse_request(frame) == request


@settings(deadline=None)
@given(st.binary(max_size=260))
def test_no_bytes_break_the_codec(data):
    for size in (request_size(data), reply_size(data)):
        assert size is None or 0 <= size <= 13 + 255
    if len(data) >= 4:
        parsed = parse_request(with_crc(data))
        assert isinstance(parsed, Request | ExceptionCode)


@pytest.mark.parametrize("request_", [Request(1, 3, 0, 0), Request(1, 3, 0, 126), Request(1, 16, 0, 2, (1,)),
                                      Request(1, 16, 0, 0)])  # fmt: skip
def test_a_request_that_fits_no_frame_is_a_mistake_of_the_caller(request_):
    with pytest.raises(ValueError, match="registers are"):
        request_.encode()


# Server


def test_both_reads_are_answered_alike():
    holding, inputs = (serve(Request(UNIT, function, 3, 2).encode()) for function in (3, 4))
    assert holding == with_crc(bytes((UNIT, 3, 4)) + struct.pack(">2H", 3, 4))
    assert inputs[2:-2] == holding[2:-2] and inputs[1] == 4


def test_both_writes_are_obeyed():
    memory = Memory()
    server = RtuServer(UNIT, LINE, memory)
    one = Request(UNIT, 6, 5, 1, (99,)).encode()
    assert serve(one, 0, server) == one
    assert serve(write_request(UNIT, 6, [1, 2]).encode(), 0, server).hex() == with_crc(
        struct.pack(">BBHH", UNIT, 16, 6, 2)).hex()  # fmt: skip
    assert memory.words[5:8] == [99, 1, 2]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (struct.pack(">BBHH", UNIT, 1, 0, 1), 1),
        (struct.pack(">BBHH", UNIT, 5, 0, 0xFF00), 1),
        (bytes((UNIT, 43, 14, 1, 0)), 1),
        (bytes((UNIT, 17)), 1),
        (struct.pack(">BBHH", UNIT, 3, SIZE, 1), 2),
        (struct.pack(">BBHH", UNIT, 6, 0xFFFF, 1), 2),
        (struct.pack(">BBHHB2H", UNIT, 16, SIZE - 1, 2, 4, 1, 2), 2),
        (struct.pack(">BBHH", UNIT, 3, 0, 0), 3),
        (struct.pack(">BBHH", UNIT, 4, 0, 126), 3),
        (struct.pack(">BBHHB2H", UNIT, 16, 0, 1, 4, 1, 2), 3),
    ],
)
def test_what_cannot_be_done_gets_its_exception(body, code):
    assert serve(with_crc(body)) == exception_reply(UNIT, body[1], code)


def test_a_broadcast_is_obeyed_and_not_answered():
    memory = Memory()
    assert serve(write_request(0, 2, [77]).encode(), memory=memory) == b""
    assert serve(read_request(0, 2, 1).encode(), memory=memory) == b""
    assert serve(Request(0, 6, 3, 1, (78,)).encode(), memory=memory) == b""
    assert memory.words[2:4] == [77, 78]


def test_other_units_and_their_replies_are_skipped():
    memory = Memory()
    server = RtuServer(UNIT, LINE, memory)
    for frame in (
        read_request(9, 0, 3).encode(), read_reply(read_request(9, 0, 3), [1, 2, 3]),
        write_request(9, 0, [5]).encode(), exception_reply(9, 16, 2), with_crc(bytes((9, 43, 14, 1, 0))),
    ):  # fmt: skip
        assert serve(frame, 0, server) == b""
    assert memory.writes == [] and server.counts["other_units"] == 5 and server.foreign == {9: 5}
    assert serve(read_request(UNIT, 0, 1).encode(), 0, server)


def test_a_request_is_found_behind_the_noise_of_a_driver_that_switches_on():
    for noise in (b"\x00", b"\xff", b"\x00\x00", b"\xff\xff\xff", b"\x80\x55"):
        assert serve(noise + read_request(UNIT, 0, 1).encode()), noise


def test_half_a_request_is_forgotten_and_never_answered_late():
    memory = Memory()
    server = RtuServer(UNIT, LINE, memory)
    frame = write_request(UNIT, 0, [5]).encode()
    assert serve(frame[:-1], 0, server) == b""
    assert serve(frame[-1:], 100 * MS, server) == b""
    assert serve(frame, 200 * MS, server) != b""
    assert len(memory.writes) == 1


def test_one_byte_at_a_time_is_a_request_too():
    server = RtuServer(UNIT, LINE, Memory())
    replies = [serve(bytes((byte,)), at * MS, server) for at, byte in enumerate(read_request(UNIT, 1, 2).encode())]
    assert replies[-1] and not any(replies[:-1])


def test_our_own_reply_heard_back_is_dropped():
    server = RtuServer(UNIT, LINE, Memory(), echo=True)
    for now_ms in range(0, 50, 10):
        request = Request(UNIT, 6, 5, 1, (99,)).encode()
        reply = serve(request, now_ms * MS, server)
        assert reply == request
        assert serve(reply, (now_ms + 1) * MS, server) == b""
    assert server.counts["requests"] == 5 and server.wire_counts["echo_bytes"] == 5 * 8


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_break_the_server_and_none_with_a_bad_crc_change_anything(chunks):
    memory = Memory()
    server = RtuServer(UNIT, LINE, memory)
    for at, chunk in enumerate(chunks):
        server.feed(chunk, at * MS)
    stream = b"".join(chunks)
    for address, values in memory.writes:  # then such a frame was really sent, by chance
        frames = [Request(unit, 16, address, len(values), values).encode() for unit in (0, UNIT)]
        frames += [Request(unit, 6, address, 1, values[:1]).encode() for unit in (0, UNIT)]
        assert any(frame in stream for frame in frames)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=30), st.integers(0, 7), st.data())
def test_a_damaged_request_is_not_obeyed(values, bit, data):
    memory = Memory(600)
    frame = bytearray(write_request(UNIT, 0, list(values)).encode())
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << bit  # CRC-16 finds every single bit
    assert serve(bytes(frame), memory=memory) == b"" and memory.writes == []


class ServerModel(RuleBasedStateMachine):
    """Requests, repeats, damage, pauses and foreign traffic in any order: the registers are always the model's."""

    def __init__(self):
        super().__init__()
        self.memory = Memory()
        self.model = list(range(SIZE))
        self.server = RtuServer(UNIT, LINE, self.memory)
        self.now_ns = 0

    def send(self, frame, chunk=256):
        self.now_ns += 100 * MS
        for at in range(0, len(frame), chunk):
            self.server.feed(frame[at : at + chunk], self.now_ns)
        return self.server.take_output()

    @rule(address=st.integers(0, SIZE), words=WORDS, times=st.integers(1, 3), chunk=st.integers(1, 50))
    def write(self, address, words, times, chunk):
        for _ in range(times):  # a retried write is the same write
            reply = self.send(write_request(UNIT, address, words).encode(), chunk)
            assert bool(reply[1] & EXCEPTION_BIT) == (address + len(words) > SIZE)
        if address + len(words) <= SIZE:
            self.model[address : address + len(words)] = words

    @rule(address=st.integers(0, SIZE - 1), word=st.integers(0, 0xFFFF), unit=st.sampled_from([UNIT, 0, 3]))
    def write_one(self, address, word, unit):
        reply = self.send(Request(unit, 6, address, 1, (word,)).encode())
        assert bool(reply) == (unit == UNIT)
        if unit != 3:
            self.model[address] = word

    @rule(address=st.integers(0, SIZE - 1), count=st.integers(1, 20), function=st.sampled_from([3, 4]))
    def read(self, address, count, function):
        reply = self.send(Request(UNIT, function, address, count).encode())
        if address + count > SIZE:
            assert reply == exception_reply(UNIT, function, 2)
        else:
            assert reply == read_reply(Request(UNIT, function, address, count), self.model[address : address + count])

    @rule(words=WORDS, keep=st.integers(1, 8))
    def break_off(self, words, keep):
        assert self.send(write_request(UNIT, 0, words).encode()[:-keep]) == b""

    @rule(words=WORDS)
    def other_unit(self, words):
        assert self.send(write_request(9, 0, words).encode()) == b""

    @invariant()
    def registers_are_the_models(self):
        assert self.memory.words == self.model


TestServerModel = ServerModel.TestCase
TestServerModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


# Client


class Wire:
    """A client, and a far side that the test plays by hand."""

    def __init__(self, **kwargs):
        self.client = RtuClient(LINE, **kwargs)
        self.now_ns = 1000 * MS

    def ask(self, request):
        assert self.client.is_free(self.now_ns)
        self.client.ask(request, self.now_ns)
        return self.client.take_output()

    def hear(self, data, after_ms=1.0):
        self.now_ns += int(after_ms * MS)
        self.client.feed(data, self.now_ns)
        return self.client.take_answer()

    def wait(self, for_ms):
        """The first answer within the time, by tick."""
        end_ns = self.now_ns + int(for_ms * MS)
        while self.now_ns < end_ns:
            self.now_ns += MS
            self.client.tick(self.now_ns)
            answer = self.client.take_answer()
            if answer is not None:
                return answer
        return None

    def until_free(self):
        begun_ns = self.now_ns
        while not self.client.is_free(self.now_ns):
            self.now_ns += MS
            assert self.now_ns < begun_ns + 10_000 * MS
        return (self.now_ns - begun_ns) / MS


READ = read_request(UNIT, 10, 3)
GOOD = read_reply(READ, [1, 2, 3])
WRITE = write_request(UNIT, 10, [4, 5, 6])


def test_a_reply_is_an_answer_with_its_times():
    wire = Wire()
    assert wire.ask(READ) == READ.encode()
    answer = wire.hear(GOOD)
    assert answer == Answered(READ, (1, 2, 3), wire.now_ns - MS, wire.now_ns)


def test_a_reply_in_pieces_is_one_answer():
    wire = Wire()
    wire.ask(READ)
    answers = [wire.hear(bytes((byte,)), 0.1) for byte in GOOD]
    assert isinstance(answers[-1], Answered) and not any(answers[:-1])


LARGE = read_request(UNIT, 0, 62)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (READ, GOOD),
        (LARGE, read_reply(LARGE, range(62))),
        (WRITE, write_reply(WRITE)),
        (READ, exception_reply(UNIT, 3, ExceptionCode.ILLEGAL_ADDRESS)),
    ],
    ids=["small", "large", "write", "exception"],
)
@pytest.mark.parametrize("gap_ms", [1, 5, 16, 33, 45])
@pytest.mark.parametrize("size", [1, 2, 7, 16, 32, 62])
def test_pieces_of_a_reply_that_come_slowly_are_one_answer(request_, reply, size, gap_ms):
    pieces = [reply[at : at + size] for at in range(0, len(reply), size)]
    if (len(pieces) - 1) * gap_ms > (PIECES_NS - PIECE_NS) // MS:
        pytest.skip("no line on which parts pass can wait for this")
    wire = Wire()
    wire.ask(request_)
    answers = [wire.hear(pieces[0], 16)]
    for piece in pieces[1:]:
        answers.append(wire.wait(gap_ms - 1))  # whether it is given up meanwhile
        answers.append(wire.hear(piece))
    assert answers[-1] is not None and not any(answers[:-1])
    assert isinstance(answers[-1], Answered) or answers[-1].failure is Failure.EXCEPTION


def test_a_reply_that_stops_in_the_middle_is_given_up_soon():
    wire = Wire()
    wire.ask(LARGE)
    wire.hear(read_reply(LARGE, range(62))[:90], 16)
    assert wire.wait(PIECES_NS // MS).failure is Failure.TIMEOUT
    wire.until_free()
    wire.ask(READ)
    assert wire.hear(GOOD).values == (1, 2, 3)


def test_noise_that_goes_on_is_not_waited_for_beyond_its_limit():
    wire = Wire()
    wire.ask(READ)
    begun_ns = wire.now_ns
    while wire.wait(5) is None:
        wire.hear(bytes((UNIT,)), 0.1)  # which any reply may begin with
    assert wire.now_ns - begun_ns <= PIECES_NS + 10 * MS


def test_the_line_is_silent_between_a_reply_and_the_next_request():
    wire = Wire()
    wire.ask(READ)
    wire.hear(GOOD)
    assert not wire.client.is_free(wire.now_ns + LINE.silence_ns - 1)
    assert wire.client.is_free(wire.now_ns + LINE.silence_ns)
    with pytest.raises(RuntimeError, match="under way"):
        wire.client.ask(READ, wire.now_ns)


def test_a_late_reply_is_never_read_as_the_next_ones():
    wire = Wire()
    wire.ask(read_request(UNIT, 200, 3))
    failed = wire.wait(500)
    assert failed.failure is Failure.TIMEOUT and "does not answer" in failed.text
    waited_ms = (wire.now_ns - 1000 * MS) / MS
    late = read_reply(read_request(UNIT, 200, 3), [200, 200, 200])
    assert wire.hear(late, 5) is None  # just after the timeout
    assert wire.until_free() >= waited_ms - 6  # one full timeout
    wire.ask(read_request(UNIT, 300, 3))
    assert wire.hear(read_reply(read_request(UNIT, 300, 3), [300, 300, 300])).values == (300, 300, 300)
    assert wire.client.counts["late_bytes"] == len(late)


def test_nothing_is_ever_sent_again_by_itself():
    wire = Wire()
    wire.ask(write_request(UNIT, 0, [1]))
    assert wire.wait(1000).failure is Failure.TIMEOUT
    assert wire.wait(5000) is None and wire.client.take_output() == b""
    assert wire.client.counts["requests"] == 1


def test_an_exception_is_told_with_its_meaning():
    wire = Wire()
    wire.ask(READ)
    failed = wire.hear(exception_reply(UNIT, 3, 2))
    assert failed.failure is Failure.EXCEPTION and failed.code == 2
    assert "exception 2 (illegal data address)" in failed.text and "address 10" in failed.text
    wire.now_ns += LINE.silence_ns
    assert wire.client.is_free(wire.now_ns)  # it was an answer: nothing late can come


def test_another_unit_that_answers_is_named():
    wire = Wire()
    wire.ask(READ)
    assert wire.hear(read_reply(read_request(3, 10, 3), [9, 9, 9])) is None
    failed = wire.wait(500)
    assert failed.failure is Failure.FOREIGN and "unit 3 answers instead of unit 7" in failed.text
    assert wire.client.counts["wrong_unit"] == 1


def test_a_damaged_reply_is_told_at_once_and_needs_no_waiting():
    wire = Wire()
    wire.ask(READ)
    failed = wire.hear(GOOD[:4] + bytes((GOOD[4] ^ 1,)) + GOOD[5:])
    assert failed.failure is Failure.DAMAGED
    assert wire.until_free() <= 3


def test_a_wrong_baud_rate_is_suspected_when_bytes_make_no_sense():
    wire = Wire()
    wire.ask(READ)
    wire.hear(b"\xfe\x80\x00\xf8" * 3)
    assert "check baud rate and parity" in wire.wait(500).text


def test_noise_before_the_reply_does_not_hide_it():
    for noise in (b"\x00", b"\xff\xff", bytes((UNIT,)), bytes((UNIT, 3)), GOOD[:5]):
        wire = Wire()
        wire.ask(READ)
        assert wire.hear(noise + GOOD).values == (1, 2, 3), noise


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("request_", [READ, write_request(UNIT, 10, [4, 5, 6])], ids=["read", "write"])
def test_our_own_request_heard_back_is_dropped(request_, is_told):
    reply = GOOD if request_ is READ else with_crc(request_.reply_head())
    wire = Wire(echo=is_told)
    echo = wire.ask(request_)
    for byte in echo:
        assert wire.hear(bytes((byte,)), 0.1) is None
    assert isinstance(wire.hear(reply), Answered)


def test_a_write_of_one_register_with_echo_waits_for_the_real_reply():
    wire = Wire(echo=True)
    request = Request(UNIT, 6, 5, 1, (9,))
    assert wire.hear(wire.ask(request)) is None
    assert isinstance(wire.hear(request.encode()), Answered)
    wire.now_ns += 10 * MS
    wire.hear(wire.ask(request))
    assert wire.wait(500).failure is Failure.TIMEOUT  # an echo alone is no answer


def test_a_broadcast_waits_for_nobody_but_gives_time_to_obey():
    wire = Wire()
    wire.ask(write_request(0, 0, [1]))
    assert isinstance(wire.client.take_answer(), Answered)
    assert wire.until_free() >= 10


def test_a_line_that_never_falls_silent_is_asked_again_all_the_same():
    wire = Wire()
    wire.ask(READ)
    while wire.client.take_answer() is None:
        wire.hear(b"\x55")
        wire.client.tick(wire.now_ns)
    begun_ns = wire.now_ns
    while not wire.client.is_free(wire.now_ns):
        wire.hear(b"\x55")
        assert wire.now_ns - begun_ns < 2 * BABBLE_NS
    assert wire.now_ns - begun_ns > 50 * MS


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 30)), max_size=12))
def test_no_bytes_break_the_client_and_only_a_good_crc_is_an_answer(chunks):
    wire = Wire()
    wire.ask(READ)
    stream = b""
    for data, pause_ms in chunks:
        stream += data
        answer = wire.hear(data, pause_ms)
        wire.client.tick(wire.now_ns)
        answer = answer or wire.client.take_answer()
        if isinstance(answer, Answered):
            assert read_reply(READ, answer.values) in stream
        if isinstance(answer, Failed) and answer.failure is Failure.EXCEPTION:
            assert exception_reply(UNIT, 3, answer.code) in stream
        if answer is not None:
            break
    answer = answer if chunks and answer is not None else wire.wait(1000)
    assert answer is not None  # every request ends


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 250), st.booleans()), min_size=1, max_size=15))
def test_whatever_a_slow_server_does_values_are_those_of_their_own_request(delays):
    """Replies come after any delay up to just short of two timeouts, or never; each says which request it is for."""
    wire = Wire()
    under_way = []  # due, bytes
    for number, (delay_ms, is_answered) in enumerate(delays):
        wire.until_free()
        request = read_request(UNIT, 100 + number, 1)
        wire.ask(request)
        timeout_ms = (wire.client.next_due_ns() - wire.now_ns) / MS
        if is_answered:
            due_ns = wire.now_ns + int(min(delay_ms, 1.9 * timeout_ms) * MS)
            under_way.append((due_ns, read_reply(request, [100 + number])))
        answer = None
        while answer is None or not wire.client.is_free(wire.now_ns):
            wire.now_ns += MS
            for due in [due for due in under_way if due[0] <= wire.now_ns]:
                under_way.remove(due)
                wire.client.feed(due[1], wire.now_ns)
            wire.client.tick(wire.now_ns)
            answer = wire.client.take_answer() or answer
        if isinstance(answer, Answered):
            assert answer.values == (100 + number,)
