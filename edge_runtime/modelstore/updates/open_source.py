"""A source of updates as a person writes it: a folder, or https://HOST/PATH."""

from __future__ import annotations

from edge_runtime.config.paths import at_home
from edge_runtime.modelstore.updates.https import HttpSource
from edge_runtime.modelstore.updates.sources import FolderSource, Source, SourceError


def open_source(text: str, *, ca_file: str = "", proxy: str = "") -> Source:
    """Raises SourceError for what is none."""
    if not text:
        raise SourceError("no source of updates is named", "name a folder or https://..., or set updates.source")
    if "://" in text:
        return HttpSource(text, ca_file=ca_file, proxy=proxy)
    return FolderSource(at_home(text))
