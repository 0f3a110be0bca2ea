"""How `run` hands an utterance to `serve`, and what comes back: one JSON line each way over a unix socket.

    {"do": "recognise", "rate_hz": 16000, "samples": 31200, "within_ms": 400}\n + the samples, int16 little-endian
    {"text": "code alpha seven", "confidence": 1.0, "origin": "remote:asr@speech.example:10300"}\n
    {"error": "the speech server ... does not answer"}\n
    {"do": "health"}\n  ->  {"state": "ok", "detail": "...", ...}\n

Both processes speak it, so it lives with neither.
"""

from __future__ import annotations

SOCKET = "speech.sock"
MOST_SECONDS = 30
