"""What an utterance means: recognised, searched for, and kept where the station says so."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from edge_runtime.catalogue.searcher import Found
from edge_runtime.catalogue.spoken import near_line
from edge_runtime.core.errors import EdgeError
from edge_runtime.core.messages import Utterance
from edge_runtime.decision.dialog import Heard
from edge_runtime.features.sound_validity import REASON
from edge_runtime.inference.speech_answer import Transcript

log = logging.getLogger(__name__)

NOTHING = Transcript("", 0.0, None, "")


class Recogniser(Protocol):
    def __call__(self, utterance: Utterance) -> Transcript:
        """Raises EdgeError when it has no answer."""

    def report(self) -> Mapping[str, Any]: ...


Search = Callable[[str], Found]  # of a transcript


class Understanding:
    """See the module. keep_audio: writes an utterance and answers the file's name; None keeps none."""

    def __init__(
        self, recognise: Recogniser, search: Search, keep_audio: Callable[[Utterance], str] | None = None
    ) -> None:
        self.search = search
        self.counts: Counter[str] = Counter()
        self._recognise = recognise
        self._keep_audio = keep_audio

    def of(self, utterance: Utterance) -> Heard:
        """An utterance whose sound shows nothing, or that nobody could recognise, is heard without words."""
        flaw = f"{REASON}: {utterance.flaw}" if utterance.flaw else ""
        said = NOTHING if flaw else self._said(utterance)
        found = self.search(said.text) if said.text and said.command is None else Found()
        heard = Heard(
            utterance.start_ns,
            utterance.end_ns,
            said.text,
            said.confidence,
            said.command,
            found.results,
            said.origin,
            audio=self._keep_audio(utterance) if self._keep_audio else "",
            near=near(said.text, found),
            flaw=flaw,
        )
        if flaw:
            self.counts["invalid_utterances"] += 1
            log.warning("voice.invalid %s", flaw)
        return heard

    def report(self) -> Mapping[str, Any]:
        return self._recognise.report()

    def _said(self, utterance: Utterance) -> Transcript:
        try:
            return self._recognise(utterance)
        except EdgeError as err:
            log.error("voice.recogniser %s", err)
            self.counts["recogniser_faults"] += 1
            return NOTHING


def near(text: str, found: Found) -> str:
    """What the screen says where nothing was found but something close to it; else empty."""
    return near_line(text, found.near) if found.near else ""
