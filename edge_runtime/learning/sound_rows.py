"""The rows that a machine's sound is learnt in: means of log-mel frames, a quarter of a second each."""

from __future__ import annotations

from edge_runtime.core.manifest import MelSpec
from edge_runtime.features.mel import frame_count, mel_bank

RATE_HZ = 16_000
HOP_S = 0.032
MEL = MelSpec(
    window_ms=64, hop_ms=HOP_S * 1000, bands=24, low_hz=0, high_hz=7200, floor=1e-8
)  # 7.2 kHz: what resampling leaves
ROW_HOPS = 8
ROW_S = HOP_S * ROW_HOPS


def rows_within(seconds: float) -> int:
    """Rows that a clip of this length gives: the last mel window must end in it."""
    return max(1, frame_count(round(seconds * RATE_HZ), mel_bank(RATE_HZ, MEL)) // ROW_HOPS)
