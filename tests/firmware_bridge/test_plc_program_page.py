"""The PLC program in WIRING.md is translated word by word and runs against the box, by Modbus, on a belt of its own."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import firmware_bridge
from firmware_bridge.modbus.client import Answered, RtuClient
from firmware_bridge.modbus.link import PlcLink
from firmware_bridge.modbus.registers import BOX, MAP_VERSION, PLC, RING
from firmware_bridge.modbus.rtu import MS, Line, read_request, write_request
from firmware_bridge.modbus.server import ExceptionCode, Refused, RtuServer
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import LinkUp, Outcome, Settled, Triggered

PAGE = Path(firmware_bridge.__file__).parent / "WIRING.md"
DECIDE, FIRE, PULSE, WATCHDOG_MS = 900, 1000, 20, 500
SETUP = GateSetup(DECIDE, FIRE, PULSE, WATCHDOG_MS)
SCAN_MS, COUNTS_PER_SCAN, PITCH = 5, 10, 200
WORDS = {"AND": "and", "OR": "or", "NOT": "not", "MOD": "%", "TRUE": "True", "FALSE": "False", "=": "==", "<>": "!=",
         "/": "//"}  # fmt: skip
TOKEN = re.compile(r":=|<>|>=|<=|[\w.]+|[^\s\w]")


def translate(text):
    """Structured text, as far as the page uses it, to Python."""
    tokens = TOKEN.findall(re.sub(r"\(\*.*?\*\)", "", text, flags=re.DOTALL))
    lines, depth, at = [], 0, 0

    def upto(end):
        nonlocal at
        start = at
        while tokens[at] != end:
            at += 1
        at += 1
        return tokens[start : at - 1]

    while at < len(tokens):
        word = tokens[at]
        at += 1
        if word in ("IF", "ELSIF"):
            lines.append("    " * (depth - (word == "ELSIF")) + f"{word.lower().replace('elsif', 'elif')} "
                         f"{expression(upto('THEN'))}:")  # fmt: skip
            depth += word == "IF"
        elif word == "ELSE":
            lines.append("    " * (depth - 1) + "else:")
        elif word == "FOR":
            name, first, last = upto(":=")[0], upto("TO")[0], upto("DO")[0]
            lines.append("    " * depth + f"for {name} in range({first}, {last} + 1):")
            depth += 1
        elif word in ("END_IF", "END_FOR"):
            upto(";")
            depth -= 1
        else:
            at -= 1
            target = "".join(WORDS.get(token, token) for token in upto(":="))
            lines.append("    " * depth + assign(target, expression(upto(";"))))
    return "\n".join(lines)


def expression(tokens):
    text = " ".join(WORDS.get(token, token) for token in tokens)
    text = re.sub(r"\] \.", "].", text)
    text = re.sub(r"(\w) \[", r"\1[", text)
    return re.sub(r"([\w.]+)\.(\d)\b", r"bool(\1 >> \2 & 1)", text)


def assign(target, value):
    bit = re.fullmatch(r"([\w.]+)\.(\d)", target)
    if bit:
        name, number = bit.groups()
        return f"{name} = {name} & ~(1 << {number}) | bool({value}) << {number}"
    return f"{target.replace('%', ' % ')} = {value}"


def test_the_translation_is_what_the_text_says():
    text = "IF a.3 AND NOT b[n].c <> 2 THEN (* why *) x.1 := TRUE; ELSE y := z MOD 8; END_IF;"
    assert translate(text).splitlines() == [
        "if bool(a >> 3 & 1) and not b[ n ].c != 2:",
        "    x = x & ~(1 << 1) | bool(True) << 1",
        "else:",
        "    y = z % 8",
    ]


PROGRAM = compile(translate(PAGE.read_text(encoding="utf-8").split("```iecst")[1].split("```")[0]), "WIRING.md", "exec")


class PagePlc:
    """A PLC with the program of the page, its registers, and a belt whose encoder wraps early."""

    def __init__(self, boot_id=4):
        names = [row.name for row in PLC.rows if row.kind != "ring"]
        plc = SimpleNamespace(**dict.fromkeys(names, 0))
        plc.triggers = [SimpleNamespace(part_id_lo=0, encoder_lo=0) for _ in range(RING)]
        plc.outcomes = [SimpleNamespace(part_id_lo=0, outcome=0, encoder_lo=0) for _ in range(RING)]
        flags = ("eyeRises", "trip", "enable", "tripped", "gateOn", "binFull", "airLow", "encoderLost", "beltReversed")
        self.g = {
            **dict.fromkeys(flags, False), "firstScan": True, "firstResult": False, "bootId": boot_id, "partId": 0,
            "lastBeat": 0, "beatAt": 0, "gateUntil": 0, "MAP_VERSION": MAP_VERSION, "FIRE": FIRE, "PULSE": PULSE,
            "DECIDE": DECIDE, "WATCHDOG": WATCHDOG_MS, "plc": plc,
            "box": SimpleNamespace(**dict.fromkeys(BOX.offsets, 0)),
            "part": [SimpleNamespace(id=0, at=0, verdict=0, late=False, done=False) for _ in range(32)],
            "TO_DINT": lambda value: (value + 2**31) % 2**32 - 2**31,
            "SEL": lambda which, no, yes: yes if which else no,
        }  # fmt: skip
        self.encoder = 2**32 - 3000
        self.box_words = [0] * BOX.size
        self.plc_words = [0] * PLC.size
        self.removed = {}  # part id -> whether the gate was on when it stood there
        self.eyes = {}
        self.may_feed = False
        self._next_eye = None

    def scan(self, now_ms):
        g = self.g
        self.encoder += COUNTS_PER_SCAN
        g["box"] = (
            SimpleNamespace(**BOX.unpack(self.box_words)) if self.box_words[0] and self.box_words[-1] else g["box"]
        )
        g["now"], g["encoder"] = now_ms, self.encoder % 2**32
        self._next_eye = self._next_eye or (self.encoder + PITCH if self.may_feed else None)
        g["eyeRises"] = self._next_eye is not None and self.encoder >= self._next_eye
        g["latch"] = g["encoder"]
        if g["eyeRises"]:
            self.eyes[g["partId"] + 1] = self.encoder
            self._next_eye += PITCH
        exec(PROGRAM, g)
        for part, eye in self.eyes.items():
            if part not in self.removed and self.encoder >= eye + FIRE:
                self.removed[part] = g["gateOn"]
        plc = g["plc"]
        self.plc_words = PLC.pack({
            **vars(plc), "triggers": [tuple(vars(entry).values()) for entry in plc.triggers],
            "outcomes": [tuple(vars(entry).values()) for entry in plc.outcomes],
        })  # fmt: skip

    # As server

    def read(self, address, count):
        for block, words in ((BOX, self.box_words), (PLC, self.plc_words)):
            if address in block and address + count - 1 in block:
                return words[address - block.base :][:count]
        raise Refused(ExceptionCode.ILLEGAL_ADDRESS)

    def write(self, address, values):
        if address not in BOX or address + len(values) - 1 not in BOX:
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        self.box_words[address : address + len(values)] = values


class Wire:
    """Box and PLC, a millisecond at a time."""

    def __init__(self, role):
        self.role, self.plc, self.now_ms = role, PagePlc(), 1000
        self.link = PlcLink(SETUP, role=role)
        self.link.opened(self.now_ms * MS)
        self.link.set_armed(True, self.now_ms * MS)
        self.server, self.client, self.turn = RtuServer(1, Line(), self.plc), RtuClient(Line()), 0
        self.events, self.is_box_alive = [], True
        self.judge = lambda part: part % 3 == 0  # reject each third

    def run(self, until, limit_ms=30_000):
        end = self.now_ms + limit_ms
        while not until():
            assert self.now_ms < end, (self.link.phase, self.link.detail, self.link.counts, self.plc.g["plc"])
            self.now_ms += 1
            if self.now_ms % SCAN_MS == 0:
                self.plc.scan(self.now_ms)
            self._exchange(self.now_ms * MS)

    def _exchange(self, now):
        far = self.server if self.role == "client" else self.client
        if self.is_box_alive:
            far.feed(self.link.take_output(), now)
        if self.role == "server":
            self._poll(now)
        out = far.take_output()
        if not self.is_box_alive:
            return
        if out:
            self.link.feed(out, now)
        self.link.tick(now)
        for event in self.link.take_events():
            self.events.append(event)
            if isinstance(event, Triggered) and self.judge(event.part_id) is not None:
                self.link.submit(event.boot_id, event.part_id, self.judge(event.part_id), now)

    def _poll(self, now):
        self.client.tick(now)
        answer = self.client.take_answer()
        if isinstance(answer, Answered) and answer.values:
            self.plc.box_words = list(answer.values)
        if self.client.is_free(now):
            self.turn ^= 1
            write = write_request(1, PLC.base, self.plc.plc_words)
            self.client.ask(write if self.turn else read_request(1, BOX.base, BOX.size), now)

    def outcomes(self):
        return {event.part_id: event.outcome for event in self.events if isinstance(event, Settled)}


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_program_on_the_page_carries_verdicts_out(role):
    wire = Wire(role)
    wire.judge = lambda part: None if part % 5 == 0 else part % 3 == 0
    wire.run(lambda: wire.link.is_armed)
    wire.plc.may_feed = True
    wire.run(lambda: len(wire.outcomes()) >= 40)
    for part, outcome in wire.outcomes().items():
        wanted = Outcome.DEFAULTED if part % 5 == 0 else Outcome.FIRED if part % 3 == 0 else Outcome.PASSED
        assert outcome is wanted, part
        assert wire.plc.removed[part] == (wanted is not Outcome.PASSED)


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_program_on_the_page_rejects_what_a_dead_box_leaves_and_takes_it_back(role):
    wire = Wire(role)
    wire.run(lambda: wire.link.is_armed)
    wire.plc.may_feed = True
    wire.run(lambda: len(wire.outcomes()) >= 10)
    wire.is_box_alive = False
    died = max(wire.plc.eyes)
    wire.run(lambda: len(wire.plc.removed) >= died + 15)
    assert wire.plc.g["tripped"] and not wire.plc.g["healthy"]
    assert all(wire.plc.removed[part] for part in range(died + 1, died + 15))
    wire.is_box_alive = True
    back = max(wire.plc.eyes)
    wire.run(lambda: sum(isinstance(event, LinkUp) for event in wire.events) == 2)
    wire.run(lambda: any(wire.outcomes().get(part) is Outcome.PASSED for part in range(back, back + 60)))
    passed = {part for part, is_removed in wire.plc.removed.items() if not is_removed}
    assert all(part % 3 for part in passed)


def test_the_program_on_the_page_believes_no_armed_box_before_it_was_seen_disarmed():
    wire = Wire("client")
    wire.run(lambda: wire.link.is_armed)
    fresh = PagePlc(boot_id=9)  # power lost and back, while the box still shows ARMED
    fresh.box_words = list(wire.plc.box_words)
    for at in range(20):
        fresh.scan(wire.now_ms + SCAN_MS * at)
    assert fresh.g["tripped"] and not fresh.g["enable"] and fresh.g["plc"].boot_id == 10
    wire.plc = fresh
    wire.server = RtuServer(1, Line(), fresh)
    wire.run(lambda: fresh.g["enable"])
    assert not fresh.g["tripped"]


@pytest.mark.parametrize("fault", ["binFull", "airLow", "encoderLost", "beltReversed"])
def test_the_program_on_the_page_stops_for_what_stands_in_the_way(fault):
    wire = Wire("client")
    wire.run(lambda: wire.link.is_armed)
    wire.plc.g[fault] = True
    wire.run(lambda: not wire.plc.g["healthy"] and not wire.link.is_armed)
    wire.plc.g[fault] = False
    if fault != "encoderLost":
        wire.run(lambda: wire.link.is_armed)


def test_the_program_on_the_page_holds_the_feed():
    wire = Wire("client")
    wire.run(lambda: wire.link.is_armed and wire.plc.g["feed"])
    wire.link.set_hold(True, wire.now_ms * MS)
    wire.run(lambda: not wire.plc.g["feed"])
    assert wire.plc.g["healthy"]


def test_the_program_on_the_page_trips_when_its_table_is_full():
    plc = PagePlc()
    plc.scan(0)
    for part in plc.g["part"]:
        part.id, part.at, part.done = 1, plc.encoder % 2**32, False
    plc.g["enable"], plc.may_feed = True, True
    while not plc.eyes:
        plc.scan(0)
    assert plc.g["tripped"] and plc.g["gateOn"] and plc.g["plc"].outcomes[1].outcome == 8


def test_the_program_on_the_page_lets_no_part_pass_that_its_full_table_cannot_follow(monkeypatch):
    monkeypatch.setitem(globals(), "PITCH", 30)  # more between eye and gate than the table holds
    plc = PagePlc()
    plc.may_feed, now = True, 1000
    for _ in range(250):
        if plc.g["tripped"] and len(plc.eyes) > 32:
            plc._next_eye = 10**12  # the belt empties
        now += SCAN_MS
        plc.scan(now)
    assert len(plc.eyes) > 32
    assert all(plc.removed.values()) and len(plc.removed) == len(plc.eyes)
