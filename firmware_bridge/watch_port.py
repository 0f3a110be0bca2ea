"""A `watch` on a real port: opened for as long as somebody looks, in the caller's own thread."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from firmware_bridge.serial_device import READ_BYTES, PortError, open_serial
from firmware_bridge.watch import News, Watch

TICK_S = 0.005


def look(
    path: str,
    watch: Watch,
    seconds: float,
    *,
    baud: int,
    parity: str = "none",
    on_news: Callable[[News], None] | None = None,
    is_enough: Callable[[], bool] | None = None,
) -> None:
    """Watch for some seconds, or until it is enough. Raises PortError when the port cannot be opened, or is pulled."""
    port = open_serial(path, baud, parity=parity)
    try:
        fd = port.fileno()
        watch.opened(time.monotonic_ns())
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (is_enough is not None and is_enough()):
            _turn(fd, path, watch)
            for news in watch.take_news():
                if on_news is not None:
                    on_news(news)
    finally:
        port.close()


def _turn(fd: int, path: str, watch: Watch) -> None:
    try:
        out = watch.take_output()
        if out:
            os.write(fd, out)
        readable = select.select([fd], [], [], TICK_S)[0]
        data = os.read(fd, READ_BYTES) if readable else None
    except BlockingIOError:
        data = None
    except OSError as err:
        raise PortError(f"port {path} is gone: {err}") from err
    if data == b"":
        raise PortError(f"port {path} is gone: check the cable")
    if data:
        watch.feed(data, time.monotonic_ns())
    watch.tick(time.monotonic_ns())
