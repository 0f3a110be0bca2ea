"""Modbus implementations that are not ours, against ours, on real ptys: libmodbus, pymodbus, mbpoll, LinuxCNC's mb2hal.

`EDGE_SOFT_PLC_S` sets for how many seconds the soft PLC polls (10).
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections import Counter, deque
from pathlib import Path

import pytest

from firmware_bridge.modbus import registers
from firmware_bridge.modbus.client import RtuClient
from firmware_bridge.modbus.link import PlcLink
from firmware_bridge.modbus.registers import BOX, MAP_ID, MAP_VERSION, PLC, PlcBlock
from firmware_bridge.modbus.rtu import ExceptionCode, Line, read_request
from firmware_bridge.modbus.server import Refused, RtuServer
from firmware_bridge.port import BridgePort
from firmware_bridge.reject.gate_setup import GateSetup
from firmware_bridge.reject.link_events import LinkRefused, LinkUp, Settled, Triggered, VerdictAnswered
from firmware_bridge.serial_device import PortError
from tests.support.waiting import until

HERE = Path(__file__).parent
MCU = Path(registers.__file__).parents[1] / "mcu"
PATIENCE_S = 25.0
UNIT = 5
SETUP = GateSetup(decide_counts=900, fire_counts=1000, pulse_counts=20, watchdog_ms=1000)


class Wire:
    """Two ptys and a thread between them; `baud` gives it the time of a real UART, `spoil` changes what passes."""

    def __init__(self, baud=None, spoil=None):
        self._char_s = 10 / baud if baud else 0.0
        self.spoil = spoil or (lambda data: data)
        self._pairs = [os.openpty() for _ in range(2)]
        for master, slave in self._pairs:
            tty.setraw(master)
            tty.setraw(slave)
        self.ends = [os.ttyname(slave) for _, slave in self._pairs]
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self):
        os.write(self._stop_w, b"!")
        self._thread.join(PATIENCE_S)
        for fd in (self._stop_r, self._stop_w, *(fd for pair in self._pairs for fd in pair)):
            os.close(fd)

    def _run(self):
        (a, _), (b, _) = self._pairs
        peer, free = {a: b, b: a}, {a: 0.0, b: 0.0}
        under_way = deque()
        while True:
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            ready, _, _ = select.select([a, b, self._stop_r], [], [], wait)
            if self._stop_r in ready:
                return
            for fd in ready:
                data = self.spoil(os.read(fd, 4096))
                free[fd] = max(time.monotonic(), free[fd]) + len(data) * self._char_s
                under_way.append((free[fd], peer[fd], data))
            while under_way and under_way[0][0] <= time.monotonic():
                _, fd, data = under_way.popleft()
                os.write(fd, data)


@pytest.fixture
def make_wire():
    wires = []

    def make(**kwargs):
        wires.append(Wire(**kwargs))
        return wires[-1]

    yield make
    for wire in wires:
        wire.close()


class Box:
    """Our side: a port and a link that judges every part at once, each third a reject."""

    def __init__(self, path, role, **kwargs):
        self.events, self.news = [], threading.Condition()
        line = {key: kwargs[key] for key in ("baud", "parity") if key in kwargs}
        self.port = BridgePort(
            path, PlcLink(SETUP, role=role, unit=kwargs.pop("unit", UNIT), **kwargs), self.hear, **line
        )

    def start(self, *, arm=True):
        self.port.start(wait_s=0.05)
        if arm:
            self.port.set_armed(True)
        return self

    def hear(self, event):
        if isinstance(event, Triggered):
            self.port.send_verdict(event.boot_id, event.part_id, event.part_id % 3 == 0)
        with self.news:
            self.events.append(event)
            self.news.notify_all()

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def wait(self, is_true):
        with self.news:
            assert self.news.wait_for(is_true, PATIENCE_S), (self.port.state(), self.port.report(), self.events[-5:])


@pytest.fixture
def make_box():
    boxes = []

    def make(*args, **kwargs):
        boxes.append(Box(*args, **kwargs))
        return boxes[-1]

    yield make
    for box in boxes:
        box.port.stop()


@pytest.fixture
def run():
    """Start a peer in a session of its own; it and what it started are ended by their group."""
    started = []

    def start(*words, **kwargs):
        command = [str(word) for word in words]
        started.append(subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True, **kwargs))
        return started[-1]

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all gone already
        process.communicate(timeout=PATIENCE_S)


def need(*tools, package):
    missing = [tool for tool in tools if not (shutil.which(tool) or Path(tool).exists())]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: apt-get install {package}")


@pytest.fixture(scope="module")
def peer_plc(tmp_path_factory):
    need("gcc", "/usr/include/modbus/modbus.h", package="gcc libc6-dev libmodbus-dev")
    program = tmp_path_factory.mktemp("peer") / "peer_plc"
    words = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{MCU}", "-I/usr/include/modbus", HERE / "peer_plc.c",
             "-o", program, "-lmodbus"]  # fmt: skip
    subprocess.run([str(word) for word in words], check=True)
    return program


def wanted(part):
    return "fired" if part % 3 == 0 else "passed"


def check(box, told, parts):
    """All that both sides know of the parts is the same, and nothing was judged twice or for another part."""
    outcomes = {registers.OutcomeCode.PASSED: "passed", registers.OutcomeCode.FIRED: "fired",
                registers.OutcomeCode.DEFAULTED: "defaulted"}  # fmt: skip
    theirs = {part: outcomes[code] for part, code in enumerate(told["outcomes"], 1)}
    ours = {event.part_id: event.outcome.value for event in box.of(Settled)}
    assert len(theirs) == parts and ours == theirs
    assert [event.part_id for event in box.of(Triggered)] == list(range(1, parts + 1))
    assert all(outcome in (wanted(part), "defaulted") for part, outcome in theirs.items())
    on_time = sum(outcome != "defaulted" for outcome in theirs.values())
    assert on_time >= 0.8 * parts  # a busy machine may be late for some


@pytest.mark.parametrize(
    ("baud", "parity", "mark"), [(115_200, "none", "N"), (9600, "even", "E"), (38_400, "odd", "O")]
)
def test_a_libmodbus_server_is_judged_part_by_part(make_wire, make_box, run, peer_plc, baud, parity, mark):
    wire = make_wire()
    peer = run(peer_plc, "server", wire.ends[0], UNIT, baud, mark, 25)
    box = make_box(wire.ends[1], "client", baud=baud, parity=parity).start()
    box.wait(lambda: len(box.of(Settled)) == 25)
    told = json.loads(peer.communicate(timeout=PATIENCE_S)[0])
    check(box, told, 25)
    assert told["errors"] == 0 and all(times <= 1 for times in told["writes"])
    assert len(box.of(VerdictAnswered)) >= 20


@pytest.mark.parametrize(("baud", "parity", "mark"), [(115_200, "none", "N"), (9600, "odd", "O")])
def test_a_libmodbus_client_polls_the_box_without_an_error(make_wire, make_box, run, peer_plc, baud, parity, mark):
    wire = make_wire()
    box = make_box(wire.ends[1], "server", baud=baud, parity=parity).start()
    peer = run(peer_plc, "client", wire.ends[0], UNIT, baud, mark, 25)
    box.wait(lambda: len(box.of(Settled)) == 25)
    told = json.loads(peer.communicate(timeout=PATIENCE_S)[0])
    check(box, told, 25)
    assert told["errors"] == 0 and told["torn"] == 0 and told["polls"] > 50


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_wire_with_the_time_of_a_real_one_that_damages_bytes(make_wire, make_box, run, peer_plc, role):
    rng = random.Random(3)

    def spoil(data):
        return bytes(byte ^ 1 << rng.randrange(8) if rng.random() < 0.0005 else byte for byte in data)

    wire = make_wire(baud=38_400, spoil=spoil)
    box = make_box(wire.ends[1], role, baud=38_400).start()
    peer = run(peer_plc, "server" if role == "client" else "client", wire.ends[0], UNIT, 38_400, "N", 15)
    told = json.loads(peer.communicate(timeout=PATIENCE_S)[0])
    box.wait(lambda: len(box.of(Settled)) == 15)
    outcomes = {2: "passed", 3: "fired", 4: "defaulted"}
    for part, code in enumerate(told["outcomes"], 1):
        assert outcomes[code] in (wanted(part), "defaulted")
    assert all(times <= 1 for times in told["writes"])


def test_a_pymodbus_server_is_judged_part_by_part(make_wire, make_box, run):
    pytest.importorskip("pymodbus", reason="pymodbus missing: pip install 'pymodbus>=3.16'")
    wire = make_wire()
    root = Path(registers.__file__).parents[2]
    peer = run(
        sys.executable, HERE / "peer_pymodbus.py", wire.ends[0], UNIT, 12, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert peer.stdout.readline() == "{}\n"
    box = make_box(wire.ends[1], "client").start()
    box.wait(lambda: len(box.of(Settled)) == 12)
    check(box, json.loads(peer.stdout.readline()), 12)


def test_a_pymodbus_client_reads_and_writes_the_map(make_wire, make_box):
    pytest.importorskip("pymodbus", reason="pymodbus missing: pip install 'pymodbus>=3.16'")
    from pymodbus.client import ModbusSerialClient
    from pymodbus.exceptions import ModbusException

    wire = make_wire()
    box = make_box(wire.ends[1], "server").start()
    client = ModbusSerialClient(wire.ends[0], baudrate=115_200, timeout=0.5, retries=0)
    assert client.connect()
    try:
        for read in (client.read_holding_registers, client.read_input_registers):
            words = read(BOX.base, count=BOX.size, device_id=UNIT).registers
            assert registers.BoxBlock.unpack(words).map_version == MAP_VERSION
        assert client.read_holding_registers(BOX.base + 1, count=1, device_id=UNIT).registers == [MAP_VERSION]
        for beat in (1, 2):
            block = PlcBlock(heartbeat=beat, boot_id=9).pack()
            assert not client.write_registers(PLC.base, block, device_id=UNIT).isError()
        assert client.read_holding_registers(PLC.base, count=PLC.size, device_id=UNIT).registers == block
        assert not client.write_register(PLC.address("control"), 1, device_id=UNIT).isError()
        assert client.read_holding_registers(5000, count=1, device_id=UNIT).exception_code == 2
        assert client.read_coils(0, count=1, device_id=UNIT).exception_code == 1
        assert client.write_register(BOX.base, 7, device_id=UNIT).exception_code == 2
        client.write_register(PLC.address("heartbeat"), 3, device_id=0, no_response_expected=True)
        with pytest.raises(ModbusException):
            client.read_holding_registers(0, count=1, device_id=UNIT + 1)
        assert client.read_holding_registers(PLC.base + 1, count=1, device_id=UNIT).registers == [3]
    finally:
        client.close()
    box.wait(lambda: box.of(LinkUp))
    counts = box.port.report()
    assert counts["broadcasts"] == 1 and counts["other_units"] >= 1 and counts["exception_1"] == 1


@pytest.mark.parametrize("kind", ["3", "4"])
def test_mbpoll_reads_the_map(make_wire, make_box, kind):
    need("mbpoll", package="mbpoll")
    wire = make_wire()
    make_box(wire.ends[1], "server").start()
    words = ["mbpoll", "-m", "rtu", "-a", str(UNIT), "-b", "115200", "-P", "none", "-t", kind, "-0", "-r", "0", "-c",
             str(BOX.size), "-1", wire.ends[0]]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    found = dict(line.split(":") for line in done.stdout.splitlines() if line.startswith("["))
    assert int(found["[0]"].split()[0]) == int(found[f"[{BOX.size - 1}]"].split()[0]) == MAP_ID
    assert len(found) == BOX.size


def test_a_wrong_baud_rate_is_named_and_recovered_from(make_wire, make_box, run, peer_plc):
    wire = make_wire()
    wire.spoil = lambda data: bytes(byte * 7 & 0xFF for byte in data[: len(data) // 2])  # as other bit times make it
    run(peer_plc, "server", wire.ends[0], UNIT, 115_200, "N", 400)
    box = make_box(wire.ends[1], "client").start()
    until(lambda: box.port.report().get("timeout", 0) >= 2)
    wire.spoil = lambda data: (
        bytes(byte ^ 0xFF for byte in data) if data[:1] == bytes((UNIT,)) and len(data) > 9 else data
    )
    until(lambda: "check baud rate and parity at both ends" in box.port.state()[1])
    wire.spoil = lambda data: data
    box.wait(lambda: len(box.of(Triggered)) > 2)


def test_a_plc_of_another_unit_id_is_not_believed(make_wire, make_box, run, peer_plc):
    wire = make_wire()
    run(peer_plc, "server", wire.ends[0], UNIT + 1, 115_200, "N", 5)
    box = make_box(wire.ends[1], "client").start()
    until(lambda: f"unit {UNIT} does not answer" in box.port.state()[1])
    assert not box.events


def test_a_port_owned_by_another_process_says_so(make_wire, make_box):
    wire = make_wire()
    holder = (
        "import fcntl, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\nprint('held', flush=True)\nsys.stdin.read()"
    )
    words = [sys.executable, "-c", holder, wire.ends[0]]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PortError, match="in use by another process"):
            make_box(wire.ends[0], "client").start()
        other.stdin.close()
    make_box(wire.ends[0], "client").start()


# The two traps


class SlowServer:
    """A server on a pty that answers each request after a delay of its own, from a thread; it counts what it obeyed."""

    def __init__(self, delays_s):
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        self.delays = deque(delays_s)
        self.reads = Counter()
        self.writes = []
        self.box_writes = 0
        self.beat = 0
        self.timers = []
        self._stop_r, self._stop_w = os.pipe()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def read(self, address, count):
        self.reads[address, count] += 1
        self.beat += 1
        if (address, count) != (PLC.base, PLC.size):
            raise Refused(ExceptionCode.ILLEGAL_ADDRESS)
        return PlcBlock(heartbeat=self.beat, boot_id=1, encoder_now=self.beat).pack()

    def write(self, address, values):
        self.writes.append((address, tuple(values)))

    def _run(self):
        server = RtuServer(UNIT, Line(), self)
        while True:
            ready, _, _ = select.select([self.master, self._stop_r], [], [])
            if self._stop_r in ready:
                return
            server.feed(os.read(self.master, 4096), time.monotonic_ns())
            reply = server.take_output()
            if reply:
                delay_s = self.delays.popleft() if self.delays else 0.0
                self.timers.append(threading.Timer(delay_s, os.write, (self.master, reply)))
                self.timers[-1].start()

    def close(self):
        os.write(self._stop_w, b"!")
        self.thread.join(PATIENCE_S)
        for timer in self.timers:
            timer.join(PATIENCE_S)
        for fd in (self.master, self.slave, self._stop_r, self._stop_w):
            os.close(fd)


@pytest.fixture
def make_slow():
    servers = []

    def make(delays_s):
        servers.append(SlowServer(delays_s))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_a_reply_that_comes_just_after_its_timeout_shifts_nothing(make_slow, make_box):
    client = RtuClient(Line())
    client.ask(read_request(UNIT, PLC.base, PLC.size), 0)
    timeout_s = client.next_due_ns() / 1e9
    server = make_slow([0.0, timeout_s + 0.02, 0.0, timeout_s + 0.001, timeout_s + 0.03, 0.0])
    box = make_box(server.path, "client").start(arm=False)
    until(lambda: box.port.report().get("blocks", 0) >= 8)
    report = box.port.report()
    assert report["timeout"] >= 2 and report["late_bytes"] >= 2 * (5 + 2 * PLC.size)
    assert "stale_blocks" not in report and "torn_blocks" not in report
    assert not box.of(LinkRefused)


def test_a_write_whose_reply_is_lost_acts_once(make_wire, make_box, run, peer_plc):
    wire = make_wire()
    dropped = []

    def spoil(data):
        """Each third acknowledgement of a write is lost: the box must write again, the PLC must not act again."""
        if data[:2] == bytes((UNIT, 16)) and len(data) == 8:
            dropped.append(len(dropped) % 3 == 0)
            return b"" if dropped[-1] else data
        return data

    wire.spoil = spoil
    peer = run(peer_plc, "server", wire.ends[0], UNIT, 115_200, "N", 15)
    box = make_box(wire.ends[1], "client").start()
    told = json.loads(peer.communicate(timeout=PATIENCE_S)[0])
    box.wait(lambda: len(box.of(Settled)) == 15)
    assert sum(dropped) >= 3 and all(times <= 1 for times in told["writes"])
    assert all(code in (4, 3 if part % 3 == 0 else 2) for part, code in enumerate(told["outcomes"], 1))


# The soft PLC

MB2HAL = """\
[MB2HAL_INIT]
INIT_DEBUG=1
HAL_MODULE_NAME=mb2hal
SLOWDOWN=0.0
TOTAL_TRANSACTIONS=3
[TRANSACTION_00]
LINK_TYPE=serial
SERIAL_PORT={port}
SERIAL_BAUD=115200
SERIAL_BITS=8
SERIAL_PARITY=none
SERIAL_STOP=1
SERIAL_DELAY_MS=2
MB_SLAVE_ID={unit}
FIRST_ELEMENT={box}
NELEMENTS={box_size}
MB_TX_CODE=fnct_03_read_holding_registers
MAX_UPDATE_RATE=50.0
HAL_TX_NAME=box
[TRANSACTION_01]
MB_TX_CODE=fnct_04_read_input_registers
FIRST_ELEMENT={box}
NELEMENTS={box_size}
HAL_TX_NAME=box4
[TRANSACTION_02]
MB_TX_CODE=fnct_16_write_multiple_registers
FIRST_ELEMENT={beat}
NELEMENTS=2
HAL_TX_NAME=plc
"""
HAL = """\
loadrt threads name1=plc period1=1000000
start
loadusr -W mb2hal config={folder}/box.ini
loadusr -w sleep {seconds}
"""


def test_a_soft_plc_polls_the_box_without_an_error(make_wire, make_box, run):
    """LinuxCNC will not run as root; it is given a user id of its own and a folder that this user may write."""
    need("halrun", "mb2hal", "setpriv", package="linuxcnc-uspace util-linux")
    if os.geteuid() != 0:
        pytest.skip("needs root, to give the soft PLC a user of its own")
    seconds = float(os.environ.get("EDGE_SOFT_PLC_S", "10"))
    wire = make_wire()
    box = make_box(wire.ends[1], "server").start(arm=False)
    folder = Path(tempfile.mkdtemp(prefix="soft-plc-"))  # tmp_path is closed to other users
    user = 12_345
    try:
        os.chown(folder, user, user)
        os.chown(wire.ends[0], user, user)
        words = {"port": wire.ends[0], "unit": UNIT, "box": BOX.base, "box_size": BOX.size,
                 "beat": PLC.address("heartbeat")}  # fmt: skip
        (folder / "box.ini").write_text(MB2HAL.format(**words))
        (folder / "run.hal").write_text(HAL.format(folder=folder, seconds=seconds + 3))
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "env", f"HOME={folder}"]
        plc = run(*as_user, "halrun", "-f", folder / "run.hal", stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                  cwd=folder)  # fmt: skip
        until(lambda: box.port.report().get("requests", 0) > 20)
        time.sleep(seconds)  # what is measured is that it goes on
        pins = subprocess.run([str(word) for word in (*as_user, "halcmd", "-s", "show", "pin", "mb2hal")],
                              capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout  # fmt: skip
        report = box.port.report()
        plc.wait(PATIENCE_S + seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    values = {line.split()[4]: line.split()[3] for line in pins.splitlines() if len(line.split()) >= 5}
    errors = {name: value for name, value in values.items() if name.endswith("num_errors")}
    assert len(errors) == 3 and set(errors.values()) == {"0"}, pins
    assert {values["mb2hal.box.00.int"], values["mb2hal.box4.12.int"]} == {str(MAP_ID)}
    assert report["requests"] > 20 * seconds and report.get("bad_crc", 0) == 0
