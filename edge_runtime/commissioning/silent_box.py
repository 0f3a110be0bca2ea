"""A box that runs here and does not say how it is, as findings: what hangs, refuses or is absent has its own fix each.

Its devices are its own all the same: whoever looks at a device asks `running_box` first, and leaves it alone here.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.commissioning.finding import Finding, Level
from edge_runtime.core.errors import EdgeError, ProtocolError
from edge_runtime.process.ask_status import Silence, silence_of
from edge_runtime.process.control import NoAnswer, Refused

SILENT = (Refused, NoAnswer, ProtocolError)  # what `running_box` raises for a box that runs

_FIXES: Mapping[Silence, str] = {
    Silence.STOPPED: "systemctl start edge-runtime-run, or: edge-runtime run",
    Silence.REFUSED: "ask as root, or as a member of the service's group",
    Silence.NO_ANSWER: "journalctl -u edge-runtime-run tells what it hangs on; then systemctl restart edge-runtime-run",
    Silence.UNREADABLE: "restart it, it is of another version: systemctl restart edge-runtime-run",
}


def silent_daemon(err: EdgeError) -> Finding:
    """The daemon itself. One that hangs is a failure; none at all may be meant so."""
    silence = silence_of(err)
    level: Level = "fail" if silence is Silence.NO_ANSWER else "warn"
    return Finding("daemon", level, err.what, _FIXES[silence])


def unasked(name: str, err: EdgeError) -> Finding:
    """Something that only the running box could have told."""
    return Finding(name, "warn", f"not looked at beside a line that does not say: {err.what}", _FIXES[silence_of(err)])
