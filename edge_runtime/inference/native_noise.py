"""What a native library prints by itself, kept off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def native_noise_hidden() -> Iterator[None]:
    """Hide what a TFLite runtime prints on stderr while it loads ("INFO: Created ..."). For one-thread programs only:
    for that moment stderr is nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
