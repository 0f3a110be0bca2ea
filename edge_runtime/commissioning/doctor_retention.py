"""Whether old parts and pictures are being removed, and if not, why: what the box itself wrote down last."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.commissioning.finding import Finding
from edge_runtime.config.load import Loaded
from edge_runtime.config.paths import state_dir

FIX = "timedatectl set-ntp true, or fit a clock module; until then the journal grows: see the free space of the disk"


def retention_findings(loaded: Loaded) -> Iterator[Finding]:
    """Silent where `run` has never worked."""
    from edge_runtime.recording.on_time import FILE, read_words

    words = read_words(state_dir(loaded.config) / FILE)
    if words is None:
        return
    if words.trouble:
        yield Finding("retention", "warn", words.trouble, FIX)
    else:
        yield Finding("retention", "ok", words.says)
