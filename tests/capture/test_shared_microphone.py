"""Two listeners, one device."""

import queue

import numpy as np
import pytest

from edge_runtime.capture.microphones.microphone import MicrophoneLost
from edge_runtime.capture.microphones.shared import KEPT, SharedMicrophone
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import AudioChunk
from edge_runtime.flow.components import Health, State

WAIT_S = 20.0


class Scripted:
    name = "mic0"

    def __init__(self):
        self.items: queue.SimpleQueue = queue.SimpleQueue()
        self.starts = self.stops = 0
        self.refuses = False

    def start(self):
        if self.refuses:
            raise DeviceError("no such file")
        self.starts += 1

    def stop(self):
        self.stops += 1

    def health(self):
        return Health(State.OK)

    def report(self):
        return {"driver": "scripted"}

    def read(self, timeout_s):
        try:
            item = self.items.get(timeout=min(timeout_s, 0.02))
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise item
        return item


def chunk(seq):
    return AudioChunk(seq, seq, 16_000, np.zeros(480, np.int16))


@pytest.fixture
def device():
    return Scripted()


@pytest.fixture
def views(device):
    shared = SharedMicrophone(device)
    both = [shared.view(), shared.view()]
    for view in both:
        view.start()
    yield both
    for view in both:
        view.stop()


def test_both_hear_every_chunk_and_every_break(device, views):
    device.items.put(chunk(0))
    device.items.put(MicrophoneLost("gone"))
    device.items.put(chunk(5))
    for view in views:
        assert view.read(WAIT_S).seq == 0
        with pytest.raises(MicrophoneLost):
            view.read(WAIT_S)
        assert view.read(WAIT_S).seq == 5


def test_the_device_starts_once_and_stops_with_the_last_view(device, views):
    assert device.starts == 1
    views[0].stop()
    assert device.stops == 0
    device.items.put(chunk(1))
    assert views[1].read(WAIT_S).seq == 1
    views[1].stop()
    assert device.stops == 1
    views[0].start()
    assert device.starts == 2


def test_a_listener_that_does_not_read_costs_the_other_nothing(device, views):
    for seq in range(KEPT + 50):
        device.items.put(chunk(seq))
        assert views[1].read(WAIT_S).seq == seq
    assert views[0].read(WAIT_S).seq >= 50 - 1
    assert views[0].report()["view_overwritten"] >= 49


def test_a_device_that_refuses_to_start_is_told_and_can_be_tried_again(device):
    shared = SharedMicrophone(device)
    view, device.refuses = shared.view(), True
    with pytest.raises(DeviceError, match="no such file"):
        view.start()
    device.refuses = False
    view.start()
    assert device.starts == 1
    view.stop()
