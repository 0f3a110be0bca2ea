"""A sync daemon in a process of its own, to be killed: STATE PORT, and settings as JSON. Ends on SIGTERM."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from edge_runtime.sync.delivery import Delivery
from tests.sync.sync_rig import config

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
daemon = Delivery(config(Path(sys.argv[1]), int(sys.argv[2]), **json.loads(sys.argv[3])))
daemon.start()
print("started", flush=True)
stopping.wait()
daemon.stop()
