"""What is told of serial ports, from a made-up /sys and a real pty."""

import os
import subprocess
import sys

import pytest

from firmware_bridge.adapters import latency_ms, list_adapters, user_of


@pytest.fixture
def machine(tmp_path):
    """A /sys/class/tty with an FTDI adapter, an on-board port that is not there, and a console."""
    usb = tmp_path / "devices" / "usb1" / "1-2"
    port = usb / "1-2:1.0" / "ttyUSB0"
    port.mkdir(parents=True)
    (usb / "product").write_text("FT232R USB UART\n")
    (port / "latency_timer").write_text("16\n")
    (tmp_path / "drivers" / "ftdi_sio").mkdir(parents=True)
    (tmp_path / "drivers" / "serial8250").mkdir(parents=True)
    (port / "driver").symlink_to(tmp_path / "drivers" / "ftdi_sio")
    tty = tmp_path / "tty"
    (tty / "ttyUSB0").mkdir(parents=True)
    (tty / "ttyUSB0" / "device").symlink_to(port)
    (tty / "ttyS9" / "device").mkdir(parents=True)
    (tty / "ttyS9" / "device" / "driver").symlink_to(tmp_path / "drivers" / "serial8250")
    (tty / "ttyS9" / "type").write_text("0\n")
    (tty / "tty1").mkdir()
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    (by_id / "usb-FTDI_FT232R_A1-if00-port0").symlink_to("/dev/ttyUSB0")
    return tty, by_id


def test_an_adapter_is_told_with_its_lasting_name_and_its_latency(machine):
    (adapter,) = list_adapters(*machine)
    assert (adapter.path, adapter.driver, adapter.product) == ("/dev/ttyUSB0", "ftdi_sio", "FT232R USB UART")
    assert adapter.best_name.endswith("usb-FTDI_FT232R_A1-if00-port0")
    assert adapter.latency_ms == 16
    assert adapter.used_by == ""


def test_a_machine_without_ports_has_none(tmp_path):
    assert list_adapters(tmp_path / "nothing", tmp_path / "nothing") == []


def test_a_pty_has_no_latency_timer():
    master, slave = os.openpty()
    try:
        assert latency_ms(os.ttyname(slave)) is None
    finally:
        os.close(master)
        os.close(slave)


def test_the_process_that_has_a_port_open_is_named():
    master, slave = os.openpty()
    name = os.ttyname(slave)
    script = "import sys; port = open(sys.argv[1], 'rb+', buffering=0); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "open\n"
        assert user_of(name).split()[0] == str(holder.pid)
    finally:
        holder.communicate("")
        os.close(master)
        os.close(slave)
