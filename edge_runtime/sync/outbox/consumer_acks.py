"""What the consumer says it has: which records are delivered, where its word counts and not the broker's. Pure.

That closes the gap between a broker's acknowledgement and its disk, and its silent refusals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

MOST_RANGES = 1000  # in one acknowledgement of a consumer


class Unconfirmed:
    """Records that the broker has, and the consumer has not said so."""

    def __init__(self, resend_after_ns: int) -> None:
        self._resend_after_ns = resend_after_ns
        self._since_ns: dict[int, int] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._since_ns)

    def add(self, seq: int, now_ns: int) -> None:
        self._since_ns[seq] = now_ns

    def confirmed(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self._since_ns.pop(seq, None)

    def clear(self) -> None:
        self._since_ns.clear()

    def overdue(self, now_ns: int) -> list[int]:
        """All of them, once the oldest waits too long: they go again. They are forgotten here."""
        if not self._since_ns or now_ns - next(iter(self._since_ns.values())) <= self._resend_after_ns:
            return []
        seqs = list(self._since_ns)
        self._since_ns.clear()
        return seqs


def parse_ack(payload: bytes, epoch: str, last_seq: int) -> list[tuple[int, int]]:
    """`{"epoch": "..", "seq": 17, "ranges": [[20, 24]]}`: all up to 17, and 20 to 24, are safe with the consumer.

    An acknowledgement of another epoch means nothing to us and is an empty list. Raises ValueError.
    """
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as err:
        raise ValueError(f"acknowledgement is not JSON: {err}") from err
    if not isinstance(found, dict) or not isinstance(found.get("epoch"), str):
        raise ValueError("acknowledgement needs epoch (text) and seq (number)")
    if found["epoch"] != epoch:
        return []
    spans = [[1, found.get("seq")], *_listed(found.get("ranges", []))]
    for first, last in spans:
        if not (_is_count(first) and _is_count(last)) or last > last_seq:
            raise ValueError(f"acknowledgement names records {first} to {last}; the newest is {last_seq}")
    return [(first, last) for first, last in spans if first <= last]


def _listed(found: object) -> list[list[Any]]:
    if not isinstance(found, list) or len(found) > MOST_RANGES:
        raise ValueError(f"ranges must be a list of at most {MOST_RANGES} pairs")
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in found):
        raise ValueError("ranges must be pairs [first, last]")
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
