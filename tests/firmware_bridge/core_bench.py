"""A reject controller with its inputs at hand, for tests that drive it."""

from __future__ import annotations

from firmware_bridge.reject.controller import Controller
from firmware_bridge.reject.frames import Deframer, encode_frame
from firmware_bridge.reject.messages import (
    Arm,
    Beat,
    Config,
    Done,
    EventKind,
    EventMsg,
    Status,
    Verdict,
    VerdictMsg,
    VerdictR,
    unpack,
)

BOOT = 77
CONFIG = Config(BOOT, 900, 1000, 40, 0, 500, 1000, Verdict.REJECT)
A, R = Verdict.ACCEPT, Verdict.REJECT


class Bench:
    """A controller with its inputs at hand: one encoder count is half a millisecond."""

    def __init__(self, config=CONFIG, *, armed=True, encoder=0, **kwargs):
        self.log = []
        self.ctl = Controller(BOOT, 0, encoder=encoder, observer=self.log.append, **kwargs)
        self.encoder, self.us = encoder, 0
        self.edges = []
        if config is not None:
            assert self.ask(config) == [Done(BOOT, Config.KIND, Status.OK, self.ctl.flags)]
        if armed:
            self.ask(Arm(BOOT, True))
            assert self.ctl.is_armed

    def ask(self, message):
        """Send one message; the answers to it, events aside."""
        self.ctl.on_bytes(encode_frame(message.pack()), self.us)
        return [answer for answer in self.sent() if not isinstance(answer, EventMsg)]

    def sent(self):
        deframer = Deframer()
        return [unpack(p) for frame in self.ctl.take_frames() for p in deframer.feed(frame)]

    def eye(self):
        part_id = self.ctl.next_part
        self.ctl.on_eye(self.encoder % 2**32, self.us)
        return part_id

    def move(self, counts, *, beats=True):
        for _ in range(counts):
            self.encoder += 1
            self.us += 500
            self.ctl.on_encoder(self.encoder % 2**32, self.us)
            self.edges += self.ctl.edges
            self.ctl.edges.clear()
            if self.us % 100_000 == 0 and beats:
                self.ask(Beat(BOOT, 0))
            if self.us % 1000 == 0:
                self.ctl.on_time(self.us)
                self.edges += self.ctl.edges
                self.ctl.edges.clear()

    def verdict(self, part_id, verdict):
        (reply,) = self.ask(VerdictMsg(BOOT, part_id, verdict))
        assert isinstance(reply, VerdictR) and reply.part_id == part_id
        return reply.answer, reply.in_force

    def kinds(self, part_id):
        return [e.event.name for e in self.log if e.part_id == part_id and e.event is not EventKind.INPUT]

    def pulses(self):
        return [(edge.part_id, edge.encoder) for edge in self.edges if edge.is_on]
