"""The times of the protocol, as PROTOCOL.md tells them."""

from __future__ import annotations

MS = 1_000_000
ASK_AGAIN_NS = 50 * MS  # HELLO, CONFIG, ARM: a frame and its answer are 3 ms at 115200 8N1
REFUSED_AGAIN_NS = 1000 * MS  # somebody may be flashing it right now
BEAT_NS = 100 * MS
BEAT_AGAIN_NS = 30 * MS  # without an answer to the last one
LOST_AFTER_NS = 500 * MS  # 16 beats without an answer; a wire that loses a fifth of all frames has that never
VERDICT_AGAIN_NS = 30 * MS
