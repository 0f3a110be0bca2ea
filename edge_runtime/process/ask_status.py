"""How the running box is asked how it is, and the reasons why it may not say.

Nobody there, a box that says no and a box that hangs call for three different acts: start it, become root, look what it
hangs on. A box that hangs still owns its devices. So nobody who asks may take one for the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from edge_runtime.core.errors import EdgeError
from edge_runtime.core.status import Status
from edge_runtime.process.control import CLIENT_TIMEOUT_S, NoAnswer, NobodyThere, Refused, ask


class Silence(StrEnum):
    """Why a box does not say how it is, as one word for records and tags; its sentence is in the error."""

    STOPPED = "stopped"  # nobody runs there
    REFUSED = "refused"  # it runs, and says no
    NO_ANSWER = "no_answer"  # somebody holds the socket and does not answer: it may hang
    UNREADABLE = "unreadable"  # what it says is no status of this version


def ask_status(socket: Path, timeout_s: float = CLIENT_TIMEOUT_S) -> Status:
    """Raises NobodyThere, Refused or NoAnswer; ProtocolError where a box of another version says something else."""
    return Status.from_json(ask(socket, "status", timeout_s))


def silence_of(err: EdgeError) -> Silence:
    """The word for what `ask_status` raised."""
    words: Mapping[type[EdgeError], Silence] = {
        NobodyThere: Silence.STOPPED,
        Refused: Silence.REFUSED,
        NoAnswer: Silence.NO_ANSWER,
    }
    return words.get(type(err), Silence.UNREADABLE)
