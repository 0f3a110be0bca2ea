"""Looks for signed releases of the model at work, and fetches them where the station says so; it installs none.

A thread of its own: a slow server holds nothing else up. A repository that cannot be reached is normal on a box that is
offline most of the time; one that must not be trusted, or is too old, is told as event and in health.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.events import EventKind
from edge_runtime.flow.components import Health, State

if TYPE_CHECKING:
    from edge_runtime.modelstore.updates.seen import Utc

log = logging.getLogger(__name__)

FIRST_S = 60.0  # after the start: links and the clock come up meanwhile
RETRY_S = 900.0  # after a round that failed, unless the next one is due before
STOP_WAIT_S = 1.0  # a read may wait longer; it holds nothing that another process needs
Tell = Callable[[EventKind, Mapping[str, Any]], None]


class UpdateWatch:
    """A component. clock: the time where somebody keeps it right; see seen.py."""

    name = "updates"

    def __init__(self, cfg: EdgeConfig, tell: Tell, clock: Utc | None = None, first_s: float = FIRST_S) -> None:
        self._cfg, self._tell, self._clock, self._first_s = cfg, tell, clock, first_s
        self._thread: threading.Thread | None = None
        self._must_stop = threading.Event()
        self._report: dict[str, Any] = {"state": "not looked yet", "model": "", "release": None, "trouble": ""}
        self._told: tuple[str, ...] = ()
        self._is_refused = False
        self.rounds = 0

    def start(self) -> None:
        self._must_stop.clear()
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread:
            self._must_stop.set()
            thread.join(STOP_WAIT_S)

    def health(self) -> Health:
        thread = self._thread
        if thread is None:
            return Health(State.STOPPED)
        if not thread.is_alive():
            return Health(State.FAILED, "the thread of updates ended; restart the uplink")
        trouble = str(self._report["trouble"])
        return Health(State.DEGRADED if self._is_refused else State.OK, trouble or str(self._report["state"]))

    def report(self) -> Mapping[str, Any]:
        return dict(self._report)

    def _run(self) -> None:
        wait_s = self._first_s
        while not self._must_stop.wait(wait_s):
            every_s = self._cfg.updates.every_h * 3600 * random.uniform(0.9, 1.1)  # a fleet does not ask in one second
            wait_s = every_s if self._round() else min(every_s, RETRY_S)
            self.rounds += 1

    def _round(self) -> bool:
        try:
            self._look()
        except EdgeError as err:
            self._failed(err)
            return False
        except Exception as err:  # the outermost loop of this thread
            log.exception("updates.fault")
            self._report |= {"trouble": f"looking for updates failed: {type(err).__name__}: {err}"}
            return False
        self._is_refused = False
        self._report["trouble"] = ""
        return True

    def _look(self) -> None:
        # tuf and cryptography, 20 MB: not for a box that looks for no updates
        from edge_runtime.modelstore.updates.open_source import open_source
        from edge_runtime.modelstore.updates.seen import synced_utc
        from edge_runtime.modelstore.updates.update import Updates, model_wanted

        wanted = self._cfg.updates
        source = open_source(wanted.source, ca_file=wanted.ca_file, proxy=wanted.proxy)
        updates = Updates(self._cfg, source, self._clock or synced_utc)
        with updates.locked():
            look = updates.look(model_wanted(self._cfg))
            offer = look.offer
            if offer is None or not look.is_new:
                self._report |= {"state": "nothing new", "model": "", "release": None}
                return
            if wanted.fetch == "download":
                updates.fetch(offer, should_stop=self._must_stop.is_set)
        kind = EventKind.UPDATE_FETCHED if wanted.fetch == "download" else EventKind.UPDATE_AVAILABLE
        self._report |= {"state": kind.says, "model": offer.label, "release": offer.release}
        about = {"model": offer.label, "release": offer.release, "digest": offer.digest, "source": source.where}
        self._once((kind, offer.sha256), kind, about)

    def _failed(self, err: EdgeError) -> None:
        from edge_runtime.modelstore.updates.trust import UpdateRefused

        self._report["trouble"] = str(err)
        log.warning("updates.trouble %s", err)
        self._is_refused = isinstance(err, UpdateRefused)
        if isinstance(err, UpdateRefused):
            about = {"source": self._cfg.updates.source, "cause": err.cause, "why": err.what}
            self._once((EventKind.UPDATE_REFUSED, err.cause), EventKind.UPDATE_REFUSED, about)

    def _once(self, what: tuple[str, ...], kind: EventKind, about: Mapping[str, Any]) -> None:
        """The same thing at each look is one event."""
        if what != self._told:
            self._told = what
            self._tell(kind, about)
