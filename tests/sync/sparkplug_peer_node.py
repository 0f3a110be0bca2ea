"""An edge node from another project (pysparkplug), with one device: sends data until SIGTERM, then disconnects."""

from __future__ import annotations

import signal
import sys
import threading

import pysparkplug as sp

PORT, GROUP, NODE = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def metric(name: str, value: int) -> sp.Metric:
    return sp.Metric(timestamp=sp.get_current_timestamp(), name=name, datatype=sp.DataType.INT64, value=value)


done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
node = sp.EdgeNode(GROUP, NODE, metrics=(metric("Parts", 0),))
node.register(sp.Device("line", metrics=(metric("Frames", 0),)))
node.connect("127.0.0.1", port=PORT)
n = 0
while not done.wait(0.1):
    n += 1
    node.update((metric("Parts", n),))
    node.update_device("line", (metric("Frames", n),))
node.disconnect()
