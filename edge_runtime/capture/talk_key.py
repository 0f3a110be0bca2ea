"""A talk key on a GPIO line: whoever has gloves on presses it instead of saying the wake word.

The only file that imports gpiod (extra `voice`). The key connects the line to ground; the pull-up is ours.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import DeviceError
from edge_runtime.flow.components import Health, State

log = logging.getLogger(__name__)

DEBOUNCE = timedelta(milliseconds=20)
WAIT = timedelta(milliseconds=200)  # how soon a stop is noticed


def parse(where: str) -> tuple[str, int]:
    """Device and line of CHIP:LINE."""
    chip, _, line = where.rpartition(":")
    return chip if chip.startswith("/") else f"/dev/{chip}", int(line)


def check_chip(chip: str) -> None:
    """Whether a line of it can be asked for; none is. Raises DeviceError."""
    if find_spec("gpiod") is None:
        raise DeviceError("voice.talk_gpio needs the package gpiod", "pip install 'edge-runtime[voice]'")
    if not Path(chip).exists():
        found = ", ".join(sorted(there.name for there in Path("/dev").glob("gpiochip*"))) or "none"
        raise DeviceError(f"no GPIO chip {chip} (found: {found})", "set voice.talk_gpio")
    if not os.access(chip, os.R_OK | os.W_OK):
        raise DeviceError(f"GPIO chip {chip} may not be opened", "add the user to its group: usermod -aG gpio USER")


class TalkKey:
    """`where` is CHIP:LINE, such as `gpiochip0:17`. `pressed` is called on the key's own thread and must be quick."""

    name = "talk_key"

    def __init__(self, where: str, pressed: Callable[[], object]) -> None:
        self._chip, self._line = parse(where)
        self._pressed = pressed
        self._request: Any = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._count = 0

    def start(self) -> None:
        """Raises DeviceError when the line cannot be had."""
        check_chip(self._chip)
        import gpiod
        from gpiod.line import Bias, Edge

        settings = gpiod.LineSettings(edge_detection=Edge.FALLING, bias=Bias.PULL_UP, debounce_period=DEBOUNCE)
        try:
            self._request = gpiod.request_lines(self._chip, {self._line: settings}, consumer="edge-runtime")
        except (OSError, ValueError) as err:
            raise DeviceError(f"cannot use line {self._line} of {self._chip}: {err}", "set voice.talk_gpio") from err
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="talk-key", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout=1.0)
        request, self._request = self._request, None
        if request is not None:
            request.release()

    def health(self) -> Health:
        return Health(State.OK if self._thread and self._thread.is_alive() else State.STOPPED)

    def report(self) -> Mapping[str, Any]:
        return {"pressed": self._count}

    def _watch(self) -> None:
        request = self._request
        while not self._stop.is_set():
            try:
                if request.wait_edge_events(WAIT):
                    self._count += len(request.read_edge_events())
                    self._pressed()
            except OSError as err:
                log.error("talk_key.lost %s", err)
                return
