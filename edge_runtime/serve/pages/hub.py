"""From one who knows to all who look: what is published is kept once, and each viewer has one place for each kind of
event, in which the newest wins. A viewer that is slow skips, and holds up nobody.

For one thread: the event loop's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

MOST_VIEWERS = 64  # a plant has fewer screens; who comes then is told to wait


class TooManyViewers(Exception):
    """All places are taken."""


class Viewer:
    """One stream. `wait` gives what is new for it."""

    def __init__(self) -> None:
        self._new: dict[str, str] = {}
        self._has_new = asyncio.Event()

    def put(self, kind: str, document: str) -> None:
        self._new[kind] = document
        self._has_new.set()

    def close(self) -> None:
        self._new.clear()
        self._has_new.set()

    async def wait(self) -> dict[str, str]:
        """kind -> document, JSON; waits until there is one. Empty when the box says goodbye."""
        await self._has_new.wait()
        self._has_new.clear()
        new, self._new = self._new, {}
        return new


class Hub:
    """changed: called when the first viewer comes, and when the last has gone."""

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self._viewers: set[Viewer] = set()
        self._last: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._viewers)

    def enter(self) -> Viewer:
        """A viewer that has what was published last. Raises TooManyViewers."""
        if len(self._viewers) >= MOST_VIEWERS:
            raise TooManyViewers(f"{MOST_VIEWERS} pages look at this box already: close some")
        viewer = Viewer()
        for kind, document in self._last.items():
            viewer.put(kind, document)
        self._viewers.add(viewer)
        if len(self._viewers) == 1:
            self._changed(True)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Safe to call twice."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            if not self._viewers:
                self._last.clear()  # whoever comes next must not take what is old for what is
                self._changed(False)

    def close(self) -> None:
        """End every stream."""
        for viewer in self._viewers:
            viewer.close()

    def publish(self, kind: str, document: dict[str, Any]) -> None:
        """Tell it to everybody, unless it is what they know."""
        text = json.dumps(document, separators=(",", ":"), allow_nan=False)
        if self._last.get(kind) != text:
            self._last[kind] = text
            for viewer in self._viewers:
                viewer.put(kind, text)
