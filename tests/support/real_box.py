"""`edge-runtime run` on the simulated station, for whoever reads what a real box says of itself.

real_status      fixture, once a session: what a station with every component on said after a few parts
running_box      one that runs, for as long as a test needs it
telling          a control socket that answers with a status; take `real_status` and `dataclasses.replace` what the
                 test is about, so that no test makes up a document of its own
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.errors import DeviceError
from edge_runtime.core.status import Status
from edge_runtime.process.ask_status import ask_status
from edge_runtime.process.control import ControlServer, ask

LIMIT_S = 120.0  # for anything that a box is waited for: it needs ten times the usual on a machine under load
LIGHT = ("camera.width=320", "camera.height=180", "world.parts_per_s=10")
QUIET_VOICE = ('voice.wake=""', 'voice.grammar="off"', "voice.window_s=1")


# What a real run said before its status had types; whoever reads it finds all of this in every later one.
BEFORE = Path(__file__).parents[1] / "data" / "status" / "run_0.1.0.json"


class RealBox:
    """One daemon in a folder of its own. `socket` is its control socket."""

    def __init__(self, state: Path, *settings: str) -> None:
        self.state, self.socket = state, state / "control.sock"
        self.settings = [f'recording.state_dir="{state}"', *LIGHT, *settings]

    def command(self, *words: str) -> list[str]:
        """An `edge-runtime` command for this station."""
        given = [word for one in self.settings for word in ("--set", one)]
        return [sys.executable, "-m", "edge_runtime", "--config", "embedded", *given, *words]

    def start(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command("run", "--json"), stdout=subprocess.PIPE, stderr=log, text=True
            )

    @property
    def log(self) -> Path:
        return self.state / "log"

    def look(self) -> Status:
        return ask_status(self.socket, LIMIT_S)

    def until(self, claim: Callable[[Status], object]) -> Status:
        """The first status of which `claim` is true."""
        limit, shot = time.monotonic() + LIMIT_S, None
        while time.monotonic() < limit:
            with contextlib.suppress(DeviceError):
                shot = self.look()
                if claim(shot):
                    return shot
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                break
        raise AssertionError(f"never came true: {shot}\n{self.log.read_text()[-3000:]}")

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """It holds its socket and its devices and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> dict[str, Any]:
        """Its summary."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=LIMIT_S)
        summary: dict[str, Any] = json.loads(out)
        return summary

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def running_box(state: Path, *settings: str) -> Iterator[RealBox]:
    """A box that has seen a part."""
    box = RealBox(state, *settings)
    box.start()
    try:
        box.until(lambda shot: shot.parts)
        yield box
    finally:
        box.kill()


@contextlib.contextmanager
def telling(socket: Path, status: Status) -> Iterator[None]:
    """A control socket at which a box says this of itself."""
    server = ControlServer(socket, {"status": lambda _: status.to_json()})
    server.start()
    try:
        yield
    finally:
        server.stop()


def told_all(shot: Status) -> object:
    """Each component has done something, and what a busy machine held up is well again."""
    return shot.is_well and shot.voice and shot.voice.requests and shot.report.sound and shot.report.sound.judged


@pytest.fixture(scope="session")
def real_answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON document of a real box with every component on, when all of them had something to tell."""
    folder = tmp_path_factory.mktemp("real-box")
    with running_box(folder / "state", *everything(folder)) as box:
        ask(box.socket, "listen", by="test")
        box.until(told_all)
        answer: dict[str, Any] = ask(box.socket, "status", LIMIT_S)
        assert box.end()["unaccounted"] == 0
    return answer


@pytest.fixture(scope="session")
def real_status(real_answer: dict[str, Any]) -> Status:
    return Status.from_json(real_answer)


def everything(folder: Path) -> list[str]:
    """Settings of a station with voice, machine sound and evidence. The machine hums."""
    from tests.support.hum import learn_hum, write_hum

    write_hum(folder / "hum.wav", seconds=20.0)
    bundle = learn_hum(folder / "state" / "models" / "hum" / "1")
    heard = ['microphone.driver="wav"', f'microphone.file="{folder / "hum.wav"}"', "microphone.gap_ms=0"]
    return [*heard, *QUIET_VOICE, f'sound.model="{bundle}"', "recording.evidence=true"]
