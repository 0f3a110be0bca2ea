"""The catalogue as a line or a command asks it: a text goes in, codes come out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.catalogue.catalogue import Catalogue
from edge_runtime.core.errors import EdgeError

log = logging.getLogger(__name__)

RESULTS = 5


@dataclass(frozen=True, slots=True)
class Found:
    """What the catalogue knows of a text, as codes."""

    results: tuple[str, ...] = ()  # the best first
    near: tuple[str, ...] = ()  # where there are none: one symbol off from the code that was asked for; to be told only


class Searcher:
    """The station's catalogue as the voice line asks it, from any thread. A catalogue in trouble finds nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = ""

    def __call__(self, text: str) -> Found:
        try:
            with Catalogue(self._path) as catalogue:  # 1 ms, some requests a minute; an import is seen at once
                results = tuple(hit.item.code for hit in catalogue.search(text, RESULTS))
                return Found(results, () if results else tuple(catalogue.near(text)))
        except EdgeError as err:
            if str(err) != self._told:
                self._told = str(err)
                log.error("catalogue.trouble %s", err)
            return Found()
