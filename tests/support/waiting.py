"""Waiting for what another thread or process does: polled, with a limit, and a story for when it does not happen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

WAIT_S = 60.0  # nothing takes that long by itself; a machine that is busy with other tests may
POLL_S = 0.005  # well below anything that is waited for, and 200 looks a second load nobody


def until(claim: Callable[[], Any], within_s: float = WAIT_S, why: str | Callable[[], object] = "") -> Any:
    """The first true answer of the claim. Fails with `why` (text, or what is asked for it then) when none comes."""
    limit = time.monotonic() + within_s
    while not (found := claim()):
        if time.monotonic() > limit:
            raise AssertionError(f"did not come true within {within_s} s: {(why() if callable(why) else why) or claim}")
        time.sleep(POLL_S)
    return found


def seconds_until(claim: Callable[[], Any], within_s: float = WAIT_S, why: str | Callable[[], object] = "") -> float:
    """How long it took for the claim to come true."""
    began = time.monotonic()
    until(claim, within_s, why)
    return time.monotonic() - began
