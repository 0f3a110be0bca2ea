"""The life of `edge-runtime serve`: start what it serves, tell systemd, end cleanly within seconds of SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.flow.components import Component, Health, State

log = logging.getLogger(__name__)

TICK_S = 0.5
STALE_NS = 10 * SECOND  # a loop that has not turned for so long hangs


class Notifier(Protocol):
    """Words to the service manager."""

    def ready(self, status: str) -> None: ...
    def alive(self, status: str) -> None: ...
    def status(self, status: str) -> None: ...
    def stopping(self) -> None: ...


class ServeDaemon:
    """Runs components, the first one first, until a signal or `stop`."""

    def __init__(self, components: Sequence[Component], notifier: Notifier, clock: Clock = monotonic_ns) -> None:
        self._components = components
        self._notifier = notifier
        self._clock = clock
        self._asked_to_stop = threading.Event()

    def run(self, is_ready: Callable[[], None] = lambda: None) -> None:
        """Raises EdgeError when a component cannot start; those that did are stopped again."""
        started: list[Component] = []
        before = self._catch_signals()
        try:
            for component in self._components:
                component.start()
                started.append(component)
            self._notifier.ready(self._line())
            log.info("ready %s", self._line())
            is_ready()
            while not self._asked_to_stop.wait(TICK_S):
                self._feed()
            self._notifier.stopping()
        finally:
            while started:
                started.pop().stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """From any thread."""
        self._asked_to_stop.set()

    def healths(self) -> Mapping[str, Health]:
        return {component.name: component.health() for component in self._components}

    def _feed(self) -> None:
        """Alive is told by progress: a component whose loop hangs is not fed for."""
        now_ns = self._clock()
        turned = {name: health.progress_ns for name, health in self.healths().items()}
        stuck = [name for name, at_ns in turned.items() if at_ns is not None and now_ns - at_ns > STALE_NS]
        if stuck:
            log.critical("watchdog.withheld %s", " ".join(stuck))
            self._notifier.status(f"hung: {', '.join(stuck)}")
        else:
            self._notifier.alive(self._line())

    def _line(self) -> str:
        told = self.healths().items()
        return "; ".join(
            f"{name} {health.state}" + (f" ({health.detail})" if health.detail else "") for name, health in told
        )

    def _catch_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        numbers = (signal.SIGTERM, signal.SIGINT)
        return {number: signal.signal(number, lambda *_: self._asked_to_stop.set()) for number in numbers}


def overall(healths: Mapping[str, Health]) -> State:
    """The worst of all."""
    order = [State.FAILED, State.DEGRADED, State.STARTING, State.STOPPED, State.OK]
    return min((health.state for health in healths.values()), key=order.index, default=State.OK)
