"""`edge-runtime sync`: one thread that turns journal, outbox, link and uploads, in that order, again and again.

One thread because each step is short (a slice of the journal takes 30 ms, a commit 2-5 ms) and because nothing then
needs a lock. A step that fails (full disk, damaged file, silent broker) is told in health and tried again later, and
the others go on. Whoever lives beside it (a Sparkplug node, commands) has a link and a thread of its own, and talks to
this one through `post`, `request_evidence` and `flush`, from any thread.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.config.paths import state_dir
from edge_runtime.config.schema import EdgeConfig
from edge_runtime.core.clock import MS, SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import EdgeError, StorageError
from edge_runtime.core.machine import this_machine
from edge_runtime.flow.components import Health, State
from edge_runtime.recording.reader import iso_utc
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.daemon_parts import link_settings, make_carrier, make_uploads
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.reasons import in_words
from edge_runtime.sync.mqtt.settings import Message
from edge_runtime.sync.outbox.aside import SHARE, Aside
from edge_runtime.sync.outbox.guard import OutboxGuard
from edge_runtime.sync.outbox.outbox import OUTBOX, Outbox
from edge_runtime.sync.outbox.quota import Quota
from edge_runtime.sync.outbox.sender import Sender
from edge_runtime.sync.pictures.upload import MQTT_TOKEN, MqttCarrier, Uploads
from edge_runtime.sync.posts import Posts, Questions
from edge_runtime.sync.records.feeder import BEHIND_BELOW, Feeder
from edge_runtime.sync.records.feeder_journal import JournalTail
from edge_runtime.sync.records.records import Kind, RecordFormat, own_event, own_record, part_name
from edge_runtime.sync.records.topics import Topics, topics
from edge_runtime.sync.steps import RETRY_FIRST_S, RETRY_MOST_S, Steps

log = logging.getLogger(__name__)

JOURNAL = "journal.db"
FEED_EVERY_NS = 100 * MS  # between looks at the journal: part of the second in which a record must be in the cloud
CHORES_EVERY_NS = SECOND
MARK_EVERY_NS = 10 * SECOND
STOP_WAIT_S = 4.0  # SIGTERM must end within 5 s
GOODBYE_S = 1.0
STEPS = ("outbox", "feed", "send", "upload")
BOOT = "EDGE_RUNTIME_BOOT"  # set by the unit, whose walls hide the kernel's own word
STATE_SCHEMA = "edge-runtime/state/1"
_PART = re.compile(r"([0-9a-fA-F]{4})-(\d{1,10})$")

Snapshot = Callable[[], Mapping[str, Any] | None]


class SyncDaemon:
    """A component. snapshot: health and metrics of the box, asked for every `metrics_every_s` on the sync thread;
    it must not take longer than a second, and None or an error is a record without them.
    """

    name = "sync"

    def __init__(
        self,
        config: EdgeConfig,
        *,
        snapshot: Snapshot | None = None,
        is_metered: Callable[[], bool] | None = None,
        clock: Clock = monotonic_ns,
        utc_ns: Callable[[], int] = time.time_ns,
        rng: random.Random | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        cfg = self._cfg = config.sync
        self._clock = clock
        self._snapshot = snapshot
        self._box = config.station.name
        self._rng = rng or random.Random()
        self.topics: Topics = topics(config.station)
        state = state_dir(config)
        self._folder = state
        self._wall = WallClock(clock, utc_ns)
        self.settings = link_settings(cfg, self._box, env)
        self.link = MqttLink(
            self.settings,
            will=lambda: Message(self.topics.state, self._state("offline", "link lost"), retain=True),
            subscriptions=[(self.topics.ack, 1)] if cfg.ack == "consumer" else [],
            on_up=self._link_up,
            on_down=self._link_down,
            on_acked=self._acked,
            on_refused=self._refused,
            on_listening=self._listening,
            on_message=self._on_message,
            clock=clock,
            rng=self._rng,
        )
        self.outbox = Outbox(
            state / OUTBOX,
            RecordFormat(self._box),
            self._wall,
            machine=lambda folder: this_machine(folder, cfg.machine_id),
            boot=env.get(BOOT, ""),
        )
        self._guard = OutboxGuard(self.outbox, clock)
        self._tail = JournalTail(state / JOURNAL, clock)
        self._carrier = make_carrier(cfg, self.link, self.topics.files, self._box, env)
        pictures_of = cfg.evidence_verdicts if self._carrier else ()
        self._feeder = Feeder(self.outbox, self._tail, self._wall, pictures_of)
        self._sender = Sender(
            self.outbox,
            self.link,
            self.topics.records,
            clock,
            aside=Aside(self.outbox, round((cfg.quota_mb << 20) * SHARE), self._wall),
            event_topic=self.topics.events,
            waits_for_consumer=cfg.ack == "consumer",
            resend_after_s=cfg.resend_after_s,
            reads_back=cfg.read_back,
            tell=self.post,
        )
        self._quota = Quota(self.outbox, cfg.quota_mb << 20, self._wall)
        self._uploads: Uploads | None = None
        if self._carrier:
            self._uploads = make_uploads(cfg, self.outbox, state, self._carrier, self._wall, clock, is_metered)
        self._acks: list[bytes] = []
        self._posts = Posts(self._wall)
        self._questions = Questions(self.link.wake)
        self._steps = Steps(STEPS, state, clock, self._rng, self._step_failed)
        self._next_feed_ns = self._next_chores_ns = self._next_mark_ns = self._next_metrics_ns = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._idle = threading.Event()  # nothing waits, as far as this process can see
        self._progress_ns = clock()
        self._error = ""
        self._state_refused = ""  # why the broker does not take `state`
        self._is_rival_told = False

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
            self._steps.failed("outbox", err)
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
        troubles = self._steps.troubles()
        link = self.link.health()
        if link.state is not State.OK:
            troubles.append(link.detail)
        if self._quota.is_full:
            troubles.append("the outbox is full: records stay in the journal")
        troubles += [trouble for trouble in (self._sender.trouble(), self._state_refused) if trouble]
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

    def post(self, event: str, detail: Mapping[str, Any], wait_s: float = 0.0) -> bool:
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
        return str(self._questions.ask(lambda: self._request_evidence(part), timeout_s))

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
        now = self._clock()
        if not self.outbox.is_open:
            self._step("outbox", self._open)
        if self.outbox.is_open:
            if now >= self._next_feed_ns:
                self._step("feed", self._feed)
            if now >= self._next_chores_ns:
                self._next_chores_ns = now + CHORES_EVERY_NS
                self._step("outbox", self._do_chores)
            self._step("send", self._send)
            if self._uploads and not self._sender.is_careful:
                self._step("upload", self._uploads.turn)
            self._questions.answer()
        self._sender.lanes.added(self.outbox.last_seq)
        self.link.turn(self._patience_s())

    def _patience_s(self) -> float:
        """How long the link may wait for the network."""
        if not self.outbox.is_open:
            return FEED_EVERY_NS / SECOND
        due_ns = max(self._next_feed_ns, self._steps.next_ns("feed")) - self._clock()
        return max(0, min(due_ns, FEED_EVERY_NS)) / SECOND

    def _step(self, name: str, work: Callable[[], Any]) -> None:
        if name == "outbox" or self.outbox.is_open:
            self._steps.run(name, work)

    def _step_failed(self, error: Exception) -> None:
        """A damaged file cannot get better by trying again: a new one begins."""
        if not self.outbox.is_open or isinstance(error, EdgeError):
            return
        try:
            if self.outbox.set_aside_if_damaged(error):
                self._steps.at_once("outbox")
        except OSError as err:
            log.error("sync.set_aside error=%s", err)

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

    # -- feeding ------------------------------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Journal and posts into the outbox, deletions of what was delivered out of it: one commit."""
        self._next_feed_ns = self._clock() + FEED_EVERY_NS
        posts = self._posts.take()
        batch, reading = None, None
        if not self._quota.is_full:
            try:
                batch = self._feeder.look(may_catch_up=self._may_catch_up())
            except StorageError as err:
                reading = err
        if batch or posts:
            with self.outbox.transaction():
                if batch:
                    self._feeder.commit(batch)
                self.outbox.add(posts)
                self._sender.settle()
            if batch:
                self._feeder.committed(batch)
            self._posts.stored()
            self._sender.settled()  # may need the disk again, and what is committed is committed
        if self._feeder.has_more and not self._quota.is_full:
            self._next_feed_ns = 0
        if reading:
            raise reading
        feeder = self._feeder
        is_read = not (feeder.has_more or feeder.rows_behind or feeder.reads_former)
        if is_read and not (self.outbox.waiting or self._quota.is_full):
            self._idle.set()

    def _may_catch_up(self) -> bool:
        return self.outbox.waiting < BEHIND_BELOW

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        while self._acks:
            self._sender.consumer_acked(self._acks.pop(0))
        self._sender.lanes.added(self.outbox.last_seq)
        self._sender.fill()
        if self._sender.is_flush_due():
            self._sender.flush()

    def _link_up(self) -> None:
        self._wall.refresh()
        self._state_refused = ""
        self.link.publish(self.topics.state, self._state("online", ""), retain=True)
        self._sender.link_up()

    def _link_down(self, why: str) -> None:
        self._sender.link_down(self.link.end_code)
        if isinstance(self._carrier, MqttCarrier):
            self._carrier.link_down()

    def _acked(self, token: int) -> bool:
        if token != MQTT_TOKEN:
            return self._sender.acked(token)
        if isinstance(self._carrier, MqttCarrier):
            self._carrier.acked()
        return True

    def _listening(self, is_granted: bool) -> None:
        self._sender.listening(is_granted)

    def _refused(self, token: int | None, code: int) -> None:
        if token is None:
            self._state_refused = f"the broker refuses {self.topics.state}: {in_words(code)}; check its access list"
            log.warning("link.state_refused %s", self._state_refused)
        elif token == MQTT_TOKEN:
            if isinstance(self._carrier, MqttCarrier):
                self._carrier.refused(code)
        else:
            self._sender.refused(token, code)

    def _on_message(self, message: Message) -> None:
        if message.topic == self.topics.ack:
            self._acks.append(message.payload)
        elif message.topic == self.topics.records:
            self._sender.heard(message.payload)

    def _look_for_rival(self) -> None:
        """Tell once that another client has our name, and once that it is over."""
        is_known = self.link.rival.is_known
        if is_known and not self._is_rival_told:
            log.warning("link.rival %s", self.link.rival.trouble())
            self.post("uplink.name_taken", {"client_id": self.settings.client_id, "host": self.settings.host})
        self._is_rival_told = is_known

    def _state(self, state: str, why: str) -> bytes:
        message = {
            "schema": STATE_SCHEMA,
            "box": self._box,
            "state": state,
            "why": why,
            "epoch": self.outbox.epoch,
            "time": iso_utc(self._wall.now()),
            "time_quality": self._wall.quality.value,
        }
        return json.dumps(message, separators=(",", ":")).encode()

    # -- chores -------------------------------------------------------------------------------------------------------

    def _do_chores(self) -> None:
        now = self._clock()
        self._look_for_rival()
        self._sender.tell_aside()
        if self._guard.look():
            self._outbox_renewed()
        gone = self._quota.check(self._sender.lanes.taken)
        if gone:
            self._sender.lanes.dropped(gone)
        if self._cfg.metrics_every_s and now >= self._next_metrics_ns:
            self._next_metrics_ns = now + round(self._cfg.metrics_every_s * SECOND)
            self._add_metrics()
        if now >= self._next_mark_ns:
            self._next_mark_ns = now + MARK_EVERY_NS
            self._wall.refresh()
            self.outbox.mark()
            if not self.outbox.waiting:
                self.outbox.give_back()

    def _add_metrics(self) -> None:
        if self._quota.refuse_metrics():
            return
        try:
            box = self._snapshot() if self._snapshot else None
        except Exception as err:
            log.warning("sync.snapshot error=%s", err)
            box = None
        data = {"box": box, "sync": self.report()}
        with self.outbox.transaction():
            self.outbox.add([own_record(Kind.METRICS, data, self._wall)])

    def _request_evidence(self, part: str) -> str:
        if self._uploads is None:
            raise StorageError("pictures are not uploaded from this box: set sync.evidence")
        named = _PART.match(part)
        if not named:
            raise StorageError(f"part must look like 1a2b-17, not {part[:40]!r}")
        row = self._tail.part_named(int(named[1], 16), int(named[2]))
        if row is None or not row["evidence"]:
            raise StorageError(f"no picture of part {part} is kept")
        self._uploads.ask(row["evidence"], part_name(row["boot_id"], row["part_id"]), row["verdict"] or "unsure")
        return str(row["evidence"])

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Goodbye, then the deletions, then the mark. Each may fail without harm."""
        for last in (self._say_goodbye, self._flush_last, self._tail.close):
            try:
                last()
            except Exception as err:
                log.warning("sync.end error=%s", err)
        if self._carrier:
            self._carrier.stop()
        self.outbox.close()

    def _say_goodbye(self) -> None:
        self.link.close(Message(self.topics.state, self._state("offline", "stopped"), retain=True), GOODBYE_S)

    def _flush_last(self) -> None:
        if self.outbox.is_open:
            self._sender.flush()
            self.outbox.mark()
