"""An adapter that hears its own sending, or does not, against what the station says: named, and never an answer."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from firmware_bridge.modbus.client import Answered, Failed, Failure, RtuClient
from firmware_bridge.modbus.registers import BLOCKS, MAP_ID
from firmware_bridge.modbus.rs485_echo import SURE, Echo
from firmware_bridge.modbus.rtu import (
    MS,
    Function,
    Line,
    Request,
    exception_reply,
    read_reply,
    read_request,
    with_crc,
    write_request,
)
from firmware_bridge.modbus.server import RtuServer

UNIT = 7
LINE = Line()
ECHOES = "the adapter echoes: set controller.rs485_echo = true"
IS_DEAF = "the adapter does not echo: set controller.rs485_echo = false"
WORDS = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=30)
READ = read_request(UNIT, 10, 3)
WRITE = write_request(UNIT, 10, [4, 5, 6])
WRITE_ONE = Request(UNIT, Function.WRITE_ONE, 10, 1, (4,))


def reply_to(request: Request) -> bytes:
    if request.function == Function.READ_HOLDING:
        return read_reply(request, [value & 0xFFFF for value in range(request.count)])
    return with_crc(request.reply_head())


class Box:
    """A client behind an adapter, and a far side that answers at once, or not at all."""

    def __init__(self, is_set: bool, hears: bool, answers: bool = True, noise: bytes = b"") -> None:
        self.client = RtuClient(LINE, echo=is_set)
        self.hears, self.answers, self.noise = hears, answers, noise
        self.now_ns = 1000 * MS

    def exchange(self, request: Request, chunk: int = 256) -> Answered | Failed:
        client = self.client
        while not client.is_free(self.now_ns):
            self.now_ns += MS
        client.ask(request, self.now_ns)
        sent = client.take_output()
        heard = self.noise + sent * self.hears + reply_to(request) * self.answers
        answer = None
        for at in range(0, len(heard), chunk):
            client.feed(heard[at : at + chunk], self.now_ns)
            answer = answer or client.take_answer()
        while answer is None:
            self.now_ns += MS
            client.tick(self.now_ns)
            answer = client.take_answer()
        return answer


class Memory:
    """Registers that count what is done to them."""

    def __init__(self) -> None:
        self.words = [0] * 64
        self.writes: list[tuple[int, ...]] = []

    def read(self, address: int, count: int) -> list[int]:
        return self.words[address : address + count]

    def write(self, address: int, values: tuple[int, ...]) -> None:
        self.writes.append(values)
        self.words[address : address + len(values)] = values


class Served:
    """A server behind an adapter."""

    def __init__(self, is_set: bool, hears: bool) -> None:
        self.memory = Memory()
        self.server = RtuServer(UNIT, LINE, self.memory, echo=is_set)
        self.hears = hears
        self.now_ns = 1000 * MS

    def ask(self, request: Request, chunk: int = 256) -> bytes:
        """What the far side hears as an answer. What the server says is heard by it again, as often as it speaks."""
        self.now_ns += 10 * MS
        said, heard = b"", request.encode()
        for _ in range(100):
            for at in range(0, len(heard), chunk):
                self.server.feed(heard[at : at + chunk], self.now_ns)
            heard = self.server.take_output()
            said += heard
            if not heard or not self.hears:
                return said
        raise AssertionError("it talks to itself for ever")


TABLE = [(True, True, ""), (False, False, ""), (False, True, ECHOES), (True, False, IS_DEAF)]


# Client


@pytest.mark.parametrize(("is_set", "hears", "problem"), TABLE)
@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_a_client_is_answered_whatever_is_set_and_names_what_to_set(is_set, hears, problem, chunk):
    box = Box(is_set, hears)
    for request in (READ, WRITE) * SURE:
        answer = box.exchange(request, chunk)
        assert isinstance(answer, Answered), answer
        assert answer.values == ((0, 1, 2) if request is READ else ())
    assert box.client.echo_problem == problem
    assert box.client.wire_counts["echo_broken"] <= SURE


@pytest.mark.parametrize(("is_set", "hears", "problem"), TABLE)
def test_a_client_sees_another_adapter_without_a_restart(is_set, hears, problem):
    box = Box(is_set, not hears)
    for _ in range(SURE):
        box.exchange(READ)
    box.hears = hears
    for _ in range(SURE):
        assert isinstance(box.exchange(READ), Answered)
    assert box.client.echo_problem == problem


def test_an_echo_is_named_though_nobody_answers():
    box = Box(is_set=False, hears=True, answers=False)
    failed = box.exchange(READ)
    assert isinstance(failed, Failed) and "unit 7 does not answer" in failed.text
    assert box.client.echo_problem == ECHOES


def test_silence_says_nothing_about_the_adapter():
    for is_set in (True, False):
        box = Box(is_set, hears=False, answers=False)
        for _ in range(SURE + 1):
            box.exchange(READ)
        assert box.client.echo_problem == ""


def test_one_lost_echo_is_no_other_adapter():
    box = Box(is_set=True, hears=True)
    box.exchange(READ)
    box.hears = False
    box.exchange(READ)
    assert box.client.echo_problem == ""


@pytest.mark.parametrize("is_set", [True, False])
def test_an_echo_behind_the_noise_of_a_driver_that_switches_on_is_seen(is_set):
    box = Box(is_set, hears=True, noise=b"\xff")
    for request in (READ, WRITE) * SURE:
        assert isinstance(box.exchange(request), Answered)
    assert box.client.echo_problem == ("" if is_set else ECHOES)


def test_a_write_of_one_register_is_told_from_its_echo_once_the_adapter_is_known():
    box = Box(is_set=False, hears=True)
    box.exchange(READ)
    box.answers = False
    failed = box.exchange(WRITE_ONE)
    assert isinstance(failed, Failed) and failed.failure is Failure.TIMEOUT
    deaf = Box(is_set=True, hears=False)
    for _ in range(SURE):
        deaf.exchange(READ)
    assert isinstance(deaf.exchange(WRITE_ONE), Answered)


@pytest.mark.parametrize("noise", [b"", b"\xff"])
def test_a_write_of_one_register_is_never_acknowledged_by_its_own_echo_behind_noise(noise):
    box = Box(is_set=True, hears=True)
    box.exchange(READ)
    box.answers, box.noise = False, noise
    failed = box.exchange(WRITE_ONE)
    assert isinstance(failed, Failed) and failed.failure is Failure.TIMEOUT


def test_a_damaged_first_echo_that_nobody_told_of_is_no_damaged_reply():
    client, now_ns = RtuClient(LINE, echo=False), 1000 * MS
    client.ask(WRITE, now_ns)
    echo = bytearray(client.take_output())
    echo[-1] ^= 0x40
    client.feed(bytes(echo), now_ns + MS)
    assert client.take_answer() is None and not client.is_free(now_ns + 3 * MS)


def test_a_damaged_echo_of_a_write_does_not_make_its_late_reply_the_next_ones():
    client, now_ns = RtuClient(LINE, echo=True), 1000 * MS
    client.ask(WRITE, now_ns)
    echo = client.take_output()
    client.feed(echo[:9] + bytes((echo[9] ^ 1,)) + echo[10:], now_ns)
    assert client.take_answer() is None and not client.is_free(now_ns + 10 * MS)
    client.feed(reply_to(WRITE), now_ns + 10 * MS)
    assert isinstance(client.take_answer(), Answered)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    address, words = draw(st.integers(0, 300)), draw(WORDS)
    return read_request(UNIT, address, len(words)) if draw(st.booleans()) else write_request(UNIT, address, words)


def can_be_told_apart(request: Request) -> bool:
    """A reply to a write can be the beginning of the write itself, once in 65 536 times."""
    return not request.encode().startswith(reply_to(request))


@settings(deadline=None)
@given(requests(), st.integers(1, 70), st.booleans(), st.lists(st.booleans(), max_size=5), st.data())
def test_an_echo_alone_is_never_an_answer(request, chunk, is_set, before, data):
    box = Box(is_set, hears=True)
    for hears in before:
        box.hears = hears
        box.exchange(READ)
    box.hears, box.answers = True, False
    if request.function == Function.WRITE_MANY and data.draw(st.booleans()):  # it carries what looks like its own reply
        reply = reply_to(write_request(UNIT, request.address, [0] * (request.count + 4)))
        words = tuple(int.from_bytes(reply[at : at + 2], "big") for at in range(0, 8, 2))
        request = write_request(UNIT, request.address, request.values + words)
    assert isinstance(box.exchange(request, chunk), Failed)


@settings(deadline=None)
@given(requests(), st.integers(1, 70), st.booleans(), st.booleans())
def test_a_reply_is_the_answer_with_and_without_an_echo(request, chunk, is_set, hears):
    assume(can_be_told_apart(request))
    box = Box(is_set, hears)
    answer = box.exchange(request, chunk)
    assert isinstance(answer, Answered)
    assert answer.values == (tuple(range(request.count)) if request.function == Function.READ_HOLDING else ())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_no_unit_answers_a_write_of_our_blocks_with_its_beginning(block):
    for unit in range(1, 248):
        assert can_be_told_apart(write_request(unit, block.base, [MAP_ID] + [0] * (block.size - 1)))


# Server


@pytest.mark.parametrize(("is_set", "hears", "problem"), TABLE)
@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_a_server_answers_once_whatever_is_set_and_names_what_to_set(is_set, hears, problem, chunk):
    served = Served(is_set, hears)
    for request in (write_request(UNIT, 1, [8, 9]), read_request(UNIT, 1, 2)) * SURE:
        reply = read_reply(request, [8, 9]) if request.function == Function.READ_HOLDING else reply_to(request)
        assert served.ask(request, chunk) == reply
    assert served.memory.writes == [(8, 9)] * SURE
    assert served.server.echo_problem == problem


@pytest.mark.parametrize(("is_set", "hears", "problem"), TABLE)
def test_a_server_sees_another_adapter_without_a_restart(is_set, hears, problem):
    served = Served(is_set, not hears)
    for _ in range(SURE):
        served.ask(READ)
    served.hears = hears
    for _ in range(SURE + 1):
        served.ask(READ)
    assert served.server.echo_problem == problem


@pytest.mark.parametrize("is_set", [True, False])
def test_a_server_does_not_talk_to_itself_about_one_register(is_set):
    served = Served(is_set, hears=True)
    said = served.ask(WRITE_ONE)
    assert 1 <= len(said) // 8 <= SURE
    assert served.server.echo_problem == ("" if is_set else ECHOES)
    assert served.ask(WRITE_ONE) == reply_to(WRITE_ONE)
    assert served.ask(READ) == read_reply(READ, [4, 0, 0])


def test_a_master_that_writes_the_same_again_and_again_is_answered_each_time():
    served = Served(is_set=True, hears=False)
    for _ in range(6):
        assert served.ask(WRITE_ONE) == reply_to(WRITE_ONE)
        served.now_ns += 100 * MS


def test_a_refusal_heard_back_is_an_echo_too():
    served = Served(is_set=False, hears=True)
    refused = with_crc(bytes((UNIT, 43, 14, 1, 0)))
    served.server.feed(refused, served.now_ns)
    assert served.server.take_output() == exception_reply(UNIT, 43, 1)
    served.server.feed(exception_reply(UNIT, 43, 1), served.now_ns)
    assert served.server.take_output() == b"" and served.server.echo_problem == ECHOES


@settings(deadline=None)
@given(st.lists(st.tuples(requests(), st.booleans()), max_size=8), st.booleans(), st.integers(1, 40))
def test_what_a_server_says_changes_no_register(asked, is_set, chunk):
    served = Served(is_set, hears=True)
    wanted = []
    for request, hears in asked:
        served.hears = hears
        before = len(served.memory.writes)
        served.ask(request, chunk)
        if request.function == Function.WRITE_MANY:
            wanted.append(request.values)
        assert len(served.memory.writes) - before <= 1
    assert set(served.memory.writes) <= set(wanted)


# The filter


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 20)), max_size=5), st.binary(max_size=10))
def test_an_echo_is_taken_out_and_nothing_else(sent, heard):
    echo = Echo(is_set=False)
    for data, cut in sent:
        echo.sent(data)
        assert echo.strip(data[:cut]) + echo.strip(data[cut:]) == b""
    assert echo.strip(heard) == heard


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=20), st.lists(st.binary(max_size=10), max_size=6))
def test_no_byte_is_lost_but_an_echo(own, chunks):
    echo, heard = Echo(is_set=True), b"".join(chunks)
    echo.sent(own)
    passed = b"".join(echo.strip(chunk) for chunk in chunks)
    if heard.startswith(own):
        assert passed == heard[len(own) :]
    elif own.startswith(heard):
        assert passed == b"" and echo.held == len(heard)
    else:
        assert passed == heard
