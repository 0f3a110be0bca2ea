"""Real sound paths without sound hardware: an ALSA device fed through a FIFO, and a PulseAudio of one's own.

The ALSA file plugin reads the FIFO at the pace at which it is fed; the feeder writes whole 30 ms frames, because
shorter writes make the plugin play stale samples. A feeder that ended makes the reader run free, none at all makes
open block, a stopped one blocks it in the middle: the three ways in which real devices die.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.waiting import until

RATE_HZ = 16_000
TONE_HZ = 440
ALSA_BASE = Path("/usr/share/alsa/alsa.conf")

FIFO_CONF = """<{base}>
pcm.benchmic {{
    type file
    slave.pcm "null"
    file "/dev/null"
    infile "{fifo}"
    format "raw"
}}
"""
PULSE_CONF = """<{base}>
pcm.benchmic {{ type pulse  device "line.monitor" }}
ctl.benchmic {{ type pulse }}
"""
PULSE_SCRIPT = """.fail
load-module module-native-protocol-unix auth-anonymous=1 socket={folder}/native
load-module module-null-sink sink_name=line rate=16000 channels=1 format=s16le
load-module module-sine sink=line frequency={tone}
"""
PULSE_OPTIONS = (
    "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--realtime=no", "--high-priority=no",
)  # fmt: skip

FEEDER = """
import fcntl, os, sys, time
import numpy as np
fifo, rate, tone = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # read too: a reader that comes and goes does not break the pipe
fcntl.fcntl(fd, 1031, 4096)  # F_SETPIPE_SZ: as small a buffer as a sound card's
print("feeding", flush=True)
n, size, begin = 0, rate * 30 // 1000, time.monotonic()
while True:
    t = (n * size + np.arange(size)) / rate
    try:
        os.write(fd, (8000 * np.sin(2 * np.pi * tone * t)).astype("<i2").tobytes())
    except BlockingIOError:
        pass  # nobody reads: an overrun
    n += 1
    late = time.monotonic() - begin - n * 0.03
    if late < 0:
        time.sleep(-late)
    elif late > 0.3:
        begin += late  # it was stopped: what was missed is missed
"""


def need_pyaudio() -> None:
    if find_spec("pyaudio") is None:
        pytest.skip("PyAudio is not installed: apt install portaudio19-dev gcc, pip install 'edge-runtime[voice]'")
    if not ALSA_BASE.exists():
        pytest.skip("no ALSA configuration: apt install libasound2-data")


class FifoMicrophone:
    """The ALSA device "benchmic" behind a FIFO."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        need_pyaudio()
        self._fifo = folder / "mic.fifo"
        os.mkfifo(self._fifo)
        conf = folder / "asound.conf"
        conf.write_text(FIFO_CONF.format(base=ALSA_BASE, fifo=self._fifo))
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(conf))
        self._feeder: subprocess.Popen[bytes] | None = None

    def bring(self) -> None:
        command = [sys.executable, "-c", FEEDER, str(self._fifo), str(RATE_HZ), str(TONE_HZ)]
        self._feeder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._feeder.stdout is not None
        assert self._feeder.stdout.readline() == b"feeding\n"

    def take_away(self) -> None:
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.kill()
            feeder.wait()
            if feeder.stdout is not None:
                feeder.stdout.close()

    def freeze(self) -> None:
        assert self._feeder is not None
        self._feeder.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._feeder is not None
        self._feeder.send_signal(signal.SIGCONT)


class PulseMicrophone:
    """The ALSA device "benchmic" behind the monitor of a sink of a private PulseAudio, on which a sine plays."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        need_pyaudio()
        if shutil.which("pulseaudio") is None:
            pytest.skip("no PulseAudio: apt install pulseaudio")
        if not any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
            pytest.skip("no PulseAudio plugin of ALSA: apt install libasound2-plugins")
        self._folder = folder
        conf = folder / "asound.conf"
        conf.write_text(PULSE_CONF.format(base=ALSA_BASE))
        (folder / "line.pa").write_text(PULSE_SCRIPT.format(folder=folder, tone=TONE_HZ))
        (folder / "home").mkdir()
        folder.chmod(0o700)
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(conf))
        monkeypatch.setenv("PULSE_SERVER", f"unix:{folder}/native")
        monkeypatch.setenv("PULSE_COOKIE", str(folder / "cookie"))
        self._daemon: subprocess.Popen[bytes] | None = None

    def bring(self) -> None:
        folder = str(self._folder)
        env = {**os.environ, "HOME": f"{folder}/home", "XDG_RUNTIME_DIR": folder, "PULSE_RUNTIME_PATH": folder}
        (self._folder / "native").unlink(missing_ok=True)
        with (self._folder / "pulse.log").open("ab") as out:
            self._daemon = subprocess.Popen(
                ["pulseaudio", *PULSE_OPTIONS, "-F", f"{folder}/line.pa"], env=env, stdout=out, stderr=out
            )
        until((self._folder / "native").exists, 8.0, (self._folder / "pulse.log").read_text)

    def take_away(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            daemon.kill()
            daemon.wait()
