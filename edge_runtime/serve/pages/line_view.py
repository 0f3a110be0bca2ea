"""What the pages know of the line, asked once for all who look, and only while somebody looks.

Three looks, each at its own pace: the part to look at (5 a second), the status document (1 a second), the journal (1 a
second). `run` is asked on its control socket and encodes a picture for each look at a part; without a viewer it is
asked for nothing. What blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_runtime.core.errors import DeviceError, EdgeError, ProtocolError
from edge_runtime.core.part_view import PartView, WaitingView
from edge_runtime.core.typed_json import from_json, to_json
from edge_runtime.process.ask_status import ask_status, silence_of
from edge_runtime.process.control import ask
from edge_runtime.serve.pages.documents import LineLook, PartLook, WaitingLook
from edge_runtime.serve.pages.hub import Hub
from edge_runtime.serve.pages.looks import AboutStation, look_of, look_of_silence, part_look
from edge_runtime.serve.pages.names import Names
from edge_runtime.serve.pages.pictures import Picture
from edge_runtime.serve.pages.shift import Shift

log = logging.getLogger(__name__)

PART_EVERY_S, STATUS_EVERY_S, SHIFT_EVERY_S = 0.2, 1.0, 1.0
ANSWER_S = 2.0  # a box that takes longer is told as one that does not answer
PEOPLE_DECIDE = ("human_only", "partial")  # degrees with which parts wait for a person
NOBODY_WAITS = WaitingLook("", 0, 0, 0, "", (), 0, 0)
VIEWS_KEPT = 40  # pictures of the last 8 s: a tab may ask for one after the next has come


class LineView:
    """All but `stop` within the event loop."""

    def __init__(self, socket: Path, state: Path, journal: Path, shifts: Sequence[str], about: AboutStation) -> None:
        self._socket = socket
        self._about = about
        self._shift = Shift(journal, shifts)
        self._names = Names(state, journal)
        self._views: OrderedDict[str, tuple[Picture | None, Picture | None]] = OrderedDict()
        self._after = 0
        self._waiting = ""  # the part that waits for a person
        self._people_decide = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asking = ThreadPoolExecutor(2, "page-ask")
        self._reading = ThreadPoolExecutor(1, "page-journal")  # what it remembers belongs to one thread
        self._working = ThreadPoolExecutor(3, "page-work")
        self.hub = Hub(self._watched)

    def stop(self) -> None:
        """From any thread; safe to call twice."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # the loop has ended meanwhile, and the streams with it
                self._loop.call_soon_threadsafe(self._say_goodbye)
        for pool in (self._asking, self._reading, self._working):
            pool.shutdown(wait=False, cancel_futures=True)

    def _say_goodbye(self) -> None:
        self._end_tasks()
        self.hub.close()

    # -- looking -------------------------------------------------------------------------------------------------------

    def _watched(self, is_watched: bool) -> None:
        self._end_tasks()
        self._loop = asyncio.get_running_loop()
        if is_watched:
            looks = (
                (PART_EVERY_S, self._look_at_part),
                (PART_EVERY_S, self._look_who_waits),
                (STATUS_EVERY_S, self._look_at_status),
                (SHIFT_EVERY_S, self._look_at_shift),
            )
            self._tasks = [asyncio.create_task(_again_and_again(every_s, look)) for every_s, look in looks]

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _look_at_part(self) -> None:
        with suppress(EdgeError):  # the status says why
            view = await self._run(self._asking, self._ask_part)
            if view is not None:
                self.hub.publish("part", to_json(view))

    async def _look_who_waits(self) -> None:
        if not self._people_decide and not self._waiting:
            return
        with suppress(EdgeError):
            self.hub.publish("waiting", to_json(await self._run(self._asking, self._ask_waiting)))

    async def _look_at_status(self) -> None:
        self.hub.publish("line", to_json(await self.look()))

    async def _look_at_shift(self) -> None:
        self.hub.publish("shift", to_json(await self._run(self._reading, self._shift.look)))

    async def look(self) -> LineLook:
        """How the line is, whether it answers or not."""
        try:
            status = await self._run(self._asking, lambda: ask_status(self._socket, ANSWER_S))
        except (DeviceError, ProtocolError) as err:
            return look_of_silence(silence_of(err), err.what, self._about)
        look: LineLook = await self._run(self._reading, lambda: look_of(status, self._names, self._about))
        self._people_decide = look.automation in PEOPLE_DECIDE
        return look

    async def work(self, what: Callable[[], Any]) -> Any:
        """Something for one viewer that blocks: a picture, a label."""
        return await self._run(self._working, what)

    async def ask(self, do: str, **words: Any) -> Any:
        """Ask the running box for something. Raises as process/control.py's `ask`; a look follows at once."""
        answer = await self._run(self._asking, lambda: ask(self._socket, do, ANSWER_S, **words))
        if self._tasks:
            await self._look_at_status()
        return answer

    @staticmethod
    async def _run(where: ThreadPoolExecutor, what: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(where, what)

    # -- the part to look at -------------------------------------------------------------------------------------------

    def _ask_part(self) -> PartLook | None:
        told = ask(self._socket, "preview", ANSWER_S, after=self._after)
        if not told:
            return None
        view = from_json(PartView, told, "preview")
        self._after = view.seq
        picture: Picture | None = ("image/jpeg", b64decode(view.picture)) if view.picture else None
        from edge_runtime.serve.pages.painting import painted_heat  # 30 MB that nobody needs who shows no picture

        heat: Picture | None = ("image/png", painted_heat(b64decode(view.heat))) if view.heat else None
        self._keep_view(view.part, picture, heat)
        return part_look(view)

    def _ask_waiting(self) -> WaitingLook:
        shown = self._waiting if self._waiting in self._views else ""
        told = ask(self._socket, "waiting", ANSWER_S, shown=shown)
        if not told:
            self._waiting = ""
            return NOBODY_WAITS
        view = from_json(WaitingView, told, "waiting")
        if view.picture:
            self._keep_view(view.part, ("image/jpeg", b64decode(view.picture)), None)
        self._waiting = view.part
        until_ms = round(time.time() * 1e3) + view.left_ms
        return WaitingLook(
            view.part, view.waiting, until_ms, view.left_ms, view.reason, view.regions, view.width, view.height
        )

    def _keep_view(self, part: str, picture: Picture | None, heat: Picture | None) -> None:
        self._views[part] = (picture, heat)
        while len(self._views) > VIEWS_KEPT:
            self._views.popitem(last=False)

    def view(self, part: str, *, is_heat: bool) -> Picture | None:
        """The picture of a part that was looked at lately, or its heat map; None where there is none any more."""
        return self._views.get(part, (None, None))[is_heat]


async def _again_and_again(every_s: float, look: Callable[[], Awaitable[None]]) -> None:
    """As often, whatever a look costs; one that fails is told in the log and tried again."""
    while True:
        begun = time.monotonic()
        try:
            await look()
        except (EdgeError, OSError):
            log.exception("page.look")
        await asyncio.sleep(max(0.02, every_s - (time.monotonic() - begun)))
