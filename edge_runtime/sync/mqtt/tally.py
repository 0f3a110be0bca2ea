"""A subscriber that counts what arrives: what `demo` ends with, and a quick look at what a box delivers.

No store and no acknowledgement of its own: a consumer that must not lose anything keeps records by (epoch, seq).
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.settings import LinkSettings, Message

TURN_S = 0.5
STOP_WAIT_S = 4.0


@dataclass(slots=True)
class _Epoch:
    seen: set[int] = field(default_factory=set)
    repeats: int = 0


class Tally:
    """Messages in, counts out. Nothing that can arrive raises."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()  # Sparkplug messages by type: NBIRTH, DDATA, ...
        self.pieces = 0  # of pictures
        self.odd = 0
        self._epochs: dict[str, _Epoch] = {}

    def take(self, topic: str, payload: bytes) -> None:
        levels = topic.split("/")
        if levels[0] == "spBv1.0" and len(levels) > 3:
            self.tags[levels[2]] += 1
        elif levels[-1] == "rec":
            self._take_record(payload)
        elif levels[-1] == "file":
            self.pieces += 1

    def _take_record(self, payload: bytes) -> None:
        try:
            record = json.loads(payload)
            epoch, seq, kind = str(record["epoch"]), int(record["seq"]), str(record["kind"])
        except (ValueError, TypeError, KeyError, RecursionError):
            self.odd += 1
            return
        seen = self._epochs.setdefault(epoch, _Epoch())
        if seq in seen.seen:
            seen.repeats += 1
        else:
            seen.seen.add(seq)
            self.kinds[kind] += 1

    def has(self, epoch: str, seq: int) -> bool:
        return epoch in self._epochs and seq in self._epochs[epoch].seen

    def report(self) -> dict[str, Any]:
        """JSON types only. `holes`: numbers between the first and the last that did not come."""
        epochs = [
            {
                "epoch": name,
                "records": len(epoch.seen),
                "first": min(epoch.seen),
                "last": max(epoch.seen),
                "holes": max(epoch.seen) - min(epoch.seen) + 1 - len(epoch.seen),
                "repeats": epoch.repeats,
            }
            for name, epoch in list(self._epochs.items())
        ]
        return {
            "records": sum(self.kinds.values()),
            "kinds": dict(self.kinds.most_common()),
            "epochs": epochs,
            "tags": dict(sorted(self.tags.items())),
            "pieces": self.pieces,
            "odd": self.odd,
        }


class Subscriber:
    """A tally of everything that all boxes of a broker send, on a thread of its own."""

    def __init__(self, settings: LinkSettings) -> None:
        self.tally = Tally()
        self.is_ready = threading.Event()
        self._must_stop = threading.Event()
        self._link = MqttLink(
            settings,
            subscriptions=[("edge/#", 1), ("spBv1.0/#", 0)],
            on_up=self.is_ready.set,
            on_message=self._take,
        )
        self._thread = threading.Thread(target=self._run, name="subscriber", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._must_stop.set()
        self._link.wake()
        self._thread.join(STOP_WAIT_S)

    def report(self) -> Mapping[str, Any]:
        return self.tally.report()

    def _take(self, message: Message) -> None:
        self.tally.take(message.topic, message.payload)

    def _run(self) -> None:
        while not self._must_stop.is_set():
            self._link.turn(TURN_S)
        self._link.close()
