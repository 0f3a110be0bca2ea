"""Records from the journal to the cloud: one thread that turns journal, outbox, link and pictures, again and again.

One thread because each task is short (a slice of the journal takes 30 ms, a commit 2-5 ms) and because nothing then
needs a lock. A task that fails (full disk, damaged file, silent broker) is told in health and tried again later, and
the others go on. Whoever lives beside it (a Sparkplug node, commands) has a link and a thread of its own, and talks to
this one through `post`, `request_evidence` and `flush`, from any thread.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.config.paths import JOURNAL, state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import MS, SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.events import EventKind
from edge_runtime.core.machine import this_machine
from edge_runtime.flow.components import Health, State
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.mqtt.settings import link_settings
from edge_runtime.sync.outbox.aside import SHARE, Aside
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.guard import OutboxGuard
from edge_runtime.sync.outbox.pictures import PictureQueue
from edge_runtime.sync.outbox.quota import Quota
from edge_runtime.sync.outbox.schema import OUTBOX
from edge_runtime.sync.outbox.sender import Sender
from edge_runtime.sync.pictures.carriers import choose_carrier
from edge_runtime.sync.pictures.upload import Uploads
from edge_runtime.sync.questions import Questions
from edge_runtime.sync.records.box_metrics import BoxMetrics, Snapshot
from edge_runtime.sync.records.feeder import Feeder
from edge_runtime.sync.records.format import RecordFormat, own_event
from edge_runtime.sync.records.intake import Intake
from edge_runtime.sync.records.journal import JournalTail
from edge_runtime.sync.records.posts import Posts
from edge_runtime.sync.records.topics import Topics, topics
from edge_runtime.sync.records_link import RecordsLink
from edge_runtime.sync.retrying import RETRY_FIRST_S, RETRY_MOST_S, RetryingTasks

log = logging.getLogger(__name__)

FEED_EVERY_NS = 100 * MS  # between looks at the journal: part of the second in which a record must be in the cloud
CHORES_EVERY_NS = SECOND
MARK_EVERY_NS = 10 * SECOND
STOP_WAIT_S = 4.0  # SIGTERM must end within 5 s
TASKS = ("outbox", "feed", "send", "upload")
BOOT = "EDGE_RUNTIME_BOOT"  # set by the unit, whose walls hide the kernel's own word


class Delivery:
    """A component. snapshot: health and metrics of the box, asked for every `metrics_every_s` on this thread; it must
    not take longer than a second, and None or an error is a record without them.
    """

    name = "sync"

    def __init__(
        self,
        config: EdgeConfig,
        *,
        snapshot: Snapshot | None = None,
        clock: Clock = monotonic_ns,
        utc_ns: Callable[[], int] = time.time_ns,
        rng: random.Random | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        cfg, box, state = config.sync, config.station.name, state_dir(config)
        self._clock = clock
        self._rng = rng or random.Random()
        self._wall = WallClock(clock, utc_ns)
        self.topics: Topics = topics(config.station)
        self.outbox = Outbox(
            state / OUTBOX,
            RecordFormat(box),
            self._wall,
            machine=lambda folder: this_machine(folder, cfg.machine_id),
            boot=env.get(BOOT, ""),
        )
        self._guard = OutboxGuard(self.outbox, clock)
        self._quota = Quota(self.outbox, cfg.quota_mb << 20, self._wall)
        settings, hears_consumer = link_settings(cfg, box, env), cfg.ack == "consumer"
        self._broker = RecordsLink(
            settings, self.topics, self.outbox, hears_consumer=hears_consumer, clock=clock, rng=self._rng
        )
        self.link = self._broker.link
        self._sender = Sender(
            self.outbox,
            self.link,
            self.topics.records,
            clock,
            aside=Aside(self.outbox, round((cfg.quota_mb << 20) * SHARE), self._wall),
            event_topic=self.topics.events,
            waits_for_consumer=hears_consumer,
            resend_after_s=cfg.resend_after_s,
            reads_back=cfg.read_back,
            tell=self.post,
        )
        self._carrier = choose_carrier(cfg, self.link, self.topics.files, box, env)
        self._broker.attach(self._sender, self._carrier)
        self._uploads: Uploads | None = None
        if self._carrier:
            self._uploads = Uploads(
                PictureQueue(self.outbox),
                state,
                self._carrier,
                self._wall,
                clock,
                bytes_s=cfg.evidence_kb_s * 1000,
                hours=cfg.evidence_hours,
                is_metered=cfg.metered,
            )
        self._tail = JournalTail(state / JOURNAL, clock)
        pictures_of = cfg.evidence_verdicts if self._carrier else ()
        self._feeder = Feeder(
            self.outbox, self._tail, self._wall, pictures_of, with_words=config.voice.remote.may_leave
        )
        self._posts = Posts(self._wall)
        self._intake = Intake(self.outbox, self._feeder, self._posts, self._quota, self._sender.settlement)
        self._metrics = BoxMetrics(self.outbox, self._quota, clock, cfg.metrics_every_s, snapshot, self.report)
        self._questions = Questions(self.link.wake)
        self._tasks = RetryingTasks(TASKS, state, clock, self._rng, self._task_failed)
        self._next_feed_ns = self._next_chores_ns = self._next_mark_ns = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._idle = threading.Event()  # nothing waits, as far as this process can see
        self._progress_ns = clock()
        self._error = ""

    # -- component ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin at once. A broker or a disk that is not there is told in health, and waited for.

        Raises StorageError when another sync has the outbox.
        """
        if self._thread:
            return
        try:
            self.outbox.lock()
        except OSError as err:
            self._tasks.failed("outbox", err)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._loop, name="sync", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye to the broker, note what was delivered, close: within 5 s, whatever broker and disk do.

        It is not started again after this; make another one.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            if not self._stopping.is_set():
                self.link.close()  # it was never started
            return
        self._stopping.set()
        self.link.wake()
        thread.join(STOP_WAIT_S)
        if thread.is_alive():
            log.error("sync.stop it hangs in a call; what is not delivered goes again at the next start")

    def health(self) -> Health:
        if self._thread is None:
            return Health(State.STOPPED)
        troubles = self._tasks.troubles()
        link = self.link.health()
        if link.state is not State.OK:
            troubles.append(link.detail)
        if self._quota.is_full:
            troubles.append("the outbox is full: records stay in the journal")
        troubles += [trouble for trouble in (self._sender.trouble(), self._broker.trouble) if trouble]
        if self._error:
            return Health(State.FAILED, self._error, self._progress_ns)
        if troubles:
            return Health(
                State.DEGRADED, f"{'; '.join(troubles)}; {self.outbox.waiting} records wait", self._progress_ns
            )
        unheard = "; the broker knows nobody who subscribes to the records" if self.link.is_unheard else ""
        return Health(State.OK, f"{link.detail}{unheard}", self._progress_ns)

    def report(self) -> Mapping[str, Any]:
        outbox, dropped = self.outbox, dict(self._quota.dropped + self._posts.dropped)
        return {
            "epoch": outbox.epoch,
            "last_seq": outbox.last_seq,
            "waiting": outbox.waiting,
            "added": outbox.added,
            "delivered": outbox.settled,
            "commits": outbox.commits,
            "dropped": dropped,
            "set_aside": list(outbox.aside),
            "full": self._quota.is_full,
            "aside": self._sender.aside.report(),
            "time_quality": self._wall.quality.value,
            "link": self.link.report(),
            "sender": self._sender.report(),
            "feeder": self._feeder.report(),
            "uploads": self._uploads.report() if self._uploads else None,
        }

    # -- for others, from any thread ----------------------------------------------------------------------------------

    def post(self, event: EventKind, detail: Mapping[str, Any], wait_s: float = 0.0) -> bool:
        """Send an `event` record of this process. True once it is on the disk, asked for with `wait_s`.

        False: not yet, it waits in memory; or it was refused and counted because too many wait there.
        """
        posted = self._posts.put(own_event(event, detail, self._wall))
        self.link.wake()
        return posted is not None and wait_s > 0 and posted.done.wait(wait_s)

    def request_evidence(self, part: str, timeout_s: float = 5.0) -> str:
        """Upload the picture of a part now, whatever hours and tariff say. Answers its file.

        Raises StorageError when there is none, or when it cannot be told in time.
        """
        if self._uploads is None:
            raise StorageError("pictures are not uploaded from this box: set sync.evidence")
        uploads = self._uploads
        return str(self._questions.ask(lambda: uploads.ask(part, self._tail), timeout_s))

    def retry(self, timeout_s: float = 5.0) -> int:
        """Send again what the broker refused; how many records that are. Raises StorageError."""
        return int(self._questions.ask(self._sender.retry, timeout_s))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that the journal holds now is delivered."""
        self._idle.clear()
        self.link.wake()
        return self._idle.wait(timeout_s)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        backoff = Backoff(RETRY_MOST_S, RETRY_FIRST_S, self._rng)
        while not self._stopping.is_set():
            self._progress_ns = self._clock()
            try:
                self._turn()
                self._error = ""
                backoff.succeeded()
            except Exception as err:
                self._error = f"sync failed: {err}"
                log.exception("sync.fault")
                self._stopping.wait(backoff.next_s())
        self._end()

    def _turn(self) -> None:
        """Each task in its turn, as far as there is an outbox; then whatever the network brings."""
        now = self._clock()
        if not self.outbox.is_open:
            self._tasks.run("outbox", self._open)
        if self.outbox.is_open:
            if now >= self._next_feed_ns:
                self._try("feed", self._feed)
            if now >= self._next_chores_ns:
                self._next_chores_ns = now + CHORES_EVERY_NS
                self._tasks.run("outbox", self._do_chores)
            self._try("send", self._send)
            if self._uploads and not self._sender.is_careful:
                self._try("upload", self._uploads.turn)
            self._questions.answer()
        self._sender.lanes.added(self.outbox.last_seq)
        self.link.turn(self._patience_s())

    def _patience_s(self) -> float:
        """How long the link may wait for the network."""
        if not self.outbox.is_open:
            return FEED_EVERY_NS / SECOND
        due_ns = max(self._next_feed_ns, self._tasks.next_ns("feed")) - self._clock()
        return max(0, min(due_ns, FEED_EVERY_NS)) / SECOND

    def _try(self, name: str, work: Callable[[], Any]) -> None:
        if self.outbox.is_open:  # the task before may have set it aside
            self._tasks.run(name, work)

    def _task_failed(self, error: Exception) -> None:
        """A damaged file cannot get better by trying again: a new one begins."""
        if not self.outbox.is_open or isinstance(error, EdgeError):
            return
        try:
            if self.outbox.set_aside_if_damaged(error):
                self._tasks.at_once("outbox")
        except OSError as err:
            log.error("sync.set_aside error=%s", err)

    # -- its tasks ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.outbox.open()
        self._outbox_renewed()

    def _outbox_renewed(self) -> None:
        self.link.renew("the outbox was opened anew")  # an acknowledgement of old numbers must not meet new ones
        self._feeder.outbox_renewed()
        self._sender.outbox_renewed()
        if self._uploads:
            self._uploads.outbox_renewed()
        self._next_feed_ns = 0

    def _feed(self) -> None:
        self._next_feed_ns = self._clock() + FEED_EVERY_NS
        self._intake.turn()
        if self._intake.has_more:
            self._next_feed_ns = 0
        if self._intake.is_all_delivered:
            self._idle.set()

    def _send(self) -> None:
        self._broker.take_acks()
        self._sender.lanes.added(self.outbox.last_seq)
        self._sender.fill()
        self._sender.settlement.flush()

    def _do_chores(self) -> None:
        self._broker.tell_rival(self.post)
        self._sender.settlement.tell_aside()
        if self._guard.look():
            self._outbox_renewed()
        if gone := self._quota.check(self._sender.lanes.taken):
            self._sender.lanes.dropped(gone)
        self._metrics.turn()
        now = self._clock()
        if now >= self._next_mark_ns:
            self._next_mark_ns = now + MARK_EVERY_NS
            self._wall.refresh()
            self.outbox.mark()
            if not self.outbox.waiting:
                self.outbox.give_back()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Goodbye, then the deletions, then the mark. Each may fail without harm."""
        for last in (self._broker.say_goodbye, self._flush_last, self._tail.close):
            try:
                last()
            except Exception as err:
                log.warning("sync.end error=%s", err)
        if self._carrier:
            self._carrier.stop()
        self.outbox.close()

    def _flush_last(self) -> None:
        if self.outbox.is_open:
            self._sender.settlement.flush(at_once=True)
            self.outbox.mark()
