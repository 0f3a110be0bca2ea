"""The life of `edge-runtime serve`: start what it serves, tell systemd, end cleanly within seconds of SIGTERM."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.flow.components import Component
from edge_runtime.process.daemon_loop import DaemonLoop, hung, settle_memory
from edge_runtime.process.sd_notify import Notifier

log = logging.getLogger(__name__)

STALE_NS = 10 * SECOND  # a loop that has not turned for so long hangs


class ServeDaemon:
    """Runs components, the first one first, until a signal or `stop`."""

    def __init__(
        self, components: Sequence[Component], notifier: Notifier | None = None, clock: Clock = monotonic_ns
    ) -> None:
        self._components = components
        self._clock = clock
        self._loop = DaemonLoop(self.line, self.stuck, notifier=notifier)

    def run(self) -> None:
        """Raises EdgeError when a component cannot start; those that did are stopped again."""
        with self._loop, ExitStack() as started:
            for component in self._components:
                component.start()
                started.callback(component.stop)
            settle_memory()
            self._loop.ready()
            log.info("ready %s", self.line())
            self._loop.turn()

    def stop(self) -> None:
        """From any thread."""
        self._loop.stop()

    def stuck(self) -> list[str]:
        return hung({component.name: component.health() for component in self._components}, self._clock(), STALE_NS)

    def line(self) -> str:
        told = ((component.name, component.health()) for component in self._components)
        return "; ".join(
            f"{name} {health.state}" + (f" ({health.detail})" if health.detail else "") for name, health in told
        )
